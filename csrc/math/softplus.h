// log(1 + exp(x)) of vectors.
#pragma once

#include <cmath>

#include "common/simd.h"
#include "math/exp.h"

namespace skelops {

// max(x, 0) + log(1 + e) with e = exp(-|x|) <= 1, by the series of 2 artanh(e / (2 + e)) (relative
// error 2e-8): nothing cancels however small e is.
inline Simd<float>::Vec softplus(Simd<float>::Vec x) {
  using Vec = Simd<float>::Vec;
  constexpr float kLimit = 87.0f;  // beyond, the exponent leaves the range; comparisons keep NaN
  Vec below = x < 0 ? x : -x;
  below = below < -kLimit ? Vec{} - kLimit : below;
  const Vec e = exp(below), s = e / (2.0f + e), s2 = s * s;
  Vec series = s2 * (2.0f / 13) + (2.0f / 11);
  series = series * s2 + (2.0f / 9);
  series = series * s2 + (2.0f / 7);
  series = series * s2 + (2.0f / 5);
  series = series * s2 + (2.0f / 3);
  series = series * s2 + 2.0f;
  return (x > 0 ? x : Vec{}) + series * s;
}

// As PyTorch, which takes x itself beyond 20.
inline Simd<double>::Vec softplus(Simd<double>::Vec x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) {
    x[i] = x[i] > 20 ? x[i] : std::log1p(std::exp(x[i]));
  }
  return x;
}

}  // namespace skelops
