// Forces of a learned mass matrix M = L L^T and a learned skew part, a block per frame.
//
// L of the frame, L of the one before and the skew part are staged in the same memory one after the
// other, as their packed rows; a thread sums a row or a column of them. No matrix is formed.
#pragma once

#include "common/device.cuh"
#include "math/lagrange_tau.h"

namespace skelops {

constexpr int kLagrangeThreads = 128;
constexpr int kLagrangeVectors = 11;  // in shared memory, of d values

__host__ __device__ constexpr int triangle(int rows) { return rows * (rows + 1) / 2; }

__host__ __device__ constexpr int lagrange_values(int d) {
  return triangle(d) + kLagrangeVectors * d;
}

// The row of an entry of a lower triangle.
__device__ inline int triangle_row(int entry) {
  int i = static_cast<int>((sqrtf(8.0f * entry + 1.0f) - 1.0f) / 2.0f);
  while (triangle(i) > entry) --i;
  while (triangle(i + 1) <= entry) ++i;
  return i;
}

template <typename T>
struct LagrangeBatch {
  long long frames;  // of all clips
  int clip_frames, d;
  const T *lower, *skew, *qd, *qdd;

  __device__ bool first(long long frame) const { return frame % clip_frames == 0; }
  __device__ bool last(long long frame) const { return (frame + 1) % clip_frames == 0; }
};

// function(i) for i < count, by the threads of the block.
template <typename F>
__device__ void in_parallel(int count, const F& function) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) function(i);
}

// Packed rows in shared memory, and sums over them that a thread does alone.
template <typename A>
struct PackedRows {
  A* values;
  int d;

  // L, its diagonal in place. All threads have to be here.
  template <typename T>
  __device__ void stage_factor(const T* packed) const {
    __syncthreads();
    in_parallel(triangle(d), [&](int e) { values[e] = static_cast<A>(packed[e]); });
    __syncthreads();
    in_parallel(d, [&](int i) {
      A& diagonal = values[triangle(i) + i];
      diagonal = softplus(diagonal) + A(kSoftplusShift);
    });
    __syncthreads();
  }
  template <typename T>
  __device__ void stage_skew(const T* packed) const {
    __syncthreads();
    in_parallel(triangle(d - 1), [&](int e) { values[e] = static_cast<A>(packed[e]); });
    __syncthreads();
  }

  // (L^T x)_j
  __device__ A column(int j, const A* x) const {
    A sum = 0;
    for (int i = j; i < d; ++i) sum += values[triangle(i) + j] * x[i];
    return sum;
  }
  // (L x)_i
  __device__ A row(int i, const A* x) const {
    A sum = 0;
    for (int j = 0; j <= i; ++j) sum += values[triangle(i) + j] * x[j];
    return sum;
  }
  // ((U - U^T) x)_i of the rows above the diagonal.
  __device__ A skew_row(int i, const A* x) const {
    A sum = 0;
    for (int j = 0; j < i; ++j) sum -= values[above(j, i)] * x[j];
    for (int j = i + 1; j < d; ++j) sum += values[above(i, j)] * x[j];
    return sum;
  }

 private:
  __device__ int above(int i, int j) const { return i * (2 * d - i - 1) / 2 + j - i - 1; }
};

template <typename T>
__global__ void __launch_bounds__(kLagrangeThreads)
    lagrange_tau_kernel(LagrangeBatch<T> batch, T* tau, T* kinetic) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int d = batch.d, entries = triangle(d);
  const PackedRows<acc> rows{reinterpret_cast<acc*>(shared), d};
  acc *const v = rows.values + entries, *const a = v + d, *const u = a + d, *const w = u + d;
  acc* const y = w + d;
  for (long long frame = blockIdx.x; frame < batch.frames; frame += gridDim.x) {
    in_parallel(d, [&](int j) {
      v[j] = static_cast<acc>(batch.qd[frame * d + j]);
      a[j] = static_cast<acc>(batch.qdd[frame * d + j]);
    });
    rows.stage_factor(batch.lower + frame * entries);
    in_parallel(d, [&](int j) {
      u[j] = rows.column(j, v);
      w[j] = rows.column(j, a) + acc(0.5) * u[j];
    });
    __syncthreads();
    in_parallel(d, [&](int i) { y[i] = rows.row(i, w); });
    if (threadIdx.x == 0) {
      acc sum = 0;
      for (int j = 0; j < d; ++j) sum += u[j] * u[j];
      kinetic[frame] = static_cast<T>(acc(0.5) * sum);
    }
    if (!batch.first(frame)) {
      rows.stage_factor(batch.lower + (frame - 1) * entries);
      in_parallel(d, [&](int j) { u[j] = rows.column(j, v); });
      __syncthreads();
      in_parallel(d, [&](int i) { y[i] -= acc(0.5) * rows.row(i, u); });
    }
    rows.stage_skew(batch.skew + frame * (entries - d));
    in_parallel(d, [&](int i) {
      tau[frame * d + i] = static_cast<T>(y[i] - acc(0.5) * rows.skew_row(i, v));
    });
    __syncthreads();
  }
}

