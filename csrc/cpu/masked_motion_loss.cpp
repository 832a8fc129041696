// masked_motion_loss: the target of a segment lives in the cache between x and the prediction.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/motion_tokens.h"
#include "math/moments.h"

namespace skelops {
namespace {

TokenSizes sizes_of(const Tensor& x, const Tensor& pred, const Tensor& mask, int64_t segment,
                    int64_t stride, bool normalise) {
  const char* op = "masked_motion_loss";
  SKELOPS_CHECK(x.dim() == 4, op, "x (N, T, V, C)");
  const TokenSizes s = token_sizes(op, x.size(1), x.size(2), x.size(3), segment, stride, normalise);
  SKELOPS_CHECK(pred.numel() == x.numel() && mask.numel() == x.size(0) * s.tokens() &&
                    mask.scalar_type() == ScalarType::Bool,
                op, "pred (N, L, u C) and mask (N, L)");
  return s;
}

// error = pred - target in a segment, zero for kept tokens; returns the number of the others.
template <typename A>
int64_t errors(const A* pred, const A* target, const bool* kept, const TokenSizes& s, A* error) {
  const int64_t values = s.values();
  for (int64_t i = 0; i < s.joints * values; ++i) error[i] = pred[i] - target[i];
  int64_t masked = s.joints;
  for (int64_t v = 0; v < s.joints; ++v) {
    if (!kept[v]) continue;
    std::fill_n(error + v * values, values, A(0));
    --masked;
  }
  return masked;
}

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& pred, const Tensor& mask,
                                   const TokenSizes& s) {
  using A = Accumulate<T>;
  const Parameter<A> clips{x};
  const Samples<T> preds(pred);
  const Tensor kept = as_contiguous(mask);
  const int64_t batch = x.size(0), block = s.joints * s.values();
  std::vector<double> sums(batch);
  std::vector<int64_t> counts(batch);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> scratch(preds.scratch()), error(block);
    const A* p = preds.get(n, scratch.get());
    const bool* keep = data<bool>(kept) + n * s.tokens();
    MotionTokens<A> tokens(s);
    for (int64_t t = 0; t < s.segments(); ++t, p += block, keep += s.joints) {
      const A* y = tokens(clips.data() + n * s.clip(), t);
      counts[n] += errors(p, y, keep, s, error.get());
      sums[n] += reduce<A>(block, [&](int64_t i, int lanes) {
        const auto e = load_some(error.get() + i, lanes);
        return e * e;
      });
    }
  });
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  const int64_t count = std::accumulate(counts.begin(), counts.end(), int64_t(0));
  const std::vector<int64_t> scalar;
  Tensor loss = new_tensor<A>(pred, scalar), masked = new_tensor<A>(pred, scalar);
  const int64_t terms = s.values() * std::max<int64_t>(count, 1);
  *data<A>(loss) = static_cast<A>(sum / static_cast<double>(terms));
  *data<A>(masked) = static_cast<A>(count);
  return {loss, masked};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& pred,
                                    const Tensor& mask, const TokenSizes& s, const Tensor& count,
                                    int64_t needs) {
  using A = Accumulate<T>;
  const bool want_x = wants(needs, 0), want_pred = wants(needs, 1);
  const int64_t batch = x.size(0), block = s.joints * s.values();
  const Parameter<A> clips{x};
  const Samples<T> preds(pred);
  const Tensor kept = as_contiguous(mask);
  const A scale = 2 * parameter<A>(grad)[0] /
                  (static_cast<A>(s.values()) * std::max(parameter<A>(count)[0], A(1)));
  Tensor dpred =
      want_pred ? new_tensor<T>(pred, {batch, s.tokens(), s.values()}) : no_gradient(pred);
  Tensor dx = want_x ? torch::stable::new_empty(x, {batch, s.frames, s.joints, s.channels})
                     : no_gradient(x);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> scratch(preds.scratch()), error(block);
    std::vector<A> dclip(want_x ? s.clip() : 0);
    const A* p = preds.get(n, scratch.get());
    const bool* keep = data<bool>(kept) + n * s.tokens();
    MotionTokens<A> tokens(s);
    for (int64_t t = 0; t < s.segments(); ++t, p += block, keep += s.joints) {
      A* g = error.get();
      errors(p, tokens(clips.data() + n * s.clip(), t), keep, s, g);
      for (int64_t i = 0; i < block; ++i) g[i] *= scale;
      if (want_pred) convert(g, data<T>(dpred) + n * s.clip() + t * block, block);
      if (!want_x) continue;
      for (int64_t i = 0; i < block; ++i) g[i] = -g[i];
      tokens.add_gradient(g, dclip.data());
    }
    if (!want_x) return;
    dispatch(x, "masked_motion_loss_backward", [&](auto type) {
      convert(dclip.data(), data<decltype(type)>(dx) + n * s.clip(), s.clip());
    });
  });
  return {dx, dpred};
}

std::tuple<Tensor, Tensor> masked_motion_loss(Tensor x, Tensor pred, Tensor mask, int64_t segment,
                                              int64_t stride, bool normalise) {
  const TokenSizes s = sizes_of(x, pred, mask, segment, stride, normalise);
  return dispatch(pred, "masked_motion_loss",
                  [&](auto type) { return forward<decltype(type)>(x, pred, mask, s); });
}

std::tuple<Tensor, Tensor> masked_motion_loss_backward(Tensor grad, Tensor x, Tensor pred,
                                                       Tensor mask, int64_t segment, int64_t stride,
                                                       bool normalise, Tensor count,
                                                       int64_t needs) {
  const TokenSizes s = sizes_of(x, pred, mask, segment, stride, normalise);
  return dispatch(pred, "masked_motion_loss_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, pred, mask, s, count, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("masked_motion_loss", TORCH_BOX(&masked_motion_loss));
  m.impl("masked_motion_loss_backward", TORCH_BOX(&masked_motion_loss_backward));
}

}  // namespace skelops
