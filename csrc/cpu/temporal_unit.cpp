// temporal_unit: a convolution over frames as one product with (channel, tap) as its depth; a
// weight is read as it is stored, and the shifted frames are panels copied from the padded sample.
#include "common/gemm.h"
#include "common/parallel.h"
#include "cpu/unit.h"

namespace skelops {
namespace {

struct Shape {
  Shape(const Tensor& x, const TensorList& weight, int64_t taps, int64_t stride, int64_t dilation)
      : taps(taps), stride(stride), dilation(dilation) {
    constexpr const char* op = "temporal_unit";
    SKELOPS_CHECK(x.dim() == 4 && x.size(1) > 0 && x.size(2) > 0, op, "x (N, C, T, V), T >= 1");
    SKELOPS_CHECK(taps > 0 && taps % 2 == 1 && stride > 0 && dilation > 0, op,
                  "an odd kernel, stride and dilation >= 1");
    batch = x.size(0), inputs = x.size(1), frames = x.size(2), joints = x.size(3);
    depth = inputs * taps;
    SKELOPS_CHECK(numel(weight) % depth == 0, op, "weight of shape (C', C, k)");
    channels = numel(weight) / depth;
    pad = dilation * (taps / 2);
    out_frames = (frames - 1) / stride + 1;
    phase_frames = (frames + 2 * pad + stride - 1) / stride;
  }

  bool in_place() const { return taps == 1 && stride == 1; }
  int64_t row() const { return out_frames * joints; }
  int64_t phase() const { return phase_frames * joints; }
  int64_t padded() const { return in_place() ? 0 : inputs * stride * phase(); }

  // Channel blocks that the samples are shared out by if they are fewer than the threads.
  int64_t groups() const {
    const int64_t threads = torch::stable::get_num_threads();
    if (batch == 0 || batch >= threads) return 1;
    const int64_t blocks = (channels + kAccumulatorRows - 1) / kAccumulatorRows;
    return std::clamp<int64_t>((threads + batch - 1) / batch, 1, std::max<int64_t>(blocks, 1));
  }

  int64_t taps, stride, dilation, batch, inputs, frames, joints, depth, channels, pad;
  int64_t out_frames, phase_frames;
};

// x (C, T, V) between frames of zeros, every stride-th frame together: (C, stride, frames, V).
template <typename A>
void pad_frames(const Shape& s, const A* x, A* padded) {
  std::fill_n(padded, s.padded(), A(0));
  for (int64_t c = 0; c < s.inputs; ++c) {
    A* to = padded + c * s.stride * s.phase();
    for (int64_t t = s.pad; t < s.pad + s.frames; ++t, x += s.joints) {
      std::copy_n(x, s.joints, to + t % s.stride * s.phase() + t / s.stride * s.joints);
    }
  }
}

template <typename T>
Tensor forward(const Tensor& x, const Shape& s, const Tensor& weight_, const OptionalTensor& bias_,
               const Tail<T>& tail) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Parameter<A> weight{OptionalTensor(weight_)};
  const std::vector<A> bias = parameter<A>(bias_);
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {s.batch, s.channels, s.out_frames, s.joints});
  const int64_t row = s.row(), groups = s.groups(), channel = s.stride * s.phase();
  parallel(s.batch * groups, [&](int64_t task) {
    const int64_t n = task / groups, group = task % groups;
    const int64_t first = group * s.channels / groups, last = (group + 1) * s.channels / groups;
    const Scratch<A> converted(samples.scratch()), padded(s.padded());
    const Scratch<A> panel(kPanelRows<A> * 2 * S::kLanes);
    const Scratch<A> result(samples.kInPlace ? 0 : (last - first) * row);
    const A* in = samples.get(n, converted.get());
    if (!s.in_place()) pad_frames(s, in, padded.get());
    T* to = data<T>(out) + (n * s.channels + first) * row;
    A* z = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
    Product<A> p{};
    p.m = last - first, p.n = row, p.k = s.depth;
    p.a = weight.data() + first * s.depth, p.a_row = s.depth, p.a_col = 1;
    p.c = z, p.c_row = row;
    p.row_init = bias.empty() ? nullptr : bias.data() + first;
    if (s.in_place()) {
      p.b = in, p.b_row = row;
      multiply(p);
    } else {
      multiply_panels(
          p, panel.get(), [&](int64_t begin, int64_t count, int64_t column, int64_t width, A* to) {
            int64_t c = begin / s.taps, j = begin % s.taps;
            for (int64_t i = 0; i < count; ++i, to += 2 * S::kLanes) {
              const int64_t frame = j * s.dilation;
              const A* b = padded.get() + c * channel + frame % s.stride * s.phase() +
                           frame / s.stride * s.joints + column;
              vectors<A>(width,
                         [&](int64_t l, int lanes) { S::store(to + l, load_some(b + l, lanes)); });
              if (++j == s.taps) j = 0, ++c;
            }
          });
    }
    tail.apply(n, first, last - first, z);
    if (!samples.kInPlace) convert(z, to, (last - first) * row);
  });
  return out;
}

Tensor temporal_unit(Tensor x, TensorList weight, TensorList bias, int64_t kernel_size,
                     int64_t stride, int64_t dilation, TensorList norm, OptionalTensor residual,
                     bool relu, double eps) {
  constexpr const char* op = "temporal_unit";
  const Shape s(x, weight, kernel_size, stride, dilation);
  const Tensor w = joined(op, weight, {s.channels, s.inputs, s.taps});
  OptionalTensor b;
  if (!bias.empty()) b = joined(op, bias, {s.channels});
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    const TailTensors end{norm, residual, relu, eps};
    const Tail<T> tail(op, x, end, s.batch, s.channels, s.row());
    return forward<T>(x, s, w, b, tail);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("temporal_unit", TORCH_BOX(&temporal_unit)); }

}  // namespace skelops
