// Parts of a softmax down the columns of a matrix, a vector of columns at a time.
#pragma once

#include "common/simd.h"
#include "math/exp2.h"

namespace skelops {

template <typename Vec>
Vec larger(Vec a, Vec b) {
  return a > b ? a : b;
}

// The largest of `least` and the values of the columns, whose rows are `pitch` apart.
template <typename A>
typename Simd<A>::Vec column_maximum(const A* columns, int64_t rows, int64_t pitch,
                                     typename Simd<A>::Vec least) {
  const auto at = [=](int64_t i) { return Simd<A>::load(columns + i * pitch); };
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    least = larger(least, larger(larger(at(i), at(i + 1)), larger(at(i + 2), at(i + 3))));
  }
  for (; i < rows; ++i) least = larger(least, at(i));
  return least;
}

// Values become 2^(factor value - shift) -> their sum.
template <typename A>
typename Simd<A>::Vec column_exponentials(A* columns, int64_t rows, int64_t pitch,
                                          typename Simd<A>::Vec factor,
                                          typename Simd<A>::Vec shift) {
  using S = Simd<A>;
  typename S::Vec sum = {};
  for (A* value = columns; value < columns + rows * pitch; value += pitch) {
    const auto e = exp2_nonpositive(S::load(value) * factor - shift);
    S::store(value, e);
    sum += e;
  }
  return sum;
}

}  // namespace skelops
