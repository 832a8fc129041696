// Inverse dynamics, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"
#include "math/inverse_dynamics.h"

namespace skelops {

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    inverse_dynamics_kernel(MotionBatch<T> batch, T* tau) {
  alignas(32) extern __shared__ unsigned char shared[];
  solve_motion(batch, shared, inverse::kSlots, tau,
               [](const auto&... frame) { inverse_dynamics(frame...); });
}

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    inverse_dynamics_backward_kernel(MotionBatch<T> batch, const T* grad, MotionGrads<T> found) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const RowTile<acc> p{reinterpret_cast<acc*>(shared + batch.tables.bytes()), n};
  const RowTile<acc> q = p.next(n), qd = q.next(n), qdd = qd.next(n);
  const Vec3<acc> world = minus_gravity(batch.gravity);
  const auto memory = thread_memory(batch.scratch, inverse_backward::kSlots * n);
  const auto dinertia = gradient_share(found.inertia, kInertiaSize * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(grad, begin, count, p);
    load_rows(batch.q, begin, count, q);
    load_rows(batch.qd, begin, count, qd);
    load_rows(batch.drive, begin, count, qdd);
    __syncthreads();
    if (threadIdx.x < count) {
      const long long frame = begin + threadIdx.x;
      inverse_dynamics_backward(tree, p.row(), q.row(), qd.row(), qdd.row(), batch.wrench_of(frame),
                                world, memory, q.row(), qd.row(), qdd.row(),
                                found.wrench ? found.wrench + frame * 6 * n : nullptr,
                                found.inertia ? &dinertia : nullptr);
    }
    __syncthreads();
    if (found.q) store_rows(found.q, begin, count, q);
    if (found.qd) store_rows(found.qd, begin, count, qd);
    if (found.drive) store_rows(found.drive, begin, count, qdd);
  });
}

}  // namespace skelops
