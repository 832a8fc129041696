// tanh over arrays, vectorised in float32: tanh(x) = (e - 1) / (e + 1), e = exp(2 x).
#pragma once

#include <cmath>
#include <cstdint>

#include "common/simd.h"
#include "math/exp.h"

namespace skelops {

inline Simd<float>::Vec tanh(Simd<float>::Vec x) {
  constexpr float kLimit = 9.02f;  // beyond, tanh is 1 in float32; comparisons keep NaN
  x = x > kLimit ? Simd<float>::Vec{} + kLimit : x;
  x = x < -kLimit ? Simd<float>::Vec{} - kLimit : x;
  const Simd<float>::Vec e = exp(x + x);
  return (e - 1.0f) / (e + 1.0f);
}

inline Simd<double>::Vec tanh(Simd<double>::Vec x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = std::tanh(x[i]);
  return x;
}

// out[j] = tanh(sign * (a - b[j])).
inline void tanh_of_difference(float a, const float* b, float sign, float* out, int64_t count) {
  using S = Simd<float>;
  int64_t j = 0;
  for (; j + S::kLanes <= count; j += S::kLanes) {
    S::store(out + j, tanh((a - S::load(b + j)) * sign));
  }
  const int tail = static_cast<int>(count - j);
  if (tail > 0) S::store(out + j, tanh((a - S::load(b + j, tail)) * sign), tail);
}

inline void tanh_of_difference(double a, const double* b, double sign, double* out, int64_t count) {
  for (int64_t j = 0; j < count; ++j) out[j] = std::tanh(sign * (a - b[j]));
}

}  // namespace skelops
