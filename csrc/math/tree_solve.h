// M = L^T D L on the pattern of a tree: from the leaves up, a joint is eliminated from its
// ancestors. L has entries where M has; row i of both begins at row[i], ancestors ascending.
#pragma once

#include "math/rigid_body.h"

namespace skelops {

// `matrix` (packed) becomes L, with 1 / D on its diagonal.
template <typename S, typename M>
SKELOPS_HOST_DEVICE void factor_tree(const int* parent, const int* row, int size, const M& matrix) {
  for (int k = size - 1; k >= 0; --k) {
    const M from = matrix.from(row[k]);
    int depth = row[k + 1] - row[k] - 1;
    const S inverse = 1.0f / from[depth];
    from[depth] = inverse;
    for (int i = parent[k]; i >= 0; i = parent[i]) {
      const S scaled = from[--depth] * inverse;
      const M to = matrix.from(row[i]);
      for (int j = 0; j <= depth; ++j) to[j] -= scaled * from[j];
      from[depth] = scaled;
    }
  }
}

// x = M^-1 x
template <typename S, typename M>
SKELOPS_HOST_DEVICE void solve_tree(const int* parent, const int* row, int size, const M& factor,
                                    S* x) {
  for (int k = size - 1; k >= 0; --k) {
    int at = row[k + 1] - 1;
    const S value = x[k];
    x[k] = value * factor[at];
    for (int i = parent[k]; i >= 0; i = parent[i]) x[i] -= factor[--at] * value;
  }
  for (int k = 0; k < size; ++k) {
    int at = row[k + 1] - 1;
    S value = x[k];
    for (int i = parent[k]; i >= 0; i = parent[i]) value -= factor[--at] * x[i];
    x[k] = value;
  }
}

// With w = M^-1 grad, the gradient is w for the forces and this for entry (i, j).
template <typename S>
SKELOPS_HOST_DEVICE inline S entry_grad(const S* w, const S* x, int i, int j) {
  return i == j ? -(w[i] * x[i]) : -(w[i] * x[j] + w[j] * x[i]);
}

}  // namespace skelops
