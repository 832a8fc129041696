// temporal_mean: one read of x; frames are summed in registers, a vector of joints at a time.
#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/frames.h"

namespace skelops {
namespace {

template <typename T>
Tensor forward(const Tensor& x) {
  using A = Accumulate<T>;
  SKELOPS_CHECK(x.dim() == 4 && x.size(2) > 0, "temporal_mean", "x (N, C, T, V), T >= 1");
  const int64_t channels = x.size(1), frames = x.size(2), joints = x.size(3);
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {x.size(0), channels, joints});
  parallel(x.size(0), [&](int64_t n) {
    const Scratch<A> converted(samples.kInPlace ? 0 : frames * joints);
    const Scratch<A> mean(samples.kInPlace ? 0 : joints);
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t row = frames * joints;
      const A* in = samples.get(n, c * row, row, converted.get());
      T* to = data<T>(out) + (n * channels + c) * joints;
      A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : mean.get();
      mean_of_frames(in, 1, frames, joints, y);
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
