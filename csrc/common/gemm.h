// One small matrix product serves every op: 1x1 transforms, vertex contractions, topology
// refinement, temporal convolutions and all their gradients.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "common/simd.h"

namespace skelops {

// c[g][m][n] (+)= sum over parts s and k of a[g][s][m][k] * b[s][k][n], b and c dense along n.
// Strides are in elements; nothing beyond the named elements is read or written. Groups share b:
// a panel of b is used by all of them while it is in the first-level cache. Vectors of columns may
// lie apart, as those of the frames of a clip do.
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

namespace detail {

// M rows by NV vectors of c in registers, from a row and a vector on; `tail` lanes of the last one.
template <typename T, int M, int NV, bool kTail>
void tile(const Product<T>& p, int64_t row, int64_t vector, int tail) {
  using S = Simd<T>;
  typename S::Vec acc[M][NV];
  const int64_t c_row = p.c_row, c_vector = p.c_vector;
  T* const c = p.c + row * c_row + vector * c_vector;
  const auto load = [tail](const T* q, int j) {
    return kTail && j == NV - 1 ? S::load(q, tail) : S::load(q);
  };
  if (p.accumulate || p.init) {
    const int64_t init_row = p.accumulate ? c_row : p.init_row;
    const int64_t init_vector = p.accumulate ? c_vector : p.init_vector;
    const T* const init = p.accumulate ? c : p.init + row * init_row + vector * init_vector;
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) acc[m][j] = load(init + m * init_row + j * init_vector, j);
    }
  } else {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) {
        acc[m][j] = p.row_init ? typename S::Vec{} + p.row_init[row + m] : typename S::Vec{};
      }
    }
  }
  const int64_t row1 = p.a_row, row3 = 3 * row1, a_col = p.a_col, depth = p.k, parts = p.parts;
  const int64_t b_row = p.b_row, b_vector = p.b_vector, a_part = p.a_part, b_part = p.b_part;
  const T* const first_a = p.a + row * row1;
  const T* const first_b = p.b + vector * b_vector;
  for (int64_t s = 0; s < parts; ++s) {
    const T* b = first_b + s * b_part;
    const T* a[(M + 3) / 4];
#pragma GCC unroll 4
    for (int q = 0; q < (M + 3) / 4; ++q) a[q] = first_a + s * a_part + 4 * q * row1;
    for (int64_t k = 0; k < depth; ++k, b += b_row) {
      typename S::Vec bv[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) bv[j] = load(b + j * b_vector, j);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const int r = m % 4;
        const T scalar = a[m / 4][r == 0 ? 0 : r == 1 ? row1 : r == 2 ? 2 * row1 : row3];
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) acc[m][j] += bv[j] * scalar;
      }
#pragma GCC unroll 4
      for (int q = 0; q < (M + 3) / 4; ++q) a[q] += a_col;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) {
      T* const q = c + m * c_row + j * c_vector;
      if (kTail && j == NV - 1) {
        S::store(q, acc[m][j], tail);
      } else {
        S::store(q, acc[m][j]);
      }
    }
  }
}

template <typename T>
using Tile = void (*)(const Product<T>&, int64_t, int64_t, int);

template <typename T, int NV, bool kTail, int... M>
constexpr std::array<Tile<T>, sizeof...(M)> tiles(std::integer_sequence<int, M...>) {
  return {{&tile<T, M + 1, NV, kTail>...}};
}

template <typename T, int NV, bool kTail>
constexpr auto kTiles = tiles<T, NV, kTail>(std::make_integer_sequence<int, kAccumulatorRows>{});

}  // namespace detail

// The rows of k that a panel of two vectors keeps in 32 KB.
template <typename T>
constexpr int64_t kPanelRows = 32 * 1024 / (2 * kVectorBytes);

template <typename T>
void multiply(Product<T> p) {
  constexpr int64_t kLanes = Simd<T>::kLanes;
  if (p.m == 0 || p.n == 0) return;
  const int64_t row_blocks = (p.m + kAccumulatorRows - 1) / kAccumulatorRows;
  const bool cut = p.parts == 1 && p.k > kPanelRows<T>;
  const int64_t depth = p.k, chunk = cut ? kPanelRows<T> : std::max<int64_t>(depth, 1);
  const T *a = p.a, *b = p.b;
  T* c = p.c;
  for (int64_t column = 0; column < p.n; column += 2 * kLanes) {
    const int64_t width = std::min(p.n - column, 2 * kLanes);
    const bool wide = width > kLanes;
    const int tail = static_cast<int>(width % kLanes);
    const auto& table = wide ? (tail ? detail::kTiles<T, 2, true> : detail::kTiles<T, 2, false>)
                             : (tail ? detail::kTiles<T, 1, true> : detail::kTiles<T, 1, false>);
    Product<T> q = p;
    for (int64_t begin = 0; begin == 0 || begin < depth; begin += chunk) {
      q.k = std::min(chunk, depth - begin);
      q.b = b + begin * p.b_row;
      q.accumulate = p.accumulate || begin > 0;
      for (int64_t group = 0; group < p.groups; ++group) {
        q.a = a + group * p.a_group + begin * p.a_col;
        q.c = c + group * p.c_group;
        q.row_init = p.row_init ? p.row_init + group * p.row_init_group : nullptr;
        for (int64_t block = 0; block < row_blocks; ++block) {
          const int64_t row = block * p.m / row_blocks, end = (block + 1) * p.m / row_blocks;
          table[end - row - 1](q, row, column / kLanes, tail);
        }
      }
    }
  }
}

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
    q.a = p.a + begin * p.a_col;
    q.accumulate = begin > 0;
    for (int64_t column = 0; column < p.n; column += kWidth) {
      const int64_t width = std::min(p.n - column, kWidth);
      const int tail = static_cast<int>(width % Simd<T>::kLanes);
      const auto& table = width > Simd<T>::kLanes
                              ? (tail ? detail::kTiles<T, 2, true> : detail::kTiles<T, 2, false>)
                              : (tail ? detail::kTiles<T, 1, true> : detail::kTiles<T, 1, false>);
      fill(begin, q.k, column, width, panel);
      q.c = p.c + column;
      // The next chunk comes from further away: its rows are asked for a part with every panel.
      const int64_t next = begin + q.k, left = std::min(kPanelRows<T>, p.k - next);
      const int64_t from = next + column * left / p.n, to = next + (column + width) * left / p.n;
      for (int64_t block = 0; block < row_blocks; ++block) {
        const int64_t row = block * p.m / row_blocks, end = (block + 1) * p.m / row_blocks;
        for (int64_t i = row; i < end && from < to; ++i) {
          prefetch(p.a + i * p.a_row + from * p.a_col, to - from);
        }
        table[end - row - 1](q, row, 0, tail);
      }
    }
  }
}

}  // namespace skelops
