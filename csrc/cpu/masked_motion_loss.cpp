// masked_motion_loss: the target of a token lives in registers between x and the prediction.
#include <numeric>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/motion_tokens.h"

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

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& pred, const Tensor& mask,
                                   const TokenSizes& s) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Parameter<A> clips{x};
  const Samples<T> preds(pred);
  const Tensor kept = torch::stable::contiguous(mask);
  const int64_t batch = x.size(0);
  std::vector<double> sums(batch);
  std::vector<int64_t> counts(batch);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> scratch(preds.scratch());
    const A* p = preds.get(n, scratch.get());
    const bool* keep = data<bool>(kept) + n * s.tokens();
    MotionTokens<A> tokens(s);
    for (int64_t t = 0; t < s.segments(); ++t) {
      tokens.enter(clips.data() + n * s.clip(), t);
      typename S::Vec total = {};
      for (int64_t v = 0; v < s.joints; ++v, p += s.values()) {
        if (*keep++) continue;
        ++counts[n];
        const A* y = tokens(v);
        for (int64_t i = 0; i < tokens.vectors(); ++i) {
          const auto error =
              S::load(p + i * S::kLanes, tokens.lanes(i)) - S::load(y + i * S::kLanes);
          total += error * error;
        }
      }
      sums[n] += S::sum(total);
    }
  });
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  const int64_t count = std::accumulate(counts.begin(), counts.end(), int64_t(0));
  const std::vector<int64_t> scalar;
  Tensor loss = new_tensor<A>(pred, scalar), masked = new_tensor<A>(pred, scalar);
  *data<A>(loss) =
      static_cast<A>(sum / static_cast<double>(s.values() * std::max<int64_t>(count, 1)));
  *data<A>(masked) = static_cast<A>(count);
  return {loss, masked};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& pred,
                                    const Tensor& mask, const TokenSizes& s, const Tensor& count,
                                    int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const bool want_x = wants(needs, 0), want_pred = wants(needs, 1);
  const int64_t batch = x.size(0), values = s.values();
  const Parameter<A> clips{x};
  const Samples<T> preds(pred);
  const Tensor kept = torch::stable::contiguous(mask);
  const A scale =
      2 * parameter<A>(grad)[0] / (static_cast<A>(values) * std::max(parameter<A>(count)[0], A(1)));
  Tensor dpred = want_pred ? new_tensor<T>(pred, {batch, s.tokens(), values}) : no_gradient(pred);
  Tensor dx = want_x ? torch::stable::new_empty(x, {batch, s.frames, s.joints, s.channels})
                     : no_gradient(x);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> scratch(preds.scratch()), dclip(want_x ? s.clip() : 0);
    const Scratch<A> row(values + S::kLanes);
    const A* p = preds.get(n, scratch.get());
    const A* clip = clips.data() + n * s.clip();
    const bool* keep = data<bool>(kept) + n * s.tokens();
    T* to = want_pred ? data<T>(dpred) + n * s.tokens() * values : nullptr;
    if (want_x) std::fill_n(dclip.get(), s.clip(), A(0));
    MotionTokens<A> tokens(s);
    for (int64_t t = 0; t < s.segments(); ++t) {
      tokens.enter(clip, t);
      for (int64_t v = 0; v < s.joints; ++v, p += values) {
        const bool masked = !*keep++;
        T* out = want_pred ? to : nullptr;
        if (want_pred) to += values;
        if (!masked) {
          if (want_pred) std::fill_n(out, values, T(0));
          continue;
        }
        const A* y = tokens(v);
        for (int64_t i = 0; i < tokens.vectors(); ++i) {
          const int64_t at = i * S::kLanes;
          const int lanes = tokens.lanes(i);
          const auto g = (S::load(p + at, lanes) - S::load(y + at)) * scale;
          if constexpr (std::is_same_v<T, A>) {
            if (want_pred) S::store(out + at, g, lanes);
          }
          if (want_x || !std::is_same_v<T, A>) S::store(row.get() + at, g);
        }
        if constexpr (!std::is_same_v<T, A>) {
          if (want_pred) convert(row.get(), out, values);
        }
        if (!want_x) continue;
        for (int64_t i = 0; i < values; ++i) row[i] = -row[i];
        add_to_clip(tokens, s, y, row.get(), v, clip, dclip.get());
      }
    }
    if (!want_x) return;
    dispatch(x, "masked_motion_loss_backward", [&](auto type) {
      convert(dclip.get(), data<decltype(type)>(dx) + n * s.clip(), s.clip());
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
