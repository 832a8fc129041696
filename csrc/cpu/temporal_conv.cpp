// temporal_conv: an odd kernel over frames by short convolutions (cpu/short_conv.h). The gradient
// of x is a convolution of that of the result, for every frame of a stride one with its own taps;
// that of the weight sums products of gradients and inputs at the points.
#include <tuple>

#include "common/transpose.h"
#include "cpu/short_conv.h"

namespace skelops {
namespace {

// Columns that meet a weight at a time; gradients and channels that meet at all points at a time.
constexpr int64_t kColumns = 256, kGradients = 65536, kRows = 52;
// Sums of the gradient of a weight over slices of a batch: values of all of them, if that is
// enough slices.
constexpr int64_t kSums = 1048576, kFewSlices = 4;

FrameConv checked(const char* op, const Tensor& x, const Tensor& weight, int64_t stride) {
  SKELOPS_CHECK(x.dim() == 4 && x.size(1) > 0 && x.size(2) > 0, op, "x (N, C, T, V), C and T >= 1");
  SKELOPS_CHECK(weight.dim() == 3 && weight.size(0) > 0 && weight.size(1) == x.size(1) &&
                    weight.size(2) % 2 == 1 && weight.scalar_type() == x.scalar_type(),
                op, "weight (C', C, k), C' >= 1, k odd, of x's dtype");
  SKELOPS_CHECK(stride > 0, op, "stride >= 1");
  const int64_t taps = weight.size(2), frames = x.size(2);
  return {x.size(1), weight.size(0), taps, stride, taps / 2, frames, (frames - 1) / stride + 1,
          x.size(3)};
}

// Samples whose columns are no more than wanted.
int64_t samples_of(const FrameConv& f, int64_t wanted) {
  const int64_t columns = (f.frames + kTileFrames - 1) / kTileFrames * f.joints;
  return std::max<int64_t>(wanted / std::max<int64_t>(columns, 1), 1);
}

// The convolution of x (N, inputs, in_frames, V) with weight(output, input, tap). Its value of
// output o and frame t is that of channel place(o, t).first and frame place(o, t).second of the
// result (N, C, T, V), or of none if that frame is outside.
template <typename T, typename Weight, typename Place>
Tensor convolution(const FrameConv& f, const Tensor& x, const Weight& weight,
                   const std::vector<Accumulate<T>>& bias, int64_t channels, int64_t frames,
                   const Place& place) {
  using A = Accumulate<T>;
  const int64_t batch = x.size(0), row = frames * f.joints;
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {batch, channels, frames, f.joints});
  if (out.numel() == 0) return out;
  const ShortConv<A> one(f, 1);
  const Scratch<A> weights(kPoints * f.outputs * one.depth);
  one.weights(weight, weights.get());
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t together = std::clamp<int64_t>(batch / threads, 1, samples_of(f, kColumns));
  parallel((batch + together - 1) / together, [&](int64_t task) {
    const int64_t begin = task * together, count = std::min(together, batch - begin);
    const ShortConv<A> conv(f, count);
    const Scratch<A> converted(samples.scratch()), padded(conv.padded_size());
    const Scratch<A> panels(conv.panels_size());
    const Scratch<A> sums(kPoints * f.outputs * conv.width + Simd<A>::kLanes);
    const Scratch<A> result(samples.kInPlace ? 0 : channels * row);
    for (int64_t n = 0; n < count; ++n) {
      conv.pad(samples.get(begin + n, converted.get()), n, padded.get());
    }
    conv.multiply(weights.get(), padded.get(), panels.get(), sums.get());
    for (int64_t n = 0; n < count; ++n) {
      T* to = data<T>(out) + (begin + n) * channels * row;
      A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
      conv.frames_of(sums.get(), n, [&](int64_t o, int64_t t, int64_t v, auto values, int lanes) {
        if (!bias.empty()) values += bias[o];
        const auto [c, at] = place(o, t);
        if (at < 0 || at >= frames) return;
        store_some(y + c * row + at * f.joints + v, values, lanes);
      });
      if (!samples.kInPlace) convert(y, to, channels * row);
    }
  });
  return out;
}

// The gradient of x: of frame stride a + r of the padded x, it is that of channel (c, r) and
// frame a of a convolution of `grad` with every stride-th tap from r on, the last one first.
template <typename T>
Tensor gradient(const FrameConv& f, const Tensor& grad, const Tensor& weight) {
  const Parameter<Accumulate<T>> w{OptionalTensor(weight)};
  const int64_t last = (f.taps - 1) / f.stride, first = f.left / f.stride;
  const int64_t end = (f.left + f.in_frames - 1) / f.stride + 1;
  const FrameConv back{f.outputs, f.inputs * f.stride, last + 1, 1, last - first,
                       f.frames,  end - first,         f.joints};
  // Of every channel of the result: that of x, and its frame among a stride.
  std::vector<int64_t> channel_of(back.outputs), frame_of(back.outputs);
  for (int64_t i = 0; i < back.outputs; ++i) {
    channel_of[i] = i / f.stride, frame_of[i] = i % f.stride;
  }
  const auto at = [&](int64_t i, int64_t o, int64_t j) {
    const int64_t tap = (last - j) * f.stride + frame_of[i];
    return tap < f.taps ? w.data()[(o * f.inputs + channel_of[i]) * f.taps + tap] : 0;
  };
  const auto place = [&](int64_t i, int64_t a) {
    return std::pair(channel_of[i], (first + a) * f.stride + frame_of[i] - f.left);
  };
  return convolution<T>(back, grad, at, {}, f.inputs, f.in_frames, place);
}

// The gradient of the weight, (C', C, k).
template <typename T>
Tensor weight_gradient(const FrameConv& f, const Tensor& grad, const Tensor& x,
                       const Tensor& weight) {
  using A = Accumulate<T>;
  constexpr int64_t kWidth = 2 * Simd<A>::kLanes;
  const int64_t depth = ShortConv<A>(f, 1).depth, size = depth * f.outputs;
  const Samples<T> gradients(grad), samples(x);
  const int64_t values = f.taps * f.inputs * f.outputs;
  Slices slices(x.size(0));
  slices.count = std::min(slices.count, std::clamp(kSums / values, kFewSlices, kMaxSlices));
  Partials<A> partials(slices, values);
  parallel(slices.count, [&](int64_t slice) {
    const int64_t first = slices.begin(slice), last = slices.end(slice);
    const int64_t together = std::min(last - first, samples_of(f, kGradients / f.outputs));
    const ShortConv<A> most(f, together);
    const int64_t panels = (f.outputs + kWidth - 1) / kWidth;
    const Scratch<A> padded(most.padded_size()), rows(kPoints * kRows * most.width);
    const Scratch<A> found(kPoints * f.outputs * most.columns), sums(kPoints * size);
    const Scratch<A> across(kPoints * panels * most.columns * kWidth);
    const Scratch<A> converted(std::max(samples.scratch(), gradients.scratch()));
    for (int64_t begin = first; begin < last; begin += together) {
      const int64_t count = std::min(together, last - begin);
      const ShortConv<A> conv(f, count);
      const int64_t columns = conv.columns, width = conv.width;
      for (int64_t n = 0; n < count; ++n) {
        conv.pad(samples.get(begin + n, converted.get()), n, padded.get());
      }
      for (int64_t n = 0; n < count; ++n) {
        conv.gradients(gradients.get(begin + n, converted.get()), n, found.get());
      }
      for (int64_t i = 0; i < kPoints * panels; ++i) {
        const int64_t point = i / panels, o = i % panels * kWidth;
        transpose(found.get() + (point * f.outputs + o) * columns, std::min(kWidth, f.outputs - o),
                  columns, columns, across.get() + i * columns * kWidth, kWidth);
      }
      Product<A> p{};
      p.k = columns, p.a_row = width, p.a_col = 1;
      p.b_row = kWidth, p.c_row = f.outputs;
      p.accumulate = begin > first;
      for (int64_t r = 0; r < depth; r += kRows) {
        p.m = std::min(kRows, depth - r);
        conv.rows(r, p.m, padded.get(), 0, width / Simd<A>::kLanes, rows.get(), width,
                  kRows * width);
        for (int point = 0; point < kPoints; ++point) {
          p.a = rows.get() + point * kRows * width;
          for (int64_t panel = 0; panel < panels; ++panel) {
            p.n = std::min(kWidth, f.outputs - panel * kWidth);
            p.b = across.get() + (point * panels + panel) * columns * kWidth;
            p.c = sums.get() + point * size + r * f.outputs + panel * kWidth;
            multiply(p);
          }
        }
      }
    }
    A* to = partials.slice(slice);  // (C, k, C')
    for (int64_t r = 0; r < depth; ++r) {
      const A* from = sums.get() + r * f.outputs;
      for (int64_t j = 0; j < kGroupTaps; ++j) {
        most.tap_of(r, j, [&](int64_t c, int64_t tap) {
          A* sum = to + (c * f.taps + tap) * f.outputs;
          for (int64_t o = 0; o < f.outputs; ++o) {
            sum[o] = 0;
            for (int point = 0; point < kPoints; ++point) {
              sum[o] += from[point * size + o] * ShortConv<A>::kWeights[point][j];
            }
          }
        });
      }
    }
  });
  const std::vector<A> total = partials.total();
  std::vector<A> found(total.size());
  transpose(total.data(), f.inputs * f.taps, f.outputs, found.data());
  return gradient_of(weight, found);
}

template <typename T>
Tensor bias_gradient(const FrameConv& f, const Tensor& grad, const Tensor& bias) {
  using A = Accumulate<T>;
  const Samples<T> gradients(grad);
  const int64_t row = f.frames * f.joints;
  std::vector<A> sums(f.outputs);
  parallel(f.outputs, [&](int64_t o) {
    const Scratch<A> converted(gradients.scratch());
    typename Simd<A>::Vec sum = {};
    for (int64_t n = 0; n < grad.size(0); ++n) {
      const A* from = gradients.get(n, o * row, row, converted.get());
      vectors<A>(row, [&](int64_t i, int lanes) { sum += load_some(from + i, lanes); });
    }
    sums[o] = Simd<A>::sum(sum);
  });
  return gradient_of(bias, sums);
}

Tensor temporal_conv(Tensor x, Tensor weight, OptionalTensor bias, int64_t stride) {
  constexpr const char* op = "temporal_conv";
  const FrameConv f = checked(op, x, weight, stride);
  SKELOPS_CHECK(!bias.has_value() || bias->numel() == f.outputs, op, "bias (C',)");
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Parameter<A> w{OptionalTensor(weight)};
    const auto at = [&](int64_t o, int64_t c, int64_t j) {
      return w.data()[(o * f.inputs + c) * f.taps + j];
    };
    const auto place = [](int64_t o, int64_t t) { return std::pair(o, t); };
    return convolution<T>(f, x, at, parameter<A>(bias), f.outputs, f.frames, place);
  });
}

std::tuple<Tensor, Tensor, Tensor> temporal_conv_backward(Tensor grad, Tensor x, Tensor weight,
                                                          OptionalTensor bias, int64_t stride,
                                                          int64_t needs) {
  constexpr const char* op = "temporal_conv_backward";
  const FrameConv f = checked(op, x, weight, stride);
  SKELOPS_CHECK(grad.numel() == x.size(0) * f.outputs * f.frames * f.joints &&
                    grad.scalar_type() == x.scalar_type(),
                op, "a gradient (N, C', T', V) of x's dtype");
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    Tensor dx = no_gradient(x), dw = no_gradient(x), db = no_gradient(x);
    if (wants(needs, 0)) dx = gradient<T>(f, grad, weight);
    if (wants(needs, 1)) dw = weight_gradient<T>(f, grad, x, weight);
    if (wants(needs, 2)) db = bias_gradient<T>(f, grad, *bias);
    return std::tuple(dx, dw, db);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_backward", TORCH_BOX(&temporal_conv_backward));
}

}  // namespace skelops
