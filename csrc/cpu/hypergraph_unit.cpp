// hypergraph_unit: a head of a sample at a time. Features are convolved as in hypergraph.h; the
// backward computes the rectifier's mask again and makes the gradient of the convolution in cache,
// next to the gradients it is made for: neither it nor that of the residual crosses memory.
#include <cmath>

#include "cpu/hypergraph.h"

namespace skelops {
namespace {

struct UnitTensors {
  const Tensor &x, &graph, &weight;
  const OptionalTensor &bias, &virtuals;
  const Tensor &norm_weight, &norm_bias;
  bool residual, training;
  double eps;
};

HyperShape checked(const char* op, const UnitTensors& t) {
  const HyperShape s(op, t.x, t.graph, t.weight, t.bias, t.virtuals);
  SKELOPS_CHECK(
      t.norm_weight.numel() == s.heads * s.outputs && t.norm_bias.numel() == s.heads * s.outputs,
      op, "norm_weight and norm_bias (C',)");
  SKELOPS_CHECK(!t.residual || s.inputs == s.outputs, op, "C' = C for a residual");
  return s;
}

template <typename A>
struct Normalisation {
  std::vector<A> mean, rstd, scale, shift;

  Normalisation(const std::vector<A>& mean, const std::vector<A>& var, const UnitTensors& t)
      : mean(mean), rstd(mean.size()), scale(mean.size()), shift(mean.size()) {
    const std::vector<A> weight = parameter<A>(t.norm_weight), bias = parameter<A>(t.norm_bias);
    for (size_t c = 0; c < mean.size(); ++c) {
      rstd[c] = static_cast<A>(1 / std::sqrt(static_cast<double>(var[c]) + t.eps));
      scale[c] = weight[c] * rstd[c];
      shift[c] = bias[c] - mean[c] * scale[c];
    }
  }
};

// What the rectifier gets: normalised features, and the residual if there is one.
template <typename A>
typename Simd<A>::Vec before_relu(const A* y, const A* residual, int64_t i, int lanes, A scale,
                                  A shift) {
  const auto v = load_some(y + i, lanes) * scale + shift;
  return residual ? v + load_some(residual + i, lanes) : v;
}

// out = relu(...) of the channels of a head from `channel` on.
template <typename A>
void activate(const HyperShape& s, const Normalisation<A>& norm, int64_t channel, const A* y,
              const A* residual, A* out) {
  const int64_t row = s.row();
  for (int64_t c = 0; c < s.outputs; ++c, y += row, out += row) {
    const A scale = norm.scale[channel + c], shift = norm.shift[channel + c];
    vectors<A>(row, [&](int64_t i, int lanes) {
      const auto v = before_relu(y, residual, i, lanes, scale, shift);
      store_some(out + i, v < A(0) ? decltype(v){} : v, lanes);
    });
    if (residual) residual += row;
  }
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const UnitTensors& t,
                                                   const OptionalTensor& running_mean,
                                                   const OptionalTensor& running_var, bool keep) {
  using A = Accumulate<T>;
  const HyperShape s = checked("hypergraph_unit", t);
  const Heads<T> heads(s, t.graph, t.weight, t.bias, t.virtuals);
  const Samples<T> inputs(t.x);
  constexpr bool kInPlace = Samples<T>::kInPlace;
  const int64_t channels = s.heads * s.outputs, row = s.row();
  const int64_t in_size = s.inputs * row, out_size = s.outputs * row;
  const std::vector<int64_t> shape{s.batch, channels, s.frames, s.joints};
  // In training, the statistics come between the convolution and the rest.
  const bool whole = keep || t.training;
  Tensor out = new_tensor<T>(t.x, shape);
  Tensor conv = whole ? new_tensor<T>(t.x, shape) : no_gradient(t.x);
  Tensor mean_out = new_tensor<A>(t.x, {t.training ? channels : 0});
  Tensor var_out = new_tensor<A>(t.x, {t.training ? channels : 0});

  std::vector<Moments> moments(t.training ? s.batch * channels : 0);
  const auto activated = [&](int64_t task, const Normalisation<A>& norm, const A* y, const A* in) {
    const Scratch<A> converted(kInPlace ? 0 : out_size);
    T* to = data<T>(out) + task * out_size;
    A* result = kInPlace ? reinterpret_cast<A*>(to) : converted.get();
    activate(s, norm, task % s.heads * s.outputs, y, t.residual ? in : nullptr, result);
    if (!kInPlace) convert(result, to, out_size);
  };
  const auto convolve = [&](const Normalisation<A>* norm) {
    parallel(s.batch * s.heads, [&](int64_t task) {
      const int64_t n = task / s.heads, k = task % s.heads;
      const Scratch<A> x_converted(kInPlace ? 0 : in_size), graph_converted(heads.graph_scratch());
      const Scratch<A> y_own(kInPlace && whole ? 0 : out_size);
      const A* in = inputs.get(n, k * in_size, in_size, x_converted.get());
      T* kept = whole ? data<T>(conv) + task * out_size : nullptr;
      A* y = kInPlace && whole ? reinterpret_cast<A*>(kept) : y_own.get();
      heads.forward(in, heads.graph(n, k, graph_converted.get()), k, y);
      if (!kInPlace && whole) convert(y, kept, out_size);
      if (norm) return activated(task, *norm, y, in);
      for (int64_t c = 0; c < s.outputs; ++c) {
        moments[task * s.outputs + c] = Moments::of(y + c * row, row);
      }
    });
  };
  if (!t.training) {
    const Normalisation<A> norm(parameter<A>(running_mean), parameter<A>(running_var), t);
    convolve(&norm);
    return {out, conv, mean_out, var_out};
  }
  convolve(nullptr);
  std::vector<A> mean, var;
  for (int64_t c = 0; c < channels; ++c) {
    Moments all;
    for (int64_t n = 0; n < s.batch; ++n) all.merge(moments[n * channels + c]);
    mean.push_back(static_cast<A>(all.mean));
    var.push_back(static_cast<A>(all.variance()));
  }
  std::copy(mean.begin(), mean.end(), data<A>(mean_out));
  std::copy(var.begin(), var.end(), data<A>(var_out));
  const Normalisation<A> norm(mean, var, t);
  const Samples<T> kept(conv);
  parallel(s.batch * s.heads, [&](int64_t task) {
    const int64_t n = task / s.heads, k = task % s.heads;
    const Scratch<A> x_converted(kInPlace ? 0 : in_size), y_converted(kInPlace ? 0 : out_size);
    activated(task, norm, kept.get(n, k * out_size, out_size, y_converted.get()),
              inputs.get(n, k * in_size, in_size, x_converted.get()));
  });
  return {out, keep ? conv : no_gradient(t.x), mean_out, var_out};
}

// After those of hypergraph.h.
constexpr int kNormWeight = kVirtual + 1, kNormBias = kVirtual + 2;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const UnitTensors& t, const Tensor& conv, const Tensor& mean,
                   const Tensor& var, int64_t needs) {
  using A = Accumulate<T>;
  using Vec = typename Simd<A>::Vec;
  const HyperShape s = checked("hypergraph_unit_backward", t);
  const Heads<T> heads(s, t.graph, t.weight, t.bias, t.virtuals);
  const Samples<T> inputs(t.x), kept(conv), grads(grad);
  constexpr bool kInPlace = Samples<T>::kInPlace;
  const int64_t channels = s.heads * s.outputs, row = s.row();
  const int64_t in_size = s.inputs * row, out_size = s.outputs * row;
  const Normalisation<A> norm(parameter<A>(mean), parameter<A>(var), t);
  const bool want_x = wants(needs, kX), want_conv = needs & ((1 << kNormWeight) - 1);
  Tensor dx = want_x ? new_tensor<T>(t.x, {s.batch, s.heads * s.inputs, s.frames, s.joints})
                     : no_gradient(t.x);

  // A head of a sample: g, y and what was added to y.
  struct Buffers {
    explicit Buffers(int64_t size) : g(size), y(size), x(size) {}
    const Scratch<A> g, y, x;
  };
  struct Rows {
    const A *g, *y, *x;
  };
  const auto rows = [&](int64_t n, int64_t k, const Buffers& b) {
    return Rows{grads.get(n, k * out_size, out_size, b.g.get()),
                kept.get(n, k * out_size, out_size, b.y.get()),
                inputs.get(n, k * in_size, in_size, b.x.get())};
  };
  const int64_t buffer = kInPlace ? 0 : std::max(in_size, out_size);
  // function(index, lanes, masked gradient, y) over channel c of a head.
  const auto for_each = [&](const Rows& r, int64_t k, int64_t c, const auto& function) {
    const int64_t channel = k * s.outputs + c;
    const A scale = norm.scale[channel], shift = norm.shift[channel];
    const A *g = r.g + c * row, *y = r.y + c * row, *x = t.residual ? r.x + c * row : nullptr;
    vectors<A>(row, [&](int64_t i, int lanes) {
      const Vec v = before_relu(y, x, i, lanes, scale, shift);
      function(i, lanes, v <= A(0) ? Vec{} : load_some(g + i, lanes), load_some(y + i, lanes));
    });
  };

  // Sums of the masked gradient g and of g (y - mean).
  std::vector<double> totals(2 * s.batch * channels), total(2 * channels);
  parallel(s.batch * s.heads, [&](int64_t task) {
    const int64_t n = task / s.heads, k = task % s.heads;
    const Buffers buffers(buffer);
    const Rows r = rows(n, k, buffers);
    for (int64_t c = 0; c < s.outputs; ++c) {
      const A centre = norm.mean[k * s.outputs + c];
      Vec sums[2] = {};
      for_each(r, k, c, [&](int64_t, int, Vec g, Vec y) {
        sums[0] += g;
        sums[1] += g * (y - centre);
      });
      double* to = totals.data() + 2 * (task * s.outputs + c);
      to[0] = Simd<A>::sum(sums[0]), to[1] = Simd<A>::sum(sums[1]);
    }
  });
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t i = 0; i < 2 * channels; ++i) total[i] += totals[n * 2 * channels + i];
  }

  const Slices slices(s.batch);
  HeadGradients<T> gradients(heads, slices, t.bias.has_value(), needs);
  const A count = static_cast<A>(s.batch * row);
  parallel(want_conv ? slices.count * s.heads : 0, [&](int64_t task) {
    const int64_t slice = task / s.heads, k = task % s.heads;
    const Buffers buffers(buffer);
    const bool through = want_x && t.residual;
    const Scratch<A> d(out_size), masked(through ? out_size : 0);
    const Scratch<A> dx_converted(want_x && !kInPlace ? in_size : 0);
    const Scratch<A> graph_converted(heads.graph_scratch());
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const Rows r = rows(n, k, buffers);
      T* to = want_x ? data<T>(dx) + (n * s.heads + k) * in_size : nullptr;
      A* dx_head = kInPlace ? reinterpret_cast<A*>(to) : dx_converted.get();
      for (int64_t c = 0; c < s.outputs; ++c) {
        const int64_t channel = k * s.outputs + c;
        const A centre = norm.mean[channel], rstd = norm.rstd[channel];
        const A scale = norm.scale[channel];
        const A mean_g = t.training ? static_cast<A>(total[2 * channel]) / count : A(0);
        const A slope =
            t.training ? static_cast<A>(total[2 * channel + 1]) / count * rstd * rstd : A(0);
        A *d_row = d.get() + c * row, *masked_row = masked.get() + (through ? c * row : 0);
        for_each(r, k, c, [&](int64_t i, int lanes, Vec g, Vec y) {
          store_some(d_row + i, ((g - mean_g) - (y - centre) * slope) * scale, lanes);
          if (through) store_some(masked_row + i, g, lanes);
        });
      }
      const A* graph = heads.graph(n, k, graph_converted.get());
      gradients.add(slice, n, k, r.x, graph, d.get(), through ? masked.get() : nullptr, dx_head);
      if (want_x && !kInPlace) convert(dx_head, to, in_size);
    }
  });

  std::vector<A> along(channels), sums(channels);
  for (int64_t c = 0; c < channels; ++c) {
    sums[c] = static_cast<A>(total[2 * c]);
    along[c] = static_cast<A>(total[2 * c + 1] * norm.rstd[c]);
  }
  const auto of_norm = [&](int index, const Tensor& parameter, const std::vector<A>& values) {
    return wants(needs, index) ? gradient_of(parameter, values) : no_gradient(t.x);
  };
  return std::tuple_cat(std::make_tuple(dx),
                        gradients.finish(t.x, t.graph, t.weight, t.bias, t.virtuals),
                        std::make_tuple(of_norm(kNormWeight, t.norm_weight, along),
                                        of_norm(kNormBias, t.norm_bias, sums)));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> hypergraph_unit(
    Tensor x, Tensor A, Tensor weight, OptionalTensor bias, OptionalTensor virtuals,
    Tensor norm_weight, Tensor norm_bias, OptionalTensor running_mean, OptionalTensor running_var,
    bool residual, bool training, bool keep, double eps) {
  const UnitTensors t{x,           A,         weight,   bias,     virtuals,
                      norm_weight, norm_bias, residual, training, eps};
  return dispatch(x, "hypergraph_unit", [&](auto type) {
    return forward<decltype(type)>(t, running_mean, running_var, keep);
  });
}

Gradients hypergraph_unit_backward(Tensor grad, Tensor x, Tensor A, Tensor weight,
                                   OptionalTensor bias, OptionalTensor virtuals, Tensor norm_weight,
                                   Tensor norm_bias, OptionalTensor running_mean,
                                   OptionalTensor running_var, bool residual, bool training,
                                   bool keep, double eps, Tensor conv, Tensor mean, Tensor var,
                                   int64_t needs) {
  SKELOPS_CHECK(keep, "hypergraph_unit_backward", "keep");
  const UnitTensors t{x,           A,         weight,   bias,     virtuals,
                      norm_weight, norm_bias, residual, training, eps};
  return dispatch(x, "hypergraph_unit_backward", [&](auto type) {
    return backward<decltype(type)>(grad, t, conv, training ? mean : *running_mean,
                                    training ? var : *running_var, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("hypergraph_unit", TORCH_BOX(&hypergraph_unit));
  m.impl("hypergraph_unit_backward", TORCH_BOX(&hypergraph_unit_backward));
}

}  // namespace skelops
