// One small matrix product serves every op: 1x1 transforms, vertex contractions, topology
// refinement, temporal convolutions and all their gradients.
#pragma once

#include <algorithm>

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
void multiply(const Product<T>& p);

extern template void multiply(const Product<float>&);
extern template void multiply(const Product<double>&);

// c (m, n) = row_init + a (m, k) b, where fill(begin, count, column, lanes, panel) writes columns
// [column, column + lanes) of the rows of b from `begin` as rows of two vectors: for a right-hand
// side that is nowhere as a whole and that enough rows of a use. `panel` has kPanelRows rows.
template <typename T, typename F>
void multiply_panels(const Product<T>& p, T* panel, const F& fill) {
  constexpr int64_t kWidth = 2 * Simd<T>::kLanes;
  const int64_t row_blocks = (p.m + kAccumulatorRows - 1) / kAccumulatorRows;
  Product<T> q = p;
  q.b = panel, q.b_row = kWidth;
  // A chunk of a stays in cache while it meets all columns.
  for (int64_t begin = 0; begin < p.k; begin += kPanelRows<T>) {
    q.k = std::min(kPanelRows<T>, p.k - begin);
    q.accumulate = begin > 0;
    for (int64_t column = 0; column < p.n; column += kWidth) {
      const int64_t width = std::min(p.n - column, kWidth);
      fill(begin, q.k, column, width, panel);
      q.n = width;
      // The next chunk comes from further away: its rows are asked for a part with every panel.
      const int64_t next = begin + q.k, left = std::min(kPanelRows<T>, p.k - next);
      const int64_t from = next + column * left / p.n, to = next + (column + width) * left / p.n;
      for (int64_t block = 0; block < row_blocks; ++block) {
        const int64_t row = block * p.m / row_blocks, end = (block + 1) * p.m / row_blocks;
        for (int64_t i = row; i < end && from < to; ++i) {
          prefetch(p.a + i * p.a_row + from * p.a_col, to - from);
        }
        q.m = end - row, q.a = p.a + row * p.a_row + begin * p.a_col;
        q.c = p.c + row * p.c_row + column;
        q.row_init = p.row_init ? p.row_init + row : nullptr;
        multiply(q);
      }
    }
  }
}

}  // namespace skelops
