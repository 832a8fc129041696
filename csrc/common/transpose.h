#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/simd.h"

namespace skelops {

#if defined(__GNUC__) && !defined(__clang__)
// A square tile of registers: swap blocks of half the size across the diagonal, then halves of
// these.
template <typename T>
inline void transpose_tile(const T* from, int64_t from_row, T* to, int64_t to_row) {
  using S = Simd<T>;
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Index Mask __attribute__((vector_size(kVectorBytes)));
  constexpr int L = S::kLanes;
  typename S::Vec rows[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) rows[i] = S::load(from + i * from_row);
#pragma GCC unroll 4
  for (int half = L / 2; half > 0; half /= 2) {
    Mask low = {}, high = {};
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) {
      low[j] = j & half ? j - half + L : j;
      high[j] = j & half ? j + L : j + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & half) continue;
      const auto a = rows[i], b = rows[i + half];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + half] = __builtin_shuffle(a, b, high);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) S::store(to + i * to_row, rows[i]);
}
#else
template <typename T>
inline void transpose_tile(const T* from, int64_t from_row, T* to, int64_t to_row) {
  for (int i = 0; i < Simd<T>::kLanes; ++i) {
    for (int j = 0; j < Simd<T>::kLanes; ++j) to[j * to_row + i] = from[i * from_row + j];
  }
}
#endif

// transposed[j][i] = matrix[i][j]; strides of both in elements.
template <typename T>
void transpose(const T* matrix, int64_t rows, int64_t columns, int64_t row_stride, T* transposed,
               int64_t transposed_stride) {
  constexpr int64_t kBlock = Simd<T>::kLanes;
  // Rows of the result are finished while they are in the first-level cache.
  constexpr int64_t kChunk = 8 * kBlock;
  for (int64_t j0 = 0; j0 < columns; j0 += kChunk) {
    const int64_t j1 = std::min(j0 + kChunk, columns);
    for (int64_t i0 = 0; i0 < rows; i0 += kBlock) {
      const int64_t i1 = std::min(i0 + kBlock, rows);
      int64_t j = j0;
      for (; i1 - i0 == kBlock && j + kBlock <= j1; j += kBlock) {
        transpose_tile(matrix + i0 * row_stride + j, row_stride,
                       transposed + j * transposed_stride + i0, transposed_stride);
      }
      for (; j < j1; ++j) {
        for (int64_t i = i0; i < i1; ++i) {
          transposed[j * transposed_stride + i] = matrix[i * row_stride + j];
        }
      }
    }
  }
}

template <typename T>
void transpose(const T* matrix, int64_t rows, int64_t columns, T* transposed) {
  transpose(matrix, rows, columns, columns, transposed, rows);
}

}  // namespace skelops
