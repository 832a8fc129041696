// exp of vectors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/simd.h"

namespace skelops {

// exp by 2^n times the Taylor series of degree 7 on |r| <= log(2) / 2 (relative error 5e-9).
inline Simd<float>::Vec exp(Simd<float>::Vec x) {
  using Vec = Simd<float>::Vec;
  typedef int32_t Int __attribute__((vector_size(kVectorBytes)));
  constexpr float kInvLog2 = 1.4426950408889634f;
  constexpr float kLog2High = 0.693359375f, kLog2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x * kInvLog2 + kRound;
  const Vec n = shifted - kRound;
  const Vec r = (x - n * kLog2High) - n * kLog2Low;
  Vec e = r * (1.0f / 5040) + (1.0f / 720);
  e = e * r + (1.0f / 120);
  e = e * r + (1.0f / 24);
  e = e * r + (1.0f / 6);
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  // The low bits of `shifted` hold n; adding them to the exponent scales by 2^n.
  Int bits, count;
  std::memcpy(&bits, &e, sizeof(e));
  std::memcpy(&count, &shifted, sizeof(shifted));
  bits += count << 23;
  std::memcpy(&e, &bits, sizeof(e));
  return e;
}

inline Simd<double>::Vec exp(Simd<double>::Vec x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = std::exp(x[i]);
  return x;
}

}  // namespace skelops
