// CUDA kernels of skelops::mass_matrix.
#define SKELOPS_HALF
#include "cuda/mass_matrix.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

template <typename T>
MassBatch<T> mass_batch(const char* op, const Tensor& q, const Tensor& inertia,
                        const Tensor& offset, const Tensor& axis, const Ints& parent,
                        const Ints& joint, bool packed, bool every_inertia = false) {
  MassBatch<T> batch = {};
  batch.tables = tree_tables<acc_t<T>>(op, q, inertia, offset, axis, parent, joint, every_inertia);
  batch.frames = q.size(0), batch.q = input<T>(q), batch.packed = packed;
  batch.entries = batch.tables.entries();
  return batch;
}

Tensor mass_matrix_cuda(Tensor q, Tensor inertia, Tensor offset, Tensor axis, Ints parent,
                        Ints joint, bool packed) {
  constexpr const char* kOp = "_mass_matrix_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  Tensor M;
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = mass_batch<T>(kOp, q, inertia, offset, axis, parent, joint, packed);
    const std::vector<int64_t> shape =
        packed ? std::vector<int64_t>{frames, batch.entries} : std::vector<int64_t>{frames, n, n};
    M = packed ? torch::stable::new_empty(q, shape) : torch::stable::new_zeros(q, shape);
    const FrameLaunch run(mass_matrix_kernel<T>, q, batch.bytes(), {n}, composite::kSlots * n);
    run(batch, output<T>(M));
  });
  return M;
}

std::tuple<Tensor, Tensor> mass_matrix_backward_cuda(Tensor grad, Tensor q, Tensor inertia,
                                                     Tensor offset, Tensor axis, Ints parent,
                                                     Ints joint, bool packed, int64_t needs) {
  constexpr const char* kOp = "_mass_matrix_backward_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  const bool want_inertia = wants(needs, 1);
  const Wanted dq(q, wants(needs, 0), {frames, n});
  Tensor dinertia;
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch =
        mass_batch<T>(kOp, q, inertia, offset, axis, parent, joint, packed, want_inertia);
    const FrameLaunch run(mass_matrix_backward_kernel<T>, q, batch.bytes(), {n},
                          composite::kBackwardSlots * n);
    const Wanted partial = run.partial(want_inertia, kInertiaSize * n);
    run(batch, rows<T>(kOp, grad, batch.values(), q), dq.get<T>(), partial.get<acc_t<T>>());
    dinertia = summed(partial);
  });
  return {dq.tensor, dinertia};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_mass_matrix_cuda(Tensor q, Tensor inertia, Tensor offset, Tensor axis, int[] parent, "
      "int[] joint, bool packed) -> Tensor");
  m.def(
      "_mass_matrix_backward_cuda(Tensor grad, Tensor q, Tensor inertia, Tensor offset, "
      "Tensor axis, int[] parent, int[] joint, bool packed, int needs) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_mass_matrix_cuda", TORCH_BOX(&mass_matrix_cuda));
  m.impl("_mass_matrix_backward_cuda", TORCH_BOX(&mass_matrix_backward_cuda));
}

}  // namespace skelops
