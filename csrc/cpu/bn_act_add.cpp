// bn_act_add: a channel of the whole batch (a few hundred KB) stays in the L2 cache between the
// reduction and the elementwise pass, so each tensor crosses memory once.
#include <cmath>

#include "common/dropout.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "math/moments.h"

namespace skelops {
namespace {

struct Norm {
  OptionalTensor weight, bias, mean, var;
};

// x of one channel, row by row (a row is T * V values of one sample).
template <typename T>
class Channel {
 public:
  using A = Accumulate<T>;
  Channel(const Samples<T>& samples, int64_t channel, int64_t row, A* scratch)
      : samples_(samples), begin_(channel * row), row_(row), scratch_(scratch) {}
  const A* operator()(int64_t n) const { return samples_.get(n, begin_, row_, scratch_); }

 private:
  const Samples<T>& samples_;
  int64_t begin_, row_;
  A* scratch_;
};

template <typename A>
struct Affine {
  A mean, rstd, scale, shift;

  Affine(double mean, double var, A weight, A bias, double eps)
      : mean(static_cast<A>(mean)),
        rstd(static_cast<A>(1 / std::sqrt(var + eps))),
        scale(weight * rstd),
        shift(bias - this->mean * scale) {}
};

// The statistics of a normalisation: of the batch, which are also written out, or the given ones.
template <typename T>
class Statistics {
 public:
  using A = Accumulate<T>;
  Statistics(const Norm& norm, const Tensor& like, bool training, double eps)
      : weight_(parameter<A>(norm.weight)),
        bias_(parameter<A>(norm.bias)),
        given_mean_(training ? std::vector<A>() : parameter<A>(norm.mean)),
        given_var_(training ? std::vector<A>() : parameter<A>(norm.var)),
        training_(training),
        eps_(eps),
        mean(new_tensor<A>(like, {training && present() ? size() : 0})),
        var(new_tensor<A>(like, {training && present() ? size() : 0})) {}

  bool present() const { return !weight_.empty(); }

  Affine<A> measure(int64_t c, int64_t batch, int64_t row, const Channel<T>& x) const {
    if (!training_) return {given_mean_[c], given_var_[c], weight_[c], bias_[c], eps_};
    Moments moments;
    for (int64_t n = 0; n < batch; ++n) moments.merge(Moments::of(x(n), row));
    data<A>(mean)[c] = static_cast<A>(moments.mean);
    data<A>(var)[c] = static_cast<A>(moments.variance());
    return {moments.mean, moments.variance(), weight_[c], bias_[c], eps_};
  }

 private:
  int64_t size() const { return static_cast<int64_t>(weight_.size()); }
  std::vector<A> weight_, bias_, given_mean_, given_var_;
  bool training_;
  double eps_;

 public:
  Tensor mean, var;
};

template <typename A>
void draw(const Dropout& dropout, int64_t plane, int64_t row, A* factor) {
  if (!dropout.active) return;
  for (int64_t i = 0; i < row; i += Dropout::kUnits) dropout.factors(plane, i, factor + i);
}

// What is dropped is 0, be it infinite.
template <typename Vec>
Vec dropped(Vec v, Vec factor) {
  return factor == 0 ? Vec{} : v * factor;
}

// What the rectifier gets, of a channel; the backward computes it again for its mask.
template <typename A>
struct BeforeRelu {
  bool dropout;
  A scale, shift, r_scale = 1, r_shift = 0;

  BeforeRelu(const Affine<A>& f, const Affine<A>* r, bool dropout)
      : dropout(dropout), scale(f.scale), shift(f.shift) {
    if (r != nullptr) r_scale = r->scale, r_shift = r->shift;
    if (!dropout) shift += r_shift;  // nothing comes between the two
  }

