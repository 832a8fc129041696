// Mass matrix, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"
#include "math/mass_matrix.h"

namespace skelops {

template <typename T>
struct MassBatch {
  using acc = acc_t<T>;
  TreeTables<acc> tables;
  long long frames;
  const T* q;
  bool packed;
  int entries;  // of the packed form
  acc* scratch;

  __host__ __device__ long long values() const {
    return packed ? entries : static_cast<long long>(tables.size) * tables.size;
  }
  // In shared memory: the tree, then where the rows of the packed form begin.
  __host__ __device__ int bytes() const {
    return quad_bytes(tables.bytes() + (tables.size + 1) * sizeof(int));
  }
};

// The number of entries; `begin` (n + 1) receives where those of each row begin, if given.
template <typename A>
__host__ __device__ int packed_rows(const TreeTables<A>& tables, int* begin) {
  int entries = 0;
  for (int i = 0; i < tables.size; ++i) {
    if (begin) begin[i] = entries;
    for (int j = i; j >= 0; j = tables.parent[j]) ++entries;
  }
  if (begin) begin[tables.size] = entries;
  return entries;
}

template <typename T>
__device__ const int* stage_pattern(const MassBatch<T>& batch, unsigned char* shared) {
  int* const begin = reinterpret_cast<int*>(shared + batch.tables.bytes());
  if (threadIdx.x == 0) packed_rows(batch.tables, begin);
  return begin;
}

// The dense form is zero where no entry is written.
template <typename T>
__global__ void __launch_bounds__(kFrameThreads) mass_matrix_kernel(MassBatch<T> batch, T* M) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const int* const begins = stage_pattern(batch, shared);
  const RowTile<acc> q{reinterpret_cast<acc*>(shared + batch.bytes()), n};
  const auto memory = thread_memory(batch.scratch, composite::kSlots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, q);
    __syncthreads();
    if (threadIdx.x >= count) return;
    T* const to = M + (begin + threadIdx.x) * batch.values();
    mass_matrix(tree, begins, q.row(), memory, [&](int at, int i, int j, const acc& value) {
      if (batch.packed) {
        to[at] = static_cast<T>(value);
      } else {
        to[i * n + j] = to[j * n + i] = static_cast<T>(value);
      }
    });
  });
}

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    mass_matrix_backward_kernel(MassBatch<T> batch, const T* grad, T* dq, acc_t<T>* partial) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const int* const begins = stage_pattern(batch, shared);
  const RowTile<acc> q{reinterpret_cast<acc*>(shared + batch.bytes()), n};
  const auto memory = thread_memory(batch.scratch, composite::kBackwardSlots * n);
  const auto dinertia = gradient_share(partial, kInertiaSize * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, q);
    __syncthreads();
    if (threadIdx.x < count) {
      const T* const from = grad + (begin + threadIdx.x) * batch.values();
      const auto weight = [&](int at, int i, int j) {
        if (batch.packed) return static_cast<acc>(from[at]);
        const acc below = static_cast<acc>(from[i * n + j]);
        return i == j ? below : below + static_cast<acc>(from[j * n + i]);
      };
      mass_matrix_backward(tree, begins, weight, q.row(), memory, q.row(),
                           partial ? &dinertia : nullptr);
    }
    __syncthreads();
    if (dq) store_rows(dq, begin, count, q);
  });
}

}  // namespace skelops
