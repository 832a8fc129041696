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
    parallel(x.size(0), [&](int64_t n) {
      const Scratch<A> scratch(clips.scratch());
      const A* clip = clips.get(n, scratch.get());
      T* to = data<T>(out) + n * s.tokens() * s.values();
      MotionTokens<A> tokens(s);
      for (int64_t t = 0; t < s.segments(); ++t) {
        tokens.enter(clip, t);
        for (int64_t v = 0; v < s.joints; ++v, to += s.values()) {
          convert(tokens(v), to, s.values());
        }
      }
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
    parallel(x.size(0), [&](int64_t n) {
      const Scratch<A> scratch(clips.scratch()), dx(s.clip()), g(s.values());
      const A* clip = clips.get(n, scratch.get());
      const T* from = grads.raw(n);
      std::fill_n(dx.get(), s.clip(), A(0));
      MotionTokens<A> tokens(s);
      for (int64_t t = 0; t < s.segments(); ++t) {
        tokens.enter(clip, t);
        for (int64_t v = 0; v < s.joints; ++v, from += s.values()) {
          const A* value = tokens(v);
          convert(from, g.get(), s.values());
          add_to_clip(tokens, s, value, g.get(), v, clip, dx.get());
        }
      }
      convert(dx.get(), data<T>(out) + n * s.clip(), s.clip());
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