  auto operator()(const A* x, const A* r, const A* factors, int64_t i, int lanes) const {
    auto v = load_some(x + i, lanes) * scale + shift;
    if (dropout) v = dropped(v, Simd<A>::load(factors + i)) + r_shift;
    return r == nullptr ? v : v + load_some(r + i, lanes) * r_scale;
  }
};

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(const Tensor& x, const Norm& norm,
                                                           const OptionalTensor& residual,
                                                           const Norm& res_norm,
                                                           const Dropout& dropout, bool training,
                                                           bool relu, double eps) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const int64_t batch = x.size(0), channels = x.size(1), row = x.size(2) * x.size(3);
  const Samples<T> inputs(x), residuals(residual.value_or(x));
  const Statistics<T> statistics(norm, x, training, eps), res(res_norm, x, training, eps);
  Tensor out = new_tensor<T>(x, {batch, channels, x.size(2), x.size(3)});
  parallel(channels, [&](int64_t c) {
    const int64_t convert_size = inputs.kInPlace ? 0 : row;
    const Scratch<A> x_row(convert_size), r_row(convert_size), y_row(convert_size);
    const Scratch<A> factors(dropout.room(row));
    const Channel<T> x_c(inputs, c, row, x_row.get()), r_c(residuals, c, row, r_row.get());
    const Affine<A> f = statistics.measure(c, batch, row, x_c);
    const Affine<A> r_f = res.present() ? res.measure(c, batch, row, r_c) : f;
    const BeforeRelu<A> before(f, res.present() ? &r_f : nullptr, dropout.active);
    for (int64_t n = 0; n < batch; ++n) {
      const A* in = x_c(n);
      const A* r = residual.has_value() ? r_c(n) : nullptr;
      T* to = data<T>(out) + (n * channels + c) * row;
      A* y = inputs.kInPlace ? reinterpret_cast<A*>(to) : y_row.get();
      draw(dropout, n * channels + c, row, factors.get());
      for (int64_t i = 0; i < row; i += S::kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(row - i, S::kLanes));
        auto v = before(in, r, factors.get(), i, lanes);
        if (relu) v = v < A(0) ? typename S::Vec{} : v;
        if (lanes == S::kLanes) {
          S::store(y + i, v);
        } else {
          S::store(y + i, v, lanes);
        }
      }
      if (!inputs.kInPlace) convert(y, to, row);
    }
  });
  return {out, statistics.mean, statistics.var, res.mean, res.var};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// One normalised operand of the backward: reductions of the masked gradient, then its gradient.
template <typename T>
struct Operand {
  using A = Accumulate<T>;
  Operand(const Norm& norm, const Tensor& mean, const Tensor& var, bool training, double eps)
      : weight(parameter<A>(norm.weight)),
        bias(parameter<A>(norm.bias)),
        mean(parameter<A>(training ? OptionalTensor(mean) : norm.mean)),
        var(parameter<A>(training ? OptionalTensor(var) : norm.var)),
        dweight(weight.size()),
        dbias(weight.size()),
        eps(eps) {}

  bool present() const { return !weight.empty(); }
  Affine<A> affine(int64_t c) const { return {mean[c], var[c], weight[c], bias[c], eps}; }

  std::vector<A> weight, bias, mean, var, dweight, dbias;
  double eps;
};

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& x, const Norm& norm,
                   const OptionalTensor& residual, const Norm& res_norm, const Dropout& dropout,
                   bool training, bool relu, double eps, const Tensor& mean, const Tensor& var,
                   const Tensor& res_mean, const Tensor& res_var, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  using Vec = typename S::Vec;
  const int64_t batch = x.size(0), channels = x.size(1), row = x.size(2) * x.size(3);
  const Samples<T> inputs(x), residuals(residual.value_or(x)), grads(grad);
  Operand<T> main(norm, mean, var, training, eps);
  Operand<T> second(res_norm, res_mean, res_var, training, eps);
  const bool want_x = wants(needs, 0), want_res = wants(needs, 3);
  const std::vector<int64_t> shape{batch, channels, x.size(2), x.size(3)};
  Tensor dx = want_x ? new_tensor<T>(x, shape) : no_gradient(x);
  Tensor dres = want_res ? new_tensor<T>(x, shape) : no_gradient(x);
  const A count = static_cast<A>(batch * row);

