// temporal_mean: one read of x; frames are summed in registers, a vector of joints at a time.
#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"

namespace skelops {
namespace {

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
    const Scratch<A> mean(joints);
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t row = frames * joints;
      const A* in = samples.get(n, c * row, row, converted.get());
      for (int64_t v = 0; v < joints; v += S::kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(joints - v, S::kLanes));
        typename S::Vec total = {};
        for (int64_t t = 0; t < frames; ++t) total += S::load(in + t * joints + v, lanes);
        S::store(mean.get() + v, total / static_cast<A>(frames), lanes);
      }
      convert(mean.get(), data<T>(out) + (n * channels + c) * joints, joints);
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
