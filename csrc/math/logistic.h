// The logistic function of vectors.
#pragma once

#include "common/simd.h"
#include "math/exp.h"

namespace skelops {

inline Simd<float>::Vec logistic(Simd<float>::Vec x) {
  constexpr float kLimit = 87.0f;  // beyond, the exponent leaves the range; comparisons keep NaN
  x = x > kLimit ? Simd<float>::Vec{} + kLimit : x;
  x = x < -kLimit ? Simd<float>::Vec{} - kLimit : x;
  return 1.0f / (1.0f + exp(-x));
}

inline Simd<double>::Vec logistic(Simd<double>::Vec x) { return 1.0 / (1.0 + exp(-x)); }

}  // namespace skelops
