// Logarithm of vectors of float32.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/simd.h"

namespace skelops {

typedef int32_t IntVec __attribute__((vector_size(kVectorBytes)));

// log(x) + shift of positive normal numbers: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and log(m)
// by the series of 2 artanh((m - 1) / (m + 1)) (error 2e-9).
inline Simd<float>::Vec log_of(Simd<float>::Vec x, float shift = 0) {
  using Vec = Simd<float>::Vec;
  constexpr float kLog2 = 0.6931471805599453f;
  constexpr int kSqrtHalf = 0x3F3504F3;
  IntVec bits;
  std::memcpy(&bits, &x, sizeof(x));
  const IntVec e = (bits - kSqrtHalf) >> 23;
  bits -= e << 23;
  Vec m;
  std::memcpy(&m, &bits, sizeof(m));
  const Vec s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  Vec series = s2 * (2.0f / 9) + (2.0f / 7);
  series = series * s2 + (2.0f / 5);
  series = series * s2 + (2.0f / 3);
  series = series * s2 + 2.0f;
  return __builtin_convertvector(e, Vec) * kLog2 + (series * s + shift);
}

// log(n) + shift for integers n in [1, 2^24].
inline Simd<float>::Vec log_of_integer(IntVec n, float shift) {
  return log_of(__builtin_convertvector(n, Simd<float>::Vec), shift);
}

}  // namespace skelops