  parallel(channels, [&](int64_t c) {
    const int64_t convert_size = inputs.kInPlace ? 0 : row;
    const Scratch<A> x_row(convert_size), r_row(convert_size), g_row(convert_size);
    const Scratch<A> dx_row(convert_size), dres_row(convert_size), factors(dropout.room(row));
    const Channel<T> x_c(inputs, c, row, x_row.get()), r_c(residuals, c, row, r_row.get());
    const Channel<T> g_c(grads, c, row, g_row.get());
    const Affine<A> f = main.affine(c);
    const Affine<A> r = second.present() ? second.affine(c) : f;
    const BeforeRelu<A> before(f, second.present() ? &r : nullptr, dropout.active);
    const auto masked = [&](const A* g, const A* in, const A* res, int64_t i, int lanes) {
      const Vec v = load_some(g + i, lanes);
      return relu ? (before(in, res, factors.get(), i, lanes) <= A(0) ? Vec{} : v) : v;
    };
    const auto through = [&](Vec v, int64_t i) {
      return dropout.active ? dropped(v, S::load(factors.get() + i)) : v;
    };

    // Of the masked gradient d behind the dropout, of d (x - mean), of the masked gradient g of the
    // residual and of g (r - mean).
    double totals[4] = {};
    for (int64_t n = 0; n < batch; ++n) {
      const A *g = g_c(n), *in = x_c(n), *res = residual.has_value() ? r_c(n) : nullptr;
      draw(dropout, n * channels + c, row, factors.get());
      if (second.present()) {
        reduce_into<4, A>(row, totals, [&](int64_t i, int lanes, Vec* sums) {
          const Vec m = masked(g, in, res, i, lanes), d = through(m, i);
          sums[0] += d;
          sums[1] += d * (load_some(in + i, lanes) - f.mean);
          sums[2] += m;
          sums[3] += m * (load_some(res + i, lanes) - r.mean);
        });
      } else {
        reduce_into<2, A>(row, totals, [&](int64_t i, int lanes, Vec* sums) {
          const Vec m = through(masked(g, in, res, i, lanes), i);
          sums[0] += m;
          sums[1] += m * (load_some(in + i, lanes) - f.mean);
        });
      }
    }
    const double total = totals[0], along_x = totals[1], total_r = totals[2], along_r = totals[3];
    main.dbias[c] = static_cast<A>(total);
    main.dweight[c] = static_cast<A>(along_x * f.rstd);
    if (second.present()) {
      second.dbias[c] = static_cast<A>(total_r);
      second.dweight[c] = static_cast<A>(along_r * r.rstd);
    }
    // d = scale (g - mean(g) - (x - mean) rstd^2 mean(g (x - mean))), the last two in training.
    const A mean_x = training ? static_cast<A>(total) / count : A(0);
    const A mean_r = training ? static_cast<A>(total_r) / count : A(0);
    const A slope_x = training ? static_cast<A>(along_x) / count * f.rstd * f.rstd : A(0);
    const A slope_r = training ? static_cast<A>(along_r) / count * r.rstd * r.rstd : A(0);
    const auto write = [&](A* to, int64_t i, int lanes, Vec v) {
      if (lanes == S::kLanes) {
        S::store(to + i, v);
      } else {
        S::store(to + i, v, lanes);
      }
    };
    for (int64_t n = 0; n < batch && (want_x || want_res); ++n) {
      const A *g = g_c(n), *in = x_c(n), *res = residual.has_value() ? r_c(n) : nullptr;
      const int64_t offset = (n * channels + c) * row;
      T* dx_to = want_x ? data<T>(dx) + offset : nullptr;
      T* dres_to = want_res ? data<T>(dres) + offset : nullptr;
      A* dx_n = inputs.kInPlace ? reinterpret_cast<A*>(dx_to) : dx_row.get();
      A* dres_n = inputs.kInPlace ? reinterpret_cast<A*>(dres_to) : dres_row.get();
      draw(dropout, n * channels + c, row, factors.get());
      for (int64_t i = 0; i < row; i += S::kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(row - i, S::kLanes));
        const Vec m = masked(g, in, res, i, lanes);
        if (want_x) {
          const Vec centred = load_some(in + i, lanes) - f.mean;
          write(dx_n, i, lanes, ((through(m, i) - mean_x) - centred * slope_x) * f.scale);
        }
        if (!want_res) continue;
        if (!second.present()) {
          write(dres_n, i, lanes, m);
        } else {
          const Vec centred = load_some(res + i, lanes) - r.mean;
          write(dres_n, i, lanes, ((m - mean_r) - centred * slope_r) * r.scale);
        }
      }
      if (!inputs.kInPlace && want_x) convert(dx_n, dx_to, row);
      if (!inputs.kInPlace && want_res) convert(dres_n, dres_to, row);
    }
  });

  const auto gradient = [&](int index, const OptionalTensor& parameter, const std::vector<A>& d) {
    return wants(needs, index) ? gradient_of(*parameter, d) : no_gradient(x);
  };
  return {
      dx,   gradient(1, norm.weight, main.dweight),       gradient(2, norm.bias, main.dbias),
      dres, gradient(4, res_norm.weight, second.dweight), gradient(5, res_norm.bias, second.dbias)};
}

