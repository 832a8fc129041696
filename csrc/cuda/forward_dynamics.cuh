// Forward dynamics, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"
#include "math/forward_dynamics.h"

namespace skelops {

constexpr int kForwardBackwardSlots = most(articulated::kSlots, inverse_backward::kSlots);

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_dynamics_kernel(MotionBatch<T> batch, T* qdd) {
  alignas(32) extern __shared__ unsigned char shared[];
  solve_motion(batch, shared, articulated::kSlots, qdd,
               [](const auto&... frame) { forward_dynamics(frame...); });
}

// With w = M^-1 grad, the gradient is w for tau, and that of inverse dynamics against -w for all
// else. `qdd`: the accelerations; null: they are computed again, as those saved are rounded.
template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_dynamics_backward_kernel(MotionBatch<T> batch, const T* grad, const T* qdd,
                                     MotionGrads<T> found) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const RowTile<acc> p{reinterpret_cast<acc*>(shared + batch.tables.bytes()), n};
  const RowTile<acc> q = p.next(n), qd = q.next(n), drive = qd.next(n);
  const Vec3<acc> world = minus_gravity(batch.gravity);
  const auto memory = thread_memory(batch.scratch, kForwardBackwardSlots * n);
  const auto dinertia = gradient_share(found.inertia, kInertiaSize * n);
  const bool want_state = found.q || found.qd || found.wrench || found.inertia;
  over_frames(batch.frames, [&](long long begin, int count) {
    const long long frame = begin + threadIdx.x;
    const bool inside = threadIdx.x < count;
    // At rest and without gravity, accelerations are M^-1 times the forces.
    load_rows(grad, begin, count, p);
    load_rows(batch.q, begin, count, q);
    load_rows<T>(nullptr, begin, count, qd);
    __syncthreads();
    if (inside) {
      forward_dynamics(tree, q.row(), qd.row(), p.row(), static_cast<const T*>(nullptr),
                       Vec3<acc>{}, memory, p.row());
    }
    __syncthreads();
    if (found.drive) store_rows(found.drive, begin, count, p);
    if (!want_state) return;
    load_rows(batch.qd, begin, count, qd);
    load_rows(qdd ? qdd : batch.drive, begin, count, drive);
    __syncthreads();
    if (inside) {
      for (int i = 0; i < n; ++i) p.row()[i] = -p.row()[i];
      if (!qdd) {
        forward_dynamics(tree, q.row(), qd.row(), drive.row(), batch.wrench_of(frame), world,
                         memory, drive.row());
      }
      inverse_dynamics_backward(tree, p.row(), q.row(), qd.row(), drive.row(),
                                batch.wrench_of(frame), world, memory, q.row(), qd.row(),
                                drive.row(), found.wrench ? found.wrench + frame * 6 * n : nullptr,
                                found.inertia ? &dinertia : nullptr);
    }
    __syncthreads();
    if (found.q) store_rows(found.q, begin, count, q);
    if (found.qd) store_rows(found.qd, begin, count, qd);
  });
}

}  // namespace skelops
