// Standard normal numbers from the words of a Philox tile, by Box and Muller's transform.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/simd.h"
#include "math/log.h"
#include "math/philox.h"

namespace skelops {

inline Simd<float>::Vec square_root(Simd<float>::Vec x) {
  for (int i = 0; i < Simd<float>::kLanes; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

// Cosine and sine of j 2^-24 turns: j is split into the nearest quarter turn and a rest of at most
// an eighth, for which Taylor's series are short (errors 2e-9 and 3e-8).
inline void cos_sin_of_turns(IntVec j, Simd<float>::Vec& cosine, Simd<float>::Vec& sine) {
  using Vec = Simd<float>::Vec;
  constexpr float kTurn = 6.283185307179586f * 5.9604644775390625e-8f;
  const IntVec quarter = (j + (1 << 21)) >> 22;
  const Vec a = __builtin_convertvector(j - (quarter << 22), Vec) * kTurn, a2 = a * a;
  Vec s = a2 * (1.0f / 362880) - (1.0f / 5040);
  s = s * a2 + (1.0f / 120);
  s = s * a2 - (1.0f / 6);
  s = s * a2 * a + a;
  Vec c = a2 * (1.0f / 40320) - (1.0f / 720);
  c = c * a2 + (1.0f / 24);
  c = c * a2 - 0.5f;
  c = c * a2 + 1.0f;
  const IntVec odd = (quarter & 1) != 0;
  const Vec x = odd ? s : c, y = odd ? c : s;
  cosine = ((quarter + 1) & 2) != 0 ? -x : x;
  sine = (quarter & 2) != 0 ? -y : y;
}

// The 64 normal numbers of a tile: words (0, 1) and (2, 3) of a block give a pair each.
inline void normal_tile(const uint32_t (&word)[kTileWords], float* out) {
  using S = Simd<float>;
  constexpr float kLogScale = -16.635532333438686f;  // log(2^-24)
  for (int pair = 0; pair < kTileWords; pair += 2 * kTileBlocks) {
    for (int i = pair; i < pair + kTileBlocks; i += S::kLanes) {
      IntVec u, v;
      for (int l = 0; l < S::kLanes; ++l) {
        u[l] = static_cast<int32_t>(word[i + l] >> 8) + 1;
        v[l] = static_cast<int32_t>(word[i + kTileBlocks + l] >> 8);
      }
      S::Vec log = log_of_integer(u, kLogScale);
      log = log < 0.0f ? log : S::Vec{};
      const S::Vec radius = square_root(log * -2.0f);
      S::Vec cosine, sine;
      cos_sin_of_turns(v, cosine, sine);
      S::store(out + i, radius * cosine);
      S::store(out + i + kTileBlocks, radius * sine);
    }
  }
}

inline void normal_tile(const uint32_t (&word)[kTileWords], double* out) {
  constexpr double kUnit = 5.9604644775390625e-8, kTurn = 6.283185307179586;
  for (int pair = 0; pair < kTileWords; pair += 2 * kTileBlocks) {
    for (int i = pair; i < pair + kTileBlocks; ++i) {
      const double radius = std::sqrt(-2 * std::log(((word[i] >> 8) + 1) * kUnit));
      const double angle = kTurn * kUnit * (word[i + kTileBlocks] >> 8);
      out[i] = radius * std::cos(angle);
      out[i + kTileBlocks] = radius * std::sin(angle);
    }
  }
}

}  // namespace skelops
