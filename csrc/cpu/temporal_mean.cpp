// temporal_mean: one read of x; frames are summed in registers, a vector of joints at a time.
#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"
#include "math/moments.h"

namespace skelops {
namespace {

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

template <typename T>
Tensor forward(const Tensor& x) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  SKELOPS_CHECK(x.dim() == 4 && x.size(2) > 0, "temporal_mean", "x (N, C, T, V), T >= 1");
  const int64_t channels = x.size(1), frames = x.size(2), joints = x.size(3);
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {x.size(0), channels, joints});
  parallel(x.size(0), [&](int64_t n) {
    const Scratch<A> converted(samples.kInPlace ? 0 : frames * joints);
    const Scratch<A> mean(samples.kInPlace ? 0 : joints);
    const A scale = A(1) / static_cast<A>(frames);
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t row = frames * joints;
      const A* in = samples.get(n, c * row, row, converted.get());
      T* to = data<T>(out) + (n * channels + c) * joints;
      A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : mean.get();
      int64_t v = 0;
      for (; v + S::kLanes <= joints; v += S::kLanes) {
        S::store(y + v, sum_of_frames<A>(in + v, frames, joints, S::kLanes) * scale);
      }
      const int tail = static_cast<int>(joints - v);
      if (tail > 0) S::store(y + v, sum_of_frames<A>(in + v, frames, joints, tail) * scale, tail);
      if (!samples.kInPlace) convert(y, to, joints);
    }
  });
  return out;
}

Tensor temporal_mean(Tensor x) {
  return dispatch(x, "temporal_mean", [&](auto type) { return forward<decltype(type)>(x); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("temporal_mean", TORCH_BOX(&temporal_mean)); }

}  // namespace skelops
