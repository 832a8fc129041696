// mixup_cross_entropy: one read of the logits forward, one read and one write backward; a row stays
// in the first-level cache between its maximum, its sum and its gradient.
#include <cmath>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/exp.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr const char* kOp = "mixup_cross_entropy";
constexpr int64_t kTaskLogits = 16384;  // enough work to hand to another thread

template <typename A>
typename Simd<A>::Vec exp_of_negative(typename Simd<A>::Vec x) {
  constexpr A kLeast = -87;  // where float32 is about to underflow; comparisons keep NaN
  return exp(x < kLeast ? typename Simd<A>::Vec{} + kLeast : x);
}

template <typename A>
A maximum(const A* z, int64_t count) {
  using S = Simd<A>;
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  auto top = typename S::Vec{} + kLowest;
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) {
    const auto v = S::load(z + i);
    top = v > top ? v : top;
  }
  A found = kLowest;
  for (int lane = 0; lane < S::kLanes; ++lane) found = std::max(found, top[lane]);
  for (; i < count; ++i) found = std::max(found, z[i]);
  return found;
}

// sum_c exp(z_c - top).
template <typename A>
A sum_of_exp(const A* z, A top, int64_t count) {
  return reduce<A>(count, [=](int64_t i, int lanes) {
    auto e = exp_of_negative<A>(load_some(z + i, lanes) - top);
    for (int lane = lanes; lane < Simd<A>::kLanes; ++lane) e[lane] = 0;
    return e;
  });
}

// sum_c w_c (origin - z_c).
template <typename A>
A weighted_distance(const A* z, const A* w, A origin, int64_t count) {
  return reduce<A>(count, [=](int64_t i, int lanes) {
    return load_some(w + i, lanes) * (origin - load_some(z + i, lanes));
  });
}

// Labels, their shares of the samples, and the weights of the classes.
template <typename A>
class Targets {
 public:
  Targets(const Tensor& logits, const Tensor& label, const OptionalTensor& label_b,
          const OptionalTensor& mix, const OptionalTensor& weight, double smoothing)
      : first_(as_contiguous(label)),
        second_(as_contiguous(label_b.value_or(label))),
        mix_(parameter<A>(mix)),
        weight_(parameter<A>(weight)),
        pair(label_b.has_value()),
        per_sample(mix.has_value() && mix->dim() == 1),
        classes(logits.size(1)),
        smooth(static_cast<A>(smoothing / static_cast<double>(logits.size(1)))),
        sharp(static_cast<A>(1 - smoothing)) {
    if (!weight.has_value()) weight_.assign(classes, A(1));
    total_weight = sum(weight_.data(), classes);
  }

  // -1 for a label that is no class.
  int64_t label(int side, int64_t n) const {
    const auto* at = static_cast<const int64_t*>((side == 0 ? first_ : second_).data_ptr());
    return at[n] >= 0 && at[n] < classes ? at[n] : -1;
  }

  // Of the sample among those of a side; without a second label all is the first's.
  A share(int side, int64_t n) const {
    if (!pair) return side == 0 ? A(1) : A(0);
    const A mix = mix_[per_sample ? n : 0];
    return side == 0 ? mix : 1 - mix;
  }

  int sides() const { return pair ? 2 : 1; }
  const A* weight() const { return weight_.data(); }

 private:
  Tensor first_, second_;
  std::vector<A> mix_, weight_;

 public:
  const bool pair, per_sample;
  const int64_t classes;
  const A smooth, sharp;
  A total_weight;
};

struct Sums {
  double loss[2] = {}, weight[2] = {}, outside = 0;

  void add(const Sums& other) {
    for (int s = 0; s < 2; ++s) loss[s] += other.loss[s], weight[s] += other.weight[s];
    outside += other.outside;
  }
  double mean(int side) const { return weight[side] > 0 ? loss[side] / weight[side] : 0; }
};

