// CUDA kernels of skelops::inverse_dynamics.
#define SKELOPS_HALF
#include "cuda/inverse_dynamics.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

Tensor inverse_dynamics_cuda(Tensor q, OptionalTensor qd, OptionalTensor qdd, OptionalTensor wrench,
                             Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity,
                             Ints parent, Ints joint) {
  constexpr const char* kOp = "_inverse_dynamics_cuda";
  Tensor tau = torch::stable::empty_like(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch =
        motion_batch<T>(kOp, q, qd, qdd, wrench, inertia, offset, axis, gravity, parent, joint);
    const int64_t n = batch.tables.size;
    const FrameLaunch run(inverse_dynamics_kernel<T>, q, batch.tables.bytes(), {n, n, n},
                          inverse::kSlots * n);
    run(batch, output<T>(tau));
  });
  return tau;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> inverse_dynamics_backward_cuda(
    Tensor grad, Tensor q, OptionalTensor qd, OptionalTensor qdd, OptionalTensor wrench,
    Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity, Ints parent, Ints joint,
    int64_t needs) {
  constexpr const char* kOp = "_inverse_dynamics_backward_cuda";
  const bool want_inertia = wants(needs, 4);
  const WantedMotion found(q, needs);
  Tensor dinertia;
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = motion_batch<T>(kOp, q, qd, qdd, wrench, inertia, offset, axis, gravity,
                                       parent, joint, want_inertia);
    const int64_t n = batch.tables.size;
    const FrameLaunch run(inverse_dynamics_backward_kernel<T>, q, batch.tables.bytes(),
                          {n, n, n, n}, inverse_backward::kSlots * n);
    const Wanted partial = run.partial(want_inertia, kInertiaSize * n);
    run(batch, rows<T>(kOp, grad, n, q), found.with<T>(partial));
    dinertia = summed(partial);
  });
  return {found.q.tensor, found.qd.tensor, found.drive.tensor, found.wrench.tensor, dinertia};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_inverse_dynamics_cuda(Tensor q, Tensor? qd, Tensor? qdd, Tensor? wrench, Tensor inertia, "
      "Tensor offset, Tensor axis, Tensor? gravity, int[] parent, int[] joint) -> Tensor");
  m.def(
      "_inverse_dynamics_backward_cuda(Tensor grad, Tensor q, Tensor? qd, Tensor? qdd, "
      "Tensor? wrench, Tensor inertia, Tensor offset, Tensor axis, Tensor? gravity, int[] parent, "
      "int[] joint, int needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_inverse_dynamics_cuda", TORCH_BOX(&inverse_dynamics_cuda));
  m.impl("_inverse_dynamics_backward_cuda", TORCH_BOX(&inverse_dynamics_backward_cuda));
}

}  // namespace skelops
