#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/simd.h"

namespace skelops {

// A tile of `rows` by `columns` elements, at most as many as a vector has lanes; not kPart: as
// many.
template <bool kPart, typename T>
inline void transpose_tile(const T* from, int64_t from_row, T* to, int64_t to_row, int rows,
                           int columns) {
  using S = Simd<T>;
  constexpr int L = S::kLanes;
#if defined(__GNUC__) && !defined(__clang__)
  // In registers: swap blocks of half the size across the diagonal, then halves of these.
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  typedef Index Mask __attribute__((vector_size(kVectorBytes)));
  typename S::Vec tile[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    if constexpr (kPart) {
      tile[i] = i < rows ? S::load(from + i * from_row, columns) : typename S::Vec{};
    } else {
      tile[i] = S::load(from + i * from_row);
    }
  }
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
      const auto a = tile[i], b = tile[i + half];
      tile[i] = __builtin_shuffle(a, b, low);
      tile[i + half] = __builtin_shuffle(a, b, high);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    T* const q = to + i * to_row;
    if constexpr (kPart) {
      if (i < columns) S::store(q, tile[i], rows);
    } else {
      S::store(q, tile[i]);
    }
  }
#else
  for (int i = 0; i < (kPart ? rows : L); ++i) {
    for (int j = 0; j < (kPart ? columns : L); ++j) {
      to[j * to_row + i] = from[i * from_row + j];
    }
  }
#endif
}

// transposed[j][i] = matrix[i][j]; strides of both in elements.
template <typename T>
void transpose(const T* matrix, int64_t rows, int64_t columns, int64_t row_stride, T* transposed,
               int64_t transposed_stride) {
  constexpr int64_t kBlock = Simd<T>::kLanes;
  // Rows of the result are finished while they are in the first-level cache.
  constexpr int64_t kChunk = 8 * kBlock;
  for (int64_t j0 = 0; j0 < columns; j0 += kChunk) {
    const int64_t j1 = std::min(j0 + kChunk, columns);
    for (int64_t i = 0; i < rows; i += kBlock) {
      const int height = static_cast<int>(std::min(kBlock, rows - i));
      for (int64_t j = j0; j < j1; j += kBlock) {
        const int width = static_cast<int>(std::min(kBlock, j1 - j));
        const T* from = matrix + i * row_stride + j;
        T* to = transposed + j * transposed_stride + i;
        if (height == kBlock && width == kBlock) {
          transpose_tile<false>(from, row_stride, to, transposed_stride, height, width);
        } else {
          transpose_tile<true>(from, row_stride, to, transposed_stride, height, width);
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
