#pragma once

#include <algorithm>
#include <cstdint>

namespace skelops {

// transposed[j][i] = matrix[i][j].
template <typename A>
void transpose(const A* matrix, int64_t rows, int64_t columns, A* transposed) {
  constexpr int64_t kBlock = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const int64_t i1 = std::min(i0 + kBlock, rows);
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = i0; i < i1; ++i) transposed[j * rows + i] = matrix[i * columns + j];
    }
  }
}

}  // namespace skelops
