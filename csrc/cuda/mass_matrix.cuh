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
  // In shared memory: the tree, then the pattern of the packed form.
  __host__ __device__ int bytes() const { return tables.bytes() + tables.pattern_bytes(); }
};

// The dense form is zero where no entry is written.
template <typename T>
__global__ void __launch_bounds__(kFrameThreads) mass_matrix_kernel(MassBatch<T> batch, T* M) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const StagedPattern pattern = stage_pattern(batch.tables, shared + batch.tables.bytes());
  const RowTile<acc> q{reinterpret_cast<acc*>(shared + batch.bytes()), n};
  const auto memory = thread_memory(batch.scratch, composite::kSlots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, q);
    __syncthreads();
    if (threadIdx.x >= count) return;
    T* const to = M + (begin + threadIdx.x) * batch.values();
    mass_matrix(tree, pattern.begin, q.row(), memory, [&](int at, int i, int j, const acc& value) {
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
  const StagedPattern pattern = stage_pattern(batch.tables, shared + batch.tables.bytes());
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
      mass_matrix_backward(tree, pattern.begin, weight, q.row(), memory, q.row(),
                           partial ? &dinertia : nullptr);
    }
    __syncthreads();
    if (dq) store_rows(dq, begin, count, q);
  });
}

}  // namespace skelops
