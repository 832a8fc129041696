// CUDA kernels of skelops::forward_dynamics.
#define SKELOPS_HALF
#include "cuda/forward_dynamics.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

Tensor forward_dynamics_cuda(Tensor q, OptionalTensor qd, Tensor tau, OptionalTensor wrench,
                             Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity,
                             Ints parent, Ints joint) {
  constexpr const char* kOp = "_forward_dynamics_cuda";
  Tensor qdd = torch::stable::empty_like(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch =
        motion_batch<T>(kOp, q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint);
    const int64_t n = batch.tables.size;
    const FrameLaunch run(forward_dynamics_kernel<T>, q, batch.tables.bytes(), {n, n, n},
                          articulated::kSlots * n);
    run(batch, output<T>(qdd));
  });
  return qdd;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward_dynamics_backward_cuda(
    Tensor grad, Tensor q, OptionalTensor qd, Tensor tau, OptionalTensor wrench, Tensor inertia,
    Tensor offset, Tensor axis, OptionalTensor gravity, Ints parent, Ints joint, Tensor qdd,
    int64_t needs) {
  constexpr const char* kOp = "_forward_dynamics_backward_cuda";
  const bool want_inertia = wants(needs, 4);
  const WantedMotion found(q, needs);
  Tensor dinertia;
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = motion_batch<T>(kOp, q, qd, tau, wrench, inertia, offset, axis, gravity,
                                       parent, joint, want_inertia);
    const int64_t n = batch.tables.size;
    const FrameLaunch run(forward_dynamics_backward_kernel<T>, q, batch.tables.bytes(),
                          {n, n, n, n}, kForwardBackwardSlots * n);
    const Wanted partial = run.partial(want_inertia, kInertiaSize * n);
    const T* const saved = sizeof(T) == sizeof(acc_t<T>) ? rows<T>(kOp, qdd, n, q) : nullptr;
    run(batch, rows<T>(kOp, grad, n, q), saved, found.with<T>(partial));
    dinertia = summed(partial);
  });
  return {found.q.tensor, found.qd.tensor, found.drive.tensor, found.wrench.tensor, dinertia};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_forward_dynamics_cuda(Tensor q, Tensor? qd, Tensor tau, Tensor? wrench, Tensor inertia, "
      "Tensor offset, Tensor axis, Tensor? gravity, int[] parent, int[] joint) -> Tensor");
  m.def(
      "_forward_dynamics_backward_cuda(Tensor grad, Tensor q, Tensor? qd, Tensor tau, "
      "Tensor? wrench, Tensor inertia, Tensor offset, Tensor axis, Tensor? gravity, int[] parent, "
      "int[] joint, Tensor qdd, int needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_forward_dynamics_cuda", TORCH_BOX(&forward_dynamics_cuda));
  m.impl("_forward_dynamics_backward_cuda", TORCH_BOX(&forward_dynamics_backward_cuda));
}

}  // namespace skelops
