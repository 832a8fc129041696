// Point masses on rigid bones, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"
#include "math/point_dynamics.h"

namespace skelops {

template <typename T>
struct PointBatch {
  using acc = acc_t<T>;
  int joints, root;
  long long frames;
  const T *x, *v, *force;
  const acc* mass;
  acc* scratch;
  unsigned char order[kMaxBodies], parent[kMaxBodies];

  // In shared memory: masses, order and parents.
  __host__ __device__ int bytes() const {
    return quad_bytes(joints * (sizeof(acc) + 2 * sizeof(int)));
  }
  // Of the joint among the multipliers.
  __device__ int bone(int joint) const { return joint - (joint > root); }
};

template <typename T>
__device__ PointTree stage_points_tree(const PointBatch<T>& batch, unsigned char* shared) {
  using acc = acc_t<T>;
  const int n = batch.joints;
  copy_or_zero(reinterpret_cast<acc*>(shared), batch.mass, n);
  int* const order = reinterpret_cast<int*>(shared + n * sizeof(acc));
  for (int j = threadIdx.x; j < n; j += blockDim.x) {
    order[j] = batch.order[j], order[n + j] = batch.parent[j];
  }
  return {n, order, order + n};
}

template <int D, typename T>
__global__ void __launch_bounds__(kFrameThreads)
    point_dynamics_kernel(PointBatch<T> batch, T* acceleration, T* multiplier) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.joints;
  const PointTree tree = stage_points_tree(batch, shared);
  const acc* const mass = reinterpret_cast<const acc*>(shared);
  const RowTile<acc> x{reinterpret_cast<acc*>(shared + batch.bytes()), D * n};
  const RowTile<acc> v = x.next(D * n), force = v.next(D * n);
  const auto memory = thread_memory(batch.scratch, points::kSlots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.x, begin, count, x);
    load_rows(batch.v, begin, count, v);
    load_rows(batch.force, begin, count, force);
    __syncthreads();
    if (threadIdx.x < count) {
      const acc* const lam = v.row();
      point_dynamics<D>(tree, mass, x.row(), v.row(), force.row(), memory, force.row(), v.row());
      T* const to = multiplier + (begin + threadIdx.x) * (n - 1);
      for (int j = 0; j < n; ++j) {
        if (j != batch.root) to[batch.bone(j)] = static_cast<T>(lam[j]);
      }
    }
    __syncthreads();
    store_rows(acceleration, begin, count, force);
  });
}

// Null: not wanted. mass: partial sums.
template <typename T>
struct PointGrads {
  T *x, *v, *force;
  acc_t<T>* mass;
};

template <int D, typename T>
__global__ void __launch_bounds__(kFrameThreads)
    point_dynamics_backward_kernel(PointBatch<T> batch, const T* grad_acc, const T* grad_multiplier,
                                   PointGrads<T> found) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.joints;
  const PointTree tree = stage_points_tree(batch, shared);
  const acc* const mass = reinterpret_cast<const acc*>(shared);
  const RowTile<acc> x{reinterpret_cast<acc*>(shared + batch.bytes()), D * n};
  const RowTile<acc> v = x.next(D * n), force = v.next(D * n), w = force.next(D * n);
  const RowTile<acc> dv = w.next(D * n), lam = dv.next(n), mu = lam.next(n);
  const auto memory = thread_memory(batch.scratch, points::kSlots * n);
  const auto dmass = gradient_share(found.mass, n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.x, begin, count, x);
    load_rows(batch.v, begin, count, v);
    load_rows(batch.force, begin, count, force);
    load_rows(grad_acc, begin, count, w);
    __syncthreads();
    if (threadIdx.x < count) {
      const T* const from = grad_multiplier + (begin + threadIdx.x) * (n - 1);
      for (int j = 0; j < n; ++j) {
        mu.row()[j] = j == batch.root ? acc(0) : static_cast<acc>(from[batch.bone(j)]);
      }
      point_dynamics_backward<D>(tree, mass, w.row(), mu.row(), x.row(), v.row(), force.row(),
                                 memory, force.row(), lam.row(), mu.row(), x.row(), dv.row(),
                                 w.row(), found.mass ? &dmass : nullptr);
    }
    __syncthreads();
    if (found.x) store_rows(found.x, begin, count, x);
    if (found.v) store_rows(found.v, begin, count, dv);
    if (found.force) store_rows(found.force, begin, count, w);
  });
}

}  // namespace skelops
