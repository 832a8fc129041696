// 2^x for x <= 0, as the exponentials of a softmax are: a vector at a time in float32.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/simd.h"

namespace skelops {

// 2^n times a polynomial of 2^r, |r| <= 1/2 (relative error 2e-9); 0 below the normal numbers.
inline Simd<float>::Vec exp2_nonpositive(Simd<float>::Vec x) {
  using Vec = Simd<float>::Vec;
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLowest = -126.0f;
  const Vec shifted = x + kRound;
  const Vec r = x - (shifted - kRound);
  Vec e = r * 0.000153458084f + 0.00133999312f;
  e = e * r + 0.00961848897f;
  e = e * r + 0.0555032878f;
  e = e * r + 0.240226469f;
  e = e * r + 0.693147206f;
  e = e * r + 1.0f;
  // The low bits of `shifted` hold n; adding them to the exponent scales by 2^n.
  Int bits, count;
  std::memcpy(&bits, &e, sizeof(e));
  std::memcpy(&count, &shifted, sizeof(shifted));
  bits += count << 23;
  std::memcpy(&e, &bits, sizeof(e));
  return x < kLowest ? Vec{} : e;
}

inline Simd<double>::Vec exp2_nonpositive(Simd<double>::Vec x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = std::exp2(x[i]);
  return x;
}

}  // namespace skelops