// function(task, first row, last row); tasks depend on the problem alone.
template <typename F>
void parallel_rows(int64_t rows, int64_t classes, const F& function) {
  const int64_t size = std::max<int64_t>(1, kTaskLogits / classes);
  parallel((rows + size - 1) / size,
           [&](int64_t task) { function(task, task * size, std::min(rows, (task + 1) * size)); });
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& logits,
                                           const Targets<Accumulate<T>>& targets) {
  using A = Accumulate<T>;
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const Samples<T> samples(logits);
  Tensor lse = new_tensor<A>(logits, {rows});
  std::vector<Sums> parts(rows);
  parallel_rows(rows, classes, [&](int64_t task, int64_t begin, int64_t end) {
    const Scratch<A> row(samples.scratch());
    for (int64_t n = begin; n < end; ++n) {
      const A* z = samples.get(n, row.get());
      const A top = maximum(z, classes);
      const A log_sum = std::log(sum_of_exp(z, top, classes));
      A smoothed = 0;
      if (targets.smooth > 0) {
        smoothed = targets.smooth * (targets.total_weight * log_sum +
                                     weighted_distance(z, targets.weight(), top, classes));
      }
      data<A>(lse)[n] = top + log_sum;
      for (int s = 0; s < targets.sides(); ++s) {
        const int64_t y = targets.label(s, n);
        if (y < 0) {
          ++parts[task].outside;
          continue;
        }
        const A w = targets.weight()[y], share = targets.per_sample ? targets.share(s, n) : A(1);
        const A nll = top + log_sum - z[y];
        parts[task].loss[s] += static_cast<double>(share * (targets.sharp * w * nll + smoothed));
        parts[task].weight[s] += static_cast<double>(w);
      }
    }
  });
  Sums all;
  for (const Sums& part : parts) all.add(part);
  double loss = all.mean(0) + all.mean(1);
  if (targets.pair && !targets.per_sample) {
    loss = targets.share(0, 0) * all.mean(0) + targets.share(1, 0) * all.mean(1);
  }
  Tensor out = new_tensor<A>(logits, {}), notes = new_tensor<A>(logits, {5});
  *data<A>(out) = static_cast<A>(loss);
  const double values[] = {all.mean(0), all.mean(1), all.weight[0], all.weight[1], all.outside};
  convert(values, data<A>(notes), 5);
  return {out, lse, notes};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& logits,
                                    const OptionalTensor& mix,
                                    const Targets<Accumulate<T>>& targets, const Tensor& lse,
                                    const Tensor& notes, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const bool want_z = wants(needs, 0), want_mix = wants(needs, 1);
  const Samples<T> samples(logits);
  Tensor dz = want_z ? new_tensor<T>(logits, {rows, classes}) : no_gradient(logits);
  std::vector<A> dmix(want_mix ? (targets.per_sample ? rows : 1) : 0);
  const A g = parameter<A>(grad)[0];
  const std::vector<A> note = parameter<A>(notes);
  if (want_mix && !targets.per_sample) dmix[0] = g * (note[0] - note[1]);
  const A scale[] = {note[2] > 0 ? g / note[2] : A(0), note[3] > 0 ? g / note[3] : A(0)};
  const A* lse_of = data<A>(lse);
  parallel_rows(rows, classes, [&](int64_t, int64_t begin, int64_t end) {
    const Scratch<A> row(samples.scratch()), dz_row(samples.kInPlace ? 0 : classes);
    for (int64_t n = begin; n < end; ++n) {
      const A* z = samples.get(n, row.get());
      // d = (sum_s c_s sharp w_s + u W) p - u w - sum_s c_s sharp w_s [k = y_s], u = sum_s c_s
      // smooth
      A along[2] = {}, smooth = 0;
      for (int s = 0; s < targets.sides(); ++s) {
        const int64_t y = targets.label(s, n);
        if (y < 0) continue;
        const A c = scale[s] * targets.share(s, n);
        along[s] = c * targets.sharp * targets.weight()[y];
        smooth += c * targets.smooth;
      }
      if (want_z) {
        T* to = data<T>(dz) + n * classes;
        A* d = samples.kInPlace ? reinterpret_cast<A*>(to) : dz_row.get();
        const A all = along[0] + along[1] + smooth * targets.total_weight;
        for (int64_t k = 0; k < classes; k += S::kLanes) {
          const int lanes = static_cast<int>(std::min<int64_t>(classes - k, S::kLanes));
          const auto p = exp_of_negative<A>(load_some(z + k, lanes) - lse_of[n]);
          const auto v = all * p - smooth * load_some(targets.weight() + k, lanes);
          if (lanes == S::kLanes) {
            S::store(d + k, v);
          } else {
            S::store(d + k, v, lanes);
          }
        }
        for (int s = 0; s < targets.sides(); ++s) {
          const int64_t y = targets.label(s, n);
          if (y >= 0) d[y] -= along[s];
        }
        if (!samples.kInPlace) convert(d, to, classes);
      }
      if (want_mix && targets.per_sample) {
        A smoothed = 0;
        if (targets.smooth > 0) {
          smoothed = targets.smooth * weighted_distance(z, targets.weight(), lse_of[n], classes);
        }
        for (int s = 0; s < 2; ++s) {
          const int64_t y = targets.label(s, n);
          if (y < 0) continue;
          const A loss = targets.sharp * targets.weight()[y] * (lse_of[n] - z[y]) + smoothed;
          dmix[n] += s == 0 ? scale[0] * loss : -scale[1] * loss;
        }
      }
    }
  });
  return {dz, want_mix ? gradient_of(*mix, dmix) : no_gradient(logits)};
}

