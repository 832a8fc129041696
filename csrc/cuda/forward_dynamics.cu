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
  const LaunchOn device(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    using acc = acc_t<T>;
    MotionBatch<T> batch =
        motion_batch<T>(kOp, q, qd, tau, wrench, inertia, offset, axis, gravity, parent, joint);
    const int64_t n = batch.tables.size;
    if (batch.frames == 0) return;
    const FrameBlocks grid(forward_dynamics_kernel<T>, q, batch.tables.bytes(),
                           row_bytes<acc>({n, n, n}));
    const Tensor memory = working_memory<acc>(q, grid, articulated::kSlots * n);
    batch.scratch = output<acc>(memory);
    forward_dynamics_kernel<<<grid.blocks, grid.threads, grid.shared_bytes, device.stream()>>>(
        batch, output<T>(qdd));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return qdd;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward_dynamics_backward_cuda(
    Tensor grad, Tensor q, OptionalTensor qd, Tensor tau, OptionalTensor wrench, Tensor inertia,
    Tensor offset, Tensor axis, OptionalTensor gravity, Ints parent, Ints joint, Tensor qdd,
    int64_t needs) {
  constexpr const char* kOp = "_forward_dynamics_backward_cuda";
  const int64_t frames = q.size(0), n = static_cast<int64_t>(parent.size());
  const bool want_inertia = wants(needs, 4);
  const Wanted dq(q, wants(needs, 0), {frames, n}), dqd(q, wants(needs, 1), {frames, n});
  const Wanted dtau(q, wants(needs, 2), {frames, n}), dwrench(q, wants(needs, 3), {frames, n, 6});
  Tensor dinertia = torch::stable::new_empty(inertia, {0});
  const LaunchOn device(q);
  dispatch_device_type(kOp, q, [&](auto zero) {
    using T = decltype(zero);
    using acc = acc_t<T>;
    MotionBatch<T> batch = motion_batch<T>(kOp, q, qd, tau, wrench, inertia, offset, axis, gravity,
                                           parent, joint, want_inertia);
    const FrameBlocks grid(forward_dynamics_backward_kernel<T>, q, batch.tables.bytes(),
                           row_bytes<acc>({n, n, n, n}));
    const Tensor partial = partial_gradient<acc>(q, grid, want_inertia, kInertiaSize * n);
    if (batch.frames > 0) {
      const Tensor memory = working_memory<acc>(q, grid, kForwardBackwardSlots * n);
      batch.scratch = output<acc>(memory);
      const T* const saved = sizeof(T) == sizeof(acc) ? rows<T>(kOp, qdd, n, q) : nullptr;
      const MotionGrads<T> found{dq.get<T>(), dqd.get<T>(), dtau.get<T>(), dwrench.get<T>(),
                                 want_inertia ? output<acc>(partial) : nullptr};
      forward_dynamics_backward_kernel<<<grid.blocks, grid.threads, grid.shared_bytes,
                                         device.stream()>>>(batch, rows<T>(kOp, grad, n, q), saved,
                                                            found);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    if (want_inertia) dinertia = summed(partial);
  });
  return {dq.tensor, dqd.tensor, dtau.tensor, dwrench.tensor, dinertia};
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
