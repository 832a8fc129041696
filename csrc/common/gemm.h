// One small matrix product serves every op: 1x1 transforms, vertex contractions, topology
// refinement, temporal convolutions and all their gradients.
#pragma once

#include "common/simd.h"

namespace skelops {

// c[g][m][n] (+)= sum over parts s and k of a[g][s][m][k] * b[s][k][n], b and c dense along n, a
// along m or k: one of a_row and a_col is 1. Strides are in elements; nothing beyond the named
// elements is read or written. Groups share b: a panel of b is used by all of them while it is in
// the first-level cache. Vectors of columns may lie apart, as those of the frames of a clip do.
template <typename T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_col;
  const T* b;
  int64_t b_row;
  T* c;
  int64_t c_row;
  bool accumulate = false;
  const T* init = nullptr;  // added to the sum: rows dense along n; instead of accumulate
  int64_t init_row = 0;
  const T* row_init = nullptr;  // one value per row; instead of accumulate and init
  int64_t parts = 1, a_part = 0, b_part = 0;
  int64_t groups = 1, a_group = 0, c_group = 0, row_init_group = 0;
  int64_t b_vector = Simd<T>::kLanes, c_vector = Simd<T>::kLanes, init_vector = Simd<T>::kLanes;
};

// The rows of k that a panel of two vectors keeps in 32 KB.
template <typename T>
constexpr int64_t kPanelRows = 32 * 1024 / (2 * kVectorBytes);

template <typename T>
void multiply(Product<T> p);

extern template void multiply(Product<float>);
extern template void multiply(Product<double>);

}  // namespace skelops
