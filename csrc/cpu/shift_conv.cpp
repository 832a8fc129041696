// shift_conv: columns (t, pixel) of all channels are gathered into cache, each channel from its own
// frame, and meet the weights there.
#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "cpu/shift.h"

namespace skelops {
namespace {

struct Shape {
  Shape(const char* op, const Tensor& x, const Tensor& weight, int64_t fold) {
    SKELOPS_CHECK(x.dim() >= 3 && weight.dim() == 2 && weight.size(1) == x.size(1), op,
                  "x (N, C, T, ...) and weight (C', C)");
    SKELOPS_CHECK(fold >= 0 && 2 * fold <= x.size(1), op, "fold of at most C / 2");
    batch = x.size(0), inputs = x.size(1), outputs = weight.size(0);
    frame = 1;
    for (int64_t i = 3; i < x.dim(); ++i) frame *= x.size(i);
    row = x.size(2) * frame;
    shift = {fold, frame, row};
    // Columns of both sides stay in the second-level cache; whole panels of the product.
    constexpr int64_t kElements = 48 * 1024, kPanel = 32;
    const int64_t fit = kElements / std::max<int64_t>(inputs + outputs, 1) / kPanel * kPanel;
    block = std::clamp<int64_t>(fit, kPanel, 1024);
    blocks = (row + block - 1) / block;
  }

  TemporalShift shift;
  int64_t batch, inputs, outputs, frame, row, block, blocks;
};

// Columns of one sample that a task works on.
struct Columns {
  Columns(const Shape& shape, int64_t task)
      : sample(task / shape.blocks),
        begin(task % shape.blocks * shape.block),
        count(std::min(shape.block, shape.row - begin)) {}
  int64_t sample, begin, count;
};

// Back to where they came from; values of x that no column shows get zero.
template <typename T>
void scatter(const Shape& s, const Columns& at, const Accumulate<T>* columns, T* x) {
  const bool first = at.begin == 0, last = at.begin + at.count == s.row;
  for (int64_t c = 0; c < s.inputs; ++c) {
    const int64_t step = s.shift.step(c), to = at.begin + step;
    const int64_t low = std::clamp<int64_t>(-to, 0, at.count);
    const int64_t high = std::clamp<int64_t>(s.row - to, low, at.count);
    T* channel = x + c * s.row;
    if (step > 0 && first) std::fill_n(channel, s.frame, T(0));
    convert(columns + c * at.count + low, channel + to + low, high - low);
    if (step < 0 && last) std::fill_n(channel + s.row - s.frame, s.frame, T(0));
  }
}

template <typename T>
Tensor forward(const Tensor& x, const Tensor& weight, const Shape& s) {
  using A = Accumulate<T>;
  const Parameter<A> w(weight);
  const Samples<T> samples(x);
  auto shape = x.sizes().vec();
  shape[1] = s.outputs;
  Tensor out = new_tensor<T>(x, shape);
  if (out.numel() == 0) return out;
  parallel(s.batch * s.blocks, [&](int64_t task) {
    const Columns at(s, task);
    const Scratch<A> columns(s.inputs * at.count);
    const Scratch<A> result(samples.kInPlace ? 0 : s.outputs * at.count);
    s.shift.gather(samples.raw(at.sample), s.inputs, at.begin, at.count, columns.get());
    T* to = data<T>(out) + at.sample * s.outputs * s.row + at.begin;
    Product<A> p{};
    p.m = s.outputs, p.n = at.count, p.k = s.inputs;
    p.a = w.data(), p.a_row = s.inputs, p.a_col = 1;
    p.b = columns.get(), p.b_row = at.count;
    p.c = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
    p.c_row = samples.kInPlace ? s.row : at.count;
    multiply(p);
    for (int64_t c = 0; !samples.kInPlace && c < s.outputs; ++c) {
      convert(result.get() + c * at.count, to + c * s.row, at.count);
    }
  });
  return out;
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                    const Shape& s, int64_t needs) {
  using A = Accumulate<T>;
  const bool want_x = wants(needs, 0), want_weight = wants(needs, 1);
  const Parameter<A> w(weight);
  const Samples<T> samples(x), grads(grad);
  Tensor dx = want_x ? new_tensor<T>(x, x.sizes().vec()) : no_gradient(x);
  const Slices slices(s.batch * s.blocks);
  Partials<A> dweight(slices, want_weight ? s.outputs * s.inputs : 0);
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> g(s.outputs * s.block), columns(s.inputs * s.block);
    const Scratch<A> rows(want_weight ? s.block * s.inputs : 0);
    for (int64_t task = slices.begin(slice); task < slices.end(slice); ++task) {
      const Columns at(s, task);
      const T* g_from = grads.raw(at.sample) + at.begin;
      for (int64_t c = 0; c < s.outputs; ++c) {
        convert(g_from + c * s.row, g.get() + c * at.count, at.count);
      }
      if (want_weight) {
        s.shift.gather(samples.raw(at.sample), s.inputs, at.begin, at.count, columns.get());
        transpose(columns.get(), s.inputs, at.count, rows.get());
        Product<A> p{};
        p.m = s.outputs, p.n = s.inputs, p.k = at.count;
        p.a = g.get(), p.a_row = at.count, p.a_col = 1;
        p.b = rows.get(), p.b_row = s.inputs;
        p.c = dweight.slice(slice), p.c_row = s.inputs;
        p.accumulate = true;
        multiply(p);
      }
      if (want_x) {
        Product<A> p{};
        p.m = s.inputs, p.n = at.count, p.k = s.outputs;
        p.a = w.data(), p.a_row = 1, p.a_col = s.inputs;
        p.b = g.get(), p.b_row = at.count;
        p.c = columns.get(), p.c_row = at.count;
        multiply(p);
        scatter(s, at, columns.get(), data<T>(dx) + at.sample * s.inputs * s.row);
      }
    }
  });
  return {dx, want_weight ? gradient_of(weight, dweight.total()) : no_gradient(x)};
}

Tensor shift_conv(Tensor x, Tensor weight, int64_t fold) {
  const Shape s("shift_conv", x, weight, fold);
  return dispatch(x, "shift_conv",
                  [&](auto type) { return forward<decltype(type)>(x, weight, s); });
}

std::tuple<Tensor, Tensor> shift_conv_backward(Tensor grad, Tensor x, Tensor weight, int64_t fold,
                                               int64_t needs) {
  const Shape s("shift_conv_backward", x, weight, fold);
  return dispatch(x, "shift_conv_backward",
                  [&](auto type) { return backward<decltype(type)>(grad, x, weight, s, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("shift_conv", TORCH_BOX(&shift_conv));
  m.impl("shift_conv_backward", TORCH_BOX(&shift_conv_backward));
}

}  // namespace skelops
