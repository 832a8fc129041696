// CUDA kernels of skelops::forward_kinematics.
#define SKELOPS_HALF
#include "cuda/forward_kinematics.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

template <typename T>
KinematicsBatch<T> kinematics_batch(const char* op, const Tensor& q, const Tensor& offset,
                                    const Tensor& axis, const Ints& parent, const Ints& joint) {
  KinematicsBatch<T> batch = {};
  batch.tables = tree_tables<acc_t<T>>(op, q, std::nullopt, offset, axis, parent, joint);
  batch.frames = q.size(0), batch.q = input<T>(q);
  return batch;
}

std::tuple<Tensor, Tensor> forward_kinematics_cuda(Tensor q, Tensor offset, Tensor axis,
                                                   Ints parent, Ints joint) {
  constexpr const char* kOp = "_forward_kinematics_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  Tensor pos = torch::stable::new_empty(q, {frames, n, 3});
  Tensor rot = torch::stable::new_empty(q, {frames, n, 3, 3});
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = kinematics_batch<T>(kOp, q, offset, axis, parent, joint);
    const FrameLaunch run(forward_kinematics_kernel<T>, q, batch.tables.bytes(), {n, kPieceColumns},
                          kFrameSlots * n);
    run(batch, output<T>(pos), output<T>(rot));
  });
  return {pos, rot};
}

Tensor forward_kinematics_backward_cuda(Tensor grad_pos, Tensor grad_rot, Tensor q, Tensor offset,
                                        Tensor axis, Ints parent, Ints joint) {
  constexpr const char* kOp = "_forward_kinematics_backward_cuda";
  const int64_t n = static_cast<int64_t>(parent.size());
  Tensor dq = torch::stable::empty_like(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = kinematics_batch<T>(kOp, q, offset, axis, parent, joint);
    const FrameLaunch run(forward_kinematics_backward_kernel<T>, q, batch.tables.bytes(),
                          {n, kPieceColumns}, 2 * kFrameSlots * n);
    run(batch, rows<T>(kOp, grad_pos, 3 * n, q), rows<T>(kOp, grad_rot, kRotationValues * n, q),
        output<T>(dq));
  });
  return dq;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_forward_kinematics_cuda(Tensor q, Tensor offset, Tensor axis, int[] parent, int[] joint) "
      "-> (Tensor, Tensor)");
  m.def(
      "_forward_kinematics_backward_cuda(Tensor grad_pos, Tensor grad_rot, Tensor q, "
      "Tensor offset, Tensor axis, int[] parent, int[] joint) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_forward_kinematics_cuda", TORCH_BOX(&forward_kinematics_cuda));
  m.impl("_forward_kinematics_backward_cuda", TORCH_BOX(&forward_kinematics_backward_cuda));
}

}  // namespace skelops
