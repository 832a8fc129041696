// CUDA kernels of skelops::forward_kinematics.
#define SKELOPS_HALF
#include "cuda/forward_kinematics.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

std::tuple<Tensor, Tensor> forward_kinematics_cuda(Tensor q, Tensor offset, Tensor axis,
                                                   Ints parent, Ints joint) {
  constexpr const char* kOp = "_forward_kinematics_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  Tensor pos = torch::stable::new_empty(q, {frames, n, 3});
  Tensor rot = torch::stable::new_empty(q, {frames, n, 3, 3});
  const LaunchOn device(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    using acc = acc_t<T>;
    const auto tables = tree_tables<acc>(kOp, q, std::nullopt, offset, axis, parent, joint);
    if (frames == 0) return;
    const FrameBlocks grid(forward_kinematics_kernel<T>, q, tables.bytes(),
                           row_bytes<acc>({n, kPieceColumns}));
    const Tensor memory = working_memory<acc>(q, grid, kFrameSlots * n);
    forward_kinematics_kernel<<<grid.blocks, grid.threads, grid.shared_bytes, device.stream()>>>(
        tables, frames, input<T>(q), output<acc>(memory), output<T>(pos), output<T>(rot));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {pos, rot};
}

Tensor forward_kinematics_backward_cuda(Tensor grad_pos, Tensor grad_rot, Tensor q, Tensor offset,
                                        Tensor axis, Ints parent, Ints joint) {
  constexpr const char* kOp = "_forward_kinematics_backward_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  Tensor dq = torch::stable::empty_like(q);
  const LaunchOn device(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    using acc = acc_t<T>;
    const auto tables = tree_tables<acc>(kOp, q, std::nullopt, offset, axis, parent, joint);
    if (frames == 0) return;
    const FrameBlocks grid(forward_kinematics_backward_kernel<T>, q, tables.bytes(),
                           row_bytes<acc>({n, kPieceColumns}));
    const Tensor memory = working_memory<acc>(q, grid, 2 * kFrameSlots * n);
    forward_kinematics_backward_kernel<<<grid.blocks, grid.threads, grid.shared_bytes,
                                         device.stream()>>>(
        tables, frames, rows<T>(kOp, grad_pos, 3 * n, q),
        rows<T>(kOp, grad_rot, kRotationValues * n, q), input<T>(q), output<acc>(memory),
        output<T>(dq));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
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
