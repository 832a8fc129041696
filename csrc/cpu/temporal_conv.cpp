// temporal_conv: an odd kernel over frames by short convolutions (cpu/short_conv.h). The gradient
// of x is a convolution with the transposed and reversed weight; that of the weight sums products
// of gradients and inputs at the points.
#include <tuple>

#include "common/transpose.h"
#include "cpu/short_conv.h"

namespace skelops {
namespace {

// Columns that meet a weight at a time: those of the weight's gradient, which is as large as all
// weights, are more.
constexpr int64_t kColumns = 128, kGradientColumns = 384, kRows = 52;

struct Sizes {
  int64_t batch, inputs, outputs, taps, frames, joints;
};

Sizes checked(const char* op, const Tensor& x, const Tensor& weight) {
  SKELOPS_CHECK(x.dim() == 4 && x.size(1) > 0, op, "x (N, C, T, V), C >= 1");
  SKELOPS_CHECK(weight.dim() == 3 && weight.size(0) > 0 && weight.size(1) == x.size(1) &&
                    weight.size(2) % 2 == 1 && weight.scalar_type() == x.scalar_type(),
                op, "weight (C', C, k), C' >= 1, k odd, of x's dtype");
  return {x.size(0), x.size(1), weight.size(0), weight.size(2), x.size(2), x.size(3)};
}

// The convolution of x (N, inputs, T, V) with weight(output, input, tap).
template <typename T, typename F>
Tensor convolution(const Sizes& s, const Tensor& x, const F& weight,
                   const std::vector<Accumulate<T>>& bias) {
  using A = Accumulate<T>;
  using V = Simd<A>;
  const ShortConv<A> conv(s.inputs, s.outputs, s.taps, s.frames, s.joints);
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {s.batch, s.outputs, s.frames, s.joints});
  if (out.numel() == 0) return out;
  const Scratch<A> weights(kPoints * s.outputs * conv.depth);
  conv.weights(weight, weights.get());
  const int64_t together = conv.together(s.batch, kColumns), row = s.frames * s.joints;
  parallel((s.batch + together - 1) / together, [&](int64_t task) {
    const int64_t begin = task * together, count = std::min(together, s.batch - begin);
    const int64_t width = count * conv.columns;
    const Scratch<A> converted(samples.scratch()), padded(count * conv.padded_size());
    const Scratch<A> panel(ShortConv<A>::kPanels), sums(kPoints * s.outputs * width + V::kLanes);
    const Scratch<A> result(samples.kInPlace ? 0 : s.outputs * row);
    for (int64_t n = 0; n < count; ++n) {
      conv.pad(samples.get(begin + n, converted.get()), padded.get() + n * conv.padded_size());
    }
    conv.multiply(weights.get(), padded.get(), conv.vectors_of(count), panel.get(), sums.get());
    for (int64_t n = 0; n < count; ++n) {
      T* to = data<T>(out) + (begin + n) * s.outputs * row;
      A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
      conv.frames_of(sums.get() + n * conv.columns, width,
                     [&](int64_t o, int64_t t, int64_t v, auto values, int lanes) {
                       if (!bias.empty()) values += bias[o];
                       store_some(y + o * row + t * s.joints + v, values, lanes);
                     });
      if (!samples.kInPlace) convert(y, to, s.outputs * row);
    }
  });
  return out;
}

// The gradient of the weight, (C', C, k).
template <typename T>
Tensor weight_gradient(const Sizes& s, const Tensor& grad, const Tensor& x, const Tensor& weight) {
  using A = Accumulate<T>;
  using V = Simd<A>;
  const ShortConv<A> conv(s.inputs, s.outputs, s.taps, s.frames, s.joints);
  const Samples<T> gradients(grad), samples(x);
  const Slices slices(s.batch);
  const int64_t taps = s.taps, size = conv.depth * s.outputs;
  Partials<A> partials(slices, taps * s.inputs * s.outputs);
  parallel(slices.count, [&](int64_t slice) {
    const int64_t first = slices.begin(slice), last = slices.end(slice);
    const int64_t together =
        std::clamp<int64_t>(kGradientColumns / std::max<int64_t>(conv.columns, 1), 1, last - first);
    const int64_t most = together * conv.columns;
    const Scratch<A> padded(together * conv.padded_size());
    const Scratch<A> rows(kPoints * kRows * most), sums(kPoints * size);
    const Scratch<A> converted(std::max(samples.scratch(), gradients.scratch()));
    const Scratch<A> found(s.outputs * conv.columns), across(kPoints * s.outputs * most);
    for (int64_t begin = first; begin < last; begin += together) {
      const int64_t count = std::min(together, last - begin), width = count * conv.columns;
      const std::vector<int64_t> vector = conv.vectors_of(count);
      for (int64_t n = 0; n < count; ++n) {
        conv.pad(samples.get(begin + n, converted.get()), padded.get() + n * conv.padded_size());
      }
      for (int64_t n = 0; n < count; ++n) {
        const A* dy = gradients.get(begin + n, converted.get());
        for (int point = 0; point < kPoints; ++point) {
          conv.gradients(point, dy, found.get());
          transpose(found.get(), s.outputs, conv.columns,
                    across.get() + (point * width + n * conv.columns) * s.outputs);
        }
      }
      Product<A> p{};
      p.n = s.outputs, p.k = width, p.a_row = width, p.a_col = 1;
      p.b_row = s.outputs, p.c_row = s.outputs;
      p.accumulate = begin > first;
      for (int64_t r = 0; r < conv.depth; r += kRows) {
        p.m = std::min(kRows, conv.depth - r);
        conv.rows(r, p.m, padded.get(), vector.data(), width / V::kLanes, rows.get(), width,
                  kRows * width);
        for (int point = 0; point < kPoints; ++point) {
          p.a = rows.get() + point * kRows * width;
          p.b = across.get() + point * width * s.outputs;
          p.c = sums.get() + point * size + r * s.outputs;
          multiply(p);
        }
      }
    }
    A* to = partials.slice(slice);  // (k, C, C')
    for (int64_t r = 0; r < conv.depth; ++r) {
      const int64_t group = r / s.inputs, c = r % s.inputs;
      for (int64_t j = 0; j < kGroupTaps && group * kGroupTaps + j < taps; ++j) {
        A* tap = to + ((group * kGroupTaps + j) * s.inputs + c) * s.outputs;
        const A* from = sums.get() + r * s.outputs;
        for (int64_t o = 0; o < s.outputs; ++o) {
          A sum = 0;
          for (int point = 0; point < kPoints; ++point) {
            sum += from[point * size + o] * ShortConv<A>::kWeights[point][j];
          }
          tap[o] = sum;
        }
      }
    }
  });
  const std::vector<A> total = partials.total();
  std::vector<A> found(total.size());
  parallel(s.outputs, [&](int64_t o) {
    for (int64_t c = 0; c < s.inputs; ++c) {
      for (int64_t j = 0; j < taps; ++j) {
        found[(o * s.inputs + c) * taps + j] = total[(j * s.inputs + c) * s.outputs + o];
      }
    }
  });
  return gradient_of(weight, found);
}

template <typename T>
Tensor bias_gradient(const Sizes& s, const Tensor& grad, const Tensor& bias) {
  using A = Accumulate<T>;
  const Samples<T> gradients(grad);
  const int64_t row = s.frames * s.joints;
  std::vector<A> sums(s.outputs);
  parallel(s.outputs, [&](int64_t o) {
    const Scratch<A> converted(gradients.scratch());
    typename Simd<A>::Vec sum = {};
    for (int64_t n = 0; n < s.batch; ++n) {
      const A* from = gradients.get(n, o * row, row, converted.get());
      vectors<A>(row, [&](int64_t i, int lanes) { sum += load_some(from + i, lanes); });
    }
    sums[o] = Simd<A>::sum(sum);
  });
  return gradient_of(bias, sums);
}

Tensor temporal_conv(Tensor x, Tensor weight, OptionalTensor bias) {
  constexpr const char* op = "temporal_conv";
  const Sizes s = checked(op, x, weight);
  SKELOPS_CHECK(!bias.has_value() || bias->numel() == s.outputs, op, "bias (C',)");
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Parameter<A> w{OptionalTensor(weight)};
    const auto at = [&](int64_t o, int64_t c, int64_t j) {
      return w.data()[(o * s.inputs + c) * s.taps + j];
    };
    return convolution<T>(s, x, at, parameter<A>(bias));
  });
}