void check(const Tensor& logits, const Tensor& label, const OptionalTensor& label_b,
           const OptionalTensor& mix, const OptionalTensor& weight) {
  const auto is_label = [&](const Tensor& t) {
    return t.scalar_type() == ScalarType::Long && t.numel() == logits.size(0);
  };
  SKELOPS_CHECK(logits.dim() == 2 && logits.size(1) > 0, kOp, "logits (N, K), K >= 1");
  SKELOPS_CHECK(is_label(label) && is_label(label_b.value_or(label)), kOp, "labels (N,) int64");
  SKELOPS_CHECK(label_b.has_value() == mix.has_value(), kOp, "label_b together with mix");
  SKELOPS_CHECK(!mix.has_value() || mix->dim() == 0 || mix->numel() == logits.size(0), kOp,
                "mix () or (N,)");
  SKELOPS_CHECK(!weight.has_value() || weight->numel() == logits.size(1), kOp, "weight (K,)");
}

std::tuple<Tensor, Tensor, Tensor> mixup_cross_entropy(Tensor logits, Tensor label,
                                                       OptionalTensor label_b, OptionalTensor mix,
                                                       OptionalTensor weight, double smoothing) {
  check(logits, label, label_b, mix, weight);
  return dispatch(logits, kOp, [&](auto type) {
    using T = decltype(type);
    return forward<T>(logits, {logits, label, label_b, mix, weight, smoothing});
  });
}

std::tuple<Tensor, Tensor> mixup_cross_entropy_backward(Tensor grad, Tensor logits, Tensor label,
                                                        OptionalTensor label_b, OptionalTensor mix,
                                                        OptionalTensor weight, double smoothing,
                                                        Tensor lse, Tensor notes, int64_t needs) {
  check(logits, label, label_b, mix, weight);
  return dispatch(logits, kOp, [&](auto type) {
    using T = decltype(type);
    return backward<T>(grad, logits, mix, {logits, label, label_b, mix, weight, smoothing},
                       as_contiguous(lse), notes, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("mixup_cross_entropy", TORCH_BOX(&mixup_cross_entropy));
  m.impl("mixup_cross_entropy_backward", TORCH_BOX(&mixup_cross_entropy_backward));
}

}  // namespace skelops