void check(const Tensor& x, const Tensor& weight, const OptionalTensor& residual,
           const OptionalTensor& res_weight, const OptionalTensor& res_bias) {
  SKELOPS_CHECK(x.dim() == 4 && weight.numel() == x.size(1), "bn_act_add",
                "x (N, C, T, V) and weight (C,)");
  SKELOPS_CHECK(!residual.has_value() || residual->numel() == x.numel(), "bn_act_add",
                "residual of x's shape");
  SKELOPS_CHECK(res_weight.has_value() == res_bias.has_value() &&
                    (!res_weight.has_value() || residual.has_value()),
                "bn_act_add", "residual, res_weight and res_bias together");
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_act_add(
    Tensor x, Tensor weight, Tensor bias, OptionalTensor running_mean, OptionalTensor running_var,
    OptionalTensor residual, OptionalTensor res_weight, OptionalTensor res_bias,
    OptionalTensor res_running_mean, OptionalTensor res_running_var, OptionalTensor seed,
    int64_t dropped, bool training, bool relu, double eps) {
  check(x, weight, residual, res_weight, res_bias);
  const Norm norm{weight, bias, running_mean, running_var};
  const Norm res{res_weight, res_bias, res_running_mean, res_running_var};
  const Dropout dropout(seed, dropped);
  return dispatch(x, "bn_act_add", [&](auto type) {
    return forward<decltype(type)>(x, norm, residual, res, dropout, training, relu, eps);
  });
}

Gradients bn_act_add_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias,
                              OptionalTensor running_mean, OptionalTensor running_var,
                              OptionalTensor residual, OptionalTensor res_weight,
                              OptionalTensor res_bias, OptionalTensor res_running_mean,
                              OptionalTensor res_running_var, OptionalTensor seed, int64_t dropped,
                              bool training, bool relu, double eps, Tensor mean, Tensor var,
                              Tensor res_mean, Tensor res_var, int64_t needs) {
  check(x, weight, residual, res_weight, res_bias);
  const Norm norm{weight, bias, running_mean, running_var};
  const Norm res{res_weight, res_bias, res_running_mean, res_running_var};
  const Dropout dropout(seed, dropped);
  return dispatch(x, "bn_act_add_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, norm, residual, res, dropout, training, relu, eps,
                                    mean, var, res_mean, res_var, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("bn_act_add", TORCH_BOX(&bn_act_add));
  m.impl("bn_act_add_backward", TORCH_BOX(&bn_act_add_backward));
}

}  // namespace skelops