std::tuple<Tensor, Tensor, Tensor> temporal_conv_backward(Tensor grad, Tensor x, Tensor weight,
                                                          OptionalTensor bias, int64_t needs) {
  constexpr const char* op = "temporal_conv_backward";
  const Sizes s = checked(op, x, weight);
  SKELOPS_CHECK(grad.numel() == s.batch * s.outputs * s.frames * s.joints &&
                    grad.scalar_type() == x.scalar_type(),
                op, "a gradient (N, C', T, V) of x's dtype");
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    Tensor dx = no_gradient(x), dw = no_gradient(x), db = no_gradient(x);
    if (wants(needs, 0)) {
      const Parameter<Accumulate<T>> w{OptionalTensor(weight)};
      const auto at = [&](int64_t c, int64_t o, int64_t j) {
        return w.data()[(o * s.inputs + c) * s.taps + s.taps - 1 - j];
      };
      const Sizes back{s.batch, s.outputs, s.inputs, s.taps, s.frames, s.joints};
      dx = convolution<T>(back, grad, at, {});
    }
    if (wants(needs, 1)) dw = weight_gradient<T>(s, grad, x, weight);
    if (wants(needs, 2)) db = bias_gradient<T>(s, grad, *bias);
    return std::tuple(dx, dw, db);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_backward", TORCH_BOX(&temporal_conv_backward));
}

}  // namespace skelops
