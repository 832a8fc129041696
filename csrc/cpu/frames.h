// Sums over the frames of a channel (T, V).
#pragma once

#include "common/simd.h"
#include "math/moments.h"

namespace skelops {

// The sum of `lanes` joints over all frames, in four chains of additions.
template <typename A>
typename Simd<A>::Vec sum_of_frames(const A* in, int64_t frames, int64_t joints, int lanes) {
  typename Simd<A>::Vec chains[4] = {};
  int64_t t = 0;
  for (; t + 4 <= frames; t += 4) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) chains[j] += load_some(in + (t + j) * joints, lanes);
  }
  for (; t < frames; ++t) chains[0] += load_some(in + t * joints, lanes);
  return (chains[0] + chains[1]) + (chains[2] + chains[3]);
}

// The mean over frames of `channels` channels (T, V): (channels, V).
template <typename A>
void mean_of_frames(const A* in, int64_t channels, int64_t frames, int64_t joints, A* out) {
  using S = Simd<A>;
  const A scale = A(1) / static_cast<A>(frames);
  for (int64_t c = 0; c < channels; ++c, in += frames * joints, out += joints) {
    int64_t v = 0;
    for (; v + S::kLanes <= joints; v += S::kLanes) {
      S::store(out + v, sum_of_frames<A>(in + v, frames, joints, S::kLanes) * scale);
    }
    const int tail = static_cast<int>(joints - v);
    if (tail > 0) S::store(out + v, sum_of_frames<A>(in + v, frames, joints, tail) * scale, tail);
  }
}

}  // namespace skelops