// Null: not wanted.
template <typename T>
struct LagrangeGrads {
  T *lower, *skew, *qd, *qdd;
};

template <typename T>
__global__ void __launch_bounds__(kLagrangeThreads)
    lagrange_tau_backward_kernel(LagrangeBatch<T> batch, const T* grad_tau, const T* grad_kinetic,
                                 LagrangeGrads<T> found) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int d = batch.d, entries = triangle(d);
  const PackedRows<acc> rows{reinterpret_cast<acc*>(shared), d};
  // Of this frame and the next: velocity, gradient; then products with L^T.
  acc *const v = rows.values + entries, *const g = v + d, *const x = g + d;
  acc *const v_next = x + d, *const g_next = v_next + d, *const Lg = g_next + d;
  acc *const Lx = Lg + d, *const Lv = Lx + d, *const Lg_next = Lv + d, *const Lv_next = Lg_next + d;
  acc* const sum = Lv_next + d;
  for (long long frame = blockIdx.x; frame < batch.frames; frame += gridDim.x) {
    const bool last = batch.last(frame);
    const long long at = frame * d;
    const acc energy = static_cast<acc>(grad_kinetic[frame]);
    in_parallel(d, [&](int j) {
      v[j] = static_cast<acc>(batch.qd[at + j]), g[j] = static_cast<acc>(grad_tau[at + j]);
      x[j] = static_cast<acc>(batch.qdd[at + j]) + acc(0.5) * v[j];
      v_next[j] = last ? acc(0) : static_cast<acc>(batch.qd[at + d + j]);
      g_next[j] = last ? acc(0) : static_cast<acc>(grad_tau[at + d + j]);
    });
    rows.stage_factor(batch.lower + frame * entries);
    in_parallel(d, [&](int j) {
      Lg[j] = rows.column(j, g), Lx[j] = rows.column(j, x), Lv[j] = rows.column(j, v);
      Lg_next[j] = rows.column(j, g_next), Lv_next[j] = rows.column(j, v_next);
    });
    __syncthreads();
    if (found.lower) {
      const long long begin = frame * entries;
      in_parallel(entries, [&](int e) {
        const int i = triangle_row(e), j = e - triangle(i);
        const acc value = g[i] * Lx[j] + x[i] * Lg[j] + energy * v[i] * Lv[j] -
                          acc(0.5) * (g_next[i] * Lv_next[j] + v_next[i] * Lg_next[j]);
        const acc slope =
            i == j ? softplus_slope(static_cast<acc>(batch.lower[begin + e])) : acc(1);
        found.lower[begin + e] = static_cast<T>(value * slope);
      });
    }
    if (found.qdd) {
      in_parallel(d, [&](int i) { found.qdd[at + i] = static_cast<T>(rows.row(i, Lg)); });
    }
    if (found.skew) {
      T* const to = found.skew + frame * (entries - d);
      const int size = entries - d;
      in_parallel(size, [&](int e) {
        // From its end, the triangle above the diagonal has rows of 1, 2, ... entries.
        const int back = size - 1 - e, row = triangle_row(back);
        const int i = d - 2 - row, j = d - 1 - (back - triangle(row));
        to[e] = static_cast<T>(acc(-0.5) * (g[i] * v[j] - g[j] * v[i]));
      });
    }
    if (found.qd) {
      __syncthreads();
      in_parallel(d, [&](int j) { x[j] = acc(0.5) * Lg[j] + energy * Lv[j]; });
      __syncthreads();
      in_parallel(d, [&](int i) { sum[i] = rows.row(i, x); });
      if (!batch.first(frame)) {
        rows.stage_factor(batch.lower + (frame - 1) * entries);
        in_parallel(d, [&](int j) { Lx[j] = rows.column(j, g); });
        __syncthreads();
        in_parallel(d, [&](int i) { sum[i] -= acc(0.5) * rows.row(i, Lx); });
      }
      rows.stage_skew(batch.skew + frame * (entries - d));
      in_parallel(d, [&](int i) {
        found.qd[at + i] = static_cast<T>(sum[i] + acc(0.5) * rows.skew_row(i, g));
      });
    }
    __syncthreads();
  }
}

}  // namespace skelops
