// GELU by the error function, and its slope.
#pragma once

#include <cmath>

#include "math/exp2.h"

namespace skelops {

// Distribution and density of the standard normal.
template <typename A>
struct Normal {
  typename Simd<A>::Vec below, density;
};

// Abramowitz and Stegun 7.1.26, absolute error 8e-8.
inline Normal<float> normal(Simd<float>::Vec z) {
  using Vec = Simd<float>::Vec;
  const Vec size = z < 0 ? -z : z;
  const Vec e = exp2_nonpositive(-0.72134752f * z * z);
  const Vec t = 1.0f / (1.0f + 0.231641888f * size);
  Vec tail = t * 0.530702715f - 0.726576013f;
  tail = tail * t + 0.710706871f;
  tail = tail * t - 0.142248368f;
  tail = (tail * t + 0.127414796f) * t * e;
  return {z < 0 ? tail : 1.0f - tail, 0.398942280f * e};
}

inline Normal<double> normal(Simd<double>::Vec z) {
  Normal<double> found;
  for (int i = 0; i < Simd<double>::kLanes; ++i) {
    found.below[i] = 0.5 * std::erfc(-z[i] * std::sqrt(0.5));
    found.density[i] = 0.3989422804014327 * std::exp(-0.5 * z[i] * z[i]);
  }
  return found;
}

}  // namespace skelops
