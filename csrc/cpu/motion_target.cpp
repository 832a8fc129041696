// motion_target: one read of x, one write of the tokens.
#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/motion_tokens.h"

namespace skelops {
namespace {

TokenSizes sizes_of(const Tensor& x, int64_t segment, int64_t stride, bool normalise) {
  SKELOPS_CHECK(x.dim() == 4, "motion_target", "x (N, T, V, C)");
  return token_sizes("motion_target", x.size(1), x.size(2), x.size(3), segment, stride, normalise);
}

Tensor motion_target(Tensor x, int64_t segment, int64_t stride, bool normalise) {
  const TokenSizes s = sizes_of(x, segment, stride, normalise);
  return dispatch(x, "motion_target", [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Samples<T> clips(x);
    Tensor out = new_tensor<T>(x, {x.size(0), s.tokens(), s.values()});
    const int64_t block = s.joints * s.values();
    parallel(x.size(0), [&](int64_t n) {
      const Scratch<A> scratch(clips.scratch());
      const A* clip = clips.get(n, scratch.get());
      T* to = data<T>(out) + n * s.clip();
      MotionTokens<A> tokens(s);
      for (int64_t t = 0; t < s.segments(); ++t) convert(tokens(clip, t), to + t * block, block);
    });
    return out;
  });
}

Tensor motion_target_backward(Tensor grad, Tensor x, int64_t segment, int64_t stride,
                              bool normalise, int64_t needs) {
  const TokenSizes s = sizes_of(x, segment, stride, normalise);
  SKELOPS_CHECK(grad.numel() == x.numel(), "motion_target_backward", "grad (N, L, u C)");
  if (!wants(needs, 0)) return no_gradient(x);
  return dispatch(x, "motion_target_backward", [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Samples<T> clips(x), grads(grad);
    Tensor out = new_tensor<T>(x, {x.size(0), s.frames, s.joints, s.channels});
    const int64_t block = s.joints * s.values();
    parallel(x.size(0), [&](int64_t n) {
      const Scratch<A> scratch(clips.scratch()), g(block);
      std::vector<A> dx(s.clip());
      const A* clip = clips.get(n, scratch.get());
      MotionTokens<A> tokens(s);
      for (int64_t t = 0; t < s.segments(); ++t) {
        tokens(clip, t);
        convert(grads.raw(n) + t * block, g.get(), block);
        tokens.add_gradient(g.get(), dx.data());
      }
      convert(dx.data(), data<T>(out) + n * s.clip(), s.clip());
    });
    return out;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("motion_target", TORCH_BOX(&motion_target));
  m.impl("motion_target_backward", TORCH_BOX(&motion_target_backward));
}

}  // namespace skelops
