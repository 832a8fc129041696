// Systems of mass matrices on the pattern of their tree, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"
#include "math/tree_solve.h"

namespace skelops {

template <typename T>
struct SolveBatch {
  using acc = acc_t<T>;
  TreePattern tree;
  long long frames;
  int entries;
  const T *packed, *force;
  acc* scratch;
};

template <typename T>
__global__ void __launch_bounds__(kFrameThreads) tree_solve_kernel(SolveBatch<T> batch, T* x) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tree.size;
  const StagedPattern tree = stage_pattern(batch.tree, shared);
  const RowTile<acc> force{reinterpret_cast<acc*>(shared + batch.tree.pattern_bytes()), n};
  acc* const piece = force.next(kPieceColumns).values;
  const auto factor = thread_memory(batch.scratch, batch.entries);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.force, begin, count, force);
    load_pieces(batch.packed, begin, count, batch.entries, piece,
                [&](int e, const acc& value) { factor[e] = value; });
    if (threadIdx.x < count) {
      factor_tree<acc>(tree.parent, tree.begin, n, factor);
      solve_tree(tree.parent, tree.begin, n, factor, force.row());
    }
    __syncthreads();
    store_rows(x, begin, count, force);
  });
}

// Null: not wanted.
template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    tree_solve_backward_kernel(SolveBatch<T> batch, const T* grad, T* dpacked, T* dforce) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tree.size;
  const StagedPattern tree = stage_pattern(batch.tree, shared);
  const RowTile<acc> x{reinterpret_cast<acc*>(shared + batch.tree.pattern_bytes()), n};
  const RowTile<acc> w = x.next(n);
  acc* const piece = w.next(kPieceColumns).values;
  const auto factor = thread_memory(batch.scratch, batch.entries);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.force, begin, count, x);
    load_rows(grad, begin, count, w);
    load_pieces(batch.packed, begin, count, batch.entries, piece,
                [&](int e, const acc& value) { factor[e] = value; });
    if (threadIdx.x < count) {
      factor_tree<acc>(tree.parent, tree.begin, n, factor);
      solve_tree(tree.parent, tree.begin, n, factor, w.row());
      if (dpacked) {
        solve_tree(tree.parent, tree.begin, n, factor, x.row());
        for (int i = 0; i < n; ++i) {
          int at = tree.begin[i + 1] - 1;
          for (int j = i; j >= 0; j = tree.parent[j], --at) {
            factor[at] = entry_grad(w.row(), x.row(), i, j);
          }
        }
      }
    }
    if (dpacked) {
      store_pieces(dpacked, begin, count, batch.entries, piece, [&](int e) { return factor[e]; });
    }
    __syncthreads();
    if (dforce) store_rows(dforce, begin, count, w);
  });
}

}  // namespace skelops
