// narrow_ffn: a block of rows meets a chunk of hidden units at a time, in the first-level cache.
#include <algorithm>
#include <tuple>

#include "common/dropout.h"
#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr int64_t kRows = 64;
constexpr int64_t kUnits = Dropout::kUnits;  // at a time

struct Sizes {
  int64_t rows, channels, hidden;
  int64_t blocks() const { return (rows + kRows - 1) / kRows; }
};

// Weights as the products read them.
template <typename A>
struct Weights {
  Weights(const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, const Sizes& s)
      : w1(w1),
        w2(w2),
        b1(parameter<A>(b1)),
        b2(parameter<A>(b2)),
        columns1(s.hidden * s.channels) {
    for (int64_t j = 0; j < s.hidden; ++j) {
      for (int64_t c = 0; c < s.channels; ++c) {
        columns1[c * s.hidden + j] = this->w1.data()[j * s.channels + c];
      }
    }
  }

  Parameter<A> w1, w2;  // (H, C), (C, H)
  std::vector<A> b1, b2;
  std::vector<A> columns1;  // (C, H)
};

// Hidden units [begin, begin + width) of `rows` rows of x, in front of their rectifier.
template <typename A>
void hidden_units(const A* x, int64_t rows, const Weights<A>& w, const Sizes& s, int64_t begin,
                  int64_t width, A* h) {
  multiply<A>({.m = rows,
               .n = width,
               .k = s.channels,
               .a = x,
               .a_row = s.channels,
               .a_col = 1,
               .b = w.columns1.data() + begin,
               .b_row = s.hidden,
               .c = h,
               .c_row = kUnits,
               .init = w.b1.data() + begin,
               .init_row = 0});
}

Sizes sizes_of(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2,
               const Tensor& b2) {
  const bool fits = x.dim() == 2 && w1.dim() == 2 && w1.size(1) == x.size(1) && w2.dim() == 2 &&
                    w2.size(0) == x.size(1) && w2.size(1) == w1.size(0) &&
                    b1.numel() == w1.size(0) && b2.numel() == x.size(1);
  SKELOPS_CHECK(fits, "narrow_ffn", "x (N, C), w1 (H, C), b1 (H,), w2 (C, H), b2 (C,)");
  return {x.size(0), x.size(1), w1.size(0)};
}

template <typename T>
Tensor forward(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2,
               const Tensor& b2, const Dropout& dropout, const Sizes& s) {
  using A = Accumulate<T>;
  const Tensor rows = as_contiguous(x);
  const Weights<A> w(w1, b1, w2, b2, s);
  std::vector<A> columns2(s.hidden * s.channels);  // (H, C)
  for (int64_t c = 0; c < s.channels; ++c) {
    for (int64_t j = 0; j < s.hidden; ++j) {
      columns2[j * s.channels + c] = w.w2.data()[c * s.hidden + j];
    }
  }
  Tensor out = new_tensor<T>(x, {s.rows, s.channels});
  parallel(s.blocks(), [&](int64_t block) {
    const int64_t first = block * kRows, count = std::min(kRows, s.rows - first);
    const int64_t values = count * s.channels;
    const Scratch<A> in(values), y(values), h(kRows * kUnits);
    A factor[kUnits];
    std::fill_n(factor, kUnits, A(1));
    convert(data<T>(rows) + first * s.channels, in.get(), values);
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(w.b2.data(), s.channels, y.get() + r * s.channels);
    }
    for (int64_t begin = 0; begin < s.hidden; begin += kUnits) {
      const int64_t width = std::min(kUnits, s.hidden - begin);
      hidden_units(in.get(), count, w, s, begin, width, h.get());
      for (int64_t r = 0; r < count; ++r) {
        if (dropout.active) dropout.factors(first + r, begin, factor);
        A* unit = h.get() + r * kUnits;
        for (int64_t j = 0; j < width; ++j) {
          unit[j] = unit[j] < 0 || factor[j] == 0 ? A(0) : factor[j] * unit[j];  // NaN stays
        }
      }
      multiply<A>({.m = count,
                   .n = s.channels,
                   .k = width,
                   .a = h.get(),
                   .a_row = kUnits,
                   .a_col = 1,
                   .b = columns2.data() + begin * s.channels,
                   .b_row = s.channels,
                   .c = y.get(),
                   .c_row = s.channels,
                   .accumulate = true});
    }
    convert(y.get(), data<T>(out) + first * s.channels, values);
  });
  return out;
}

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& x, const Tensor& w1, const Tensor& b1,
                   const Tensor& w2, const Tensor& b2, const Dropout& dropout, const Sizes& s,
                   int64_t needs) {
  using A = Accumulate<T>;
  const bool want_x = wants(needs, 0), want_w1 = wants(needs, 1), want_b1 = wants(needs, 2);
  const bool want_w2 = wants(needs, 3), want_b2 = wants(needs, 4);
  const Tensor rows = as_contiguous(x), grads = as_contiguous(grad);
  const Weights<A> w(w1, b1, w2, b2, s);
  Tensor dx = want_x ? new_tensor<T>(x, {s.rows, s.channels}) : no_gradient(x);
  const int64_t weights = s.hidden * s.channels;
  const Slices slices(s.blocks());
  Partials<A> dw1(slices, want_w1 ? weights : 0), db1(slices, want_b1 ? s.hidden : 0);
  Partials<A> dw2(slices, want_w2 ? weights : 0), db2(slices, want_b2 ? s.channels : 0);  // (C, H)
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> in(kRows * s.channels), out(kRows * s.channels), sums(kRows * s.channels);
    const Scratch<A> h(kRows * kUnits), dh(kRows * kUnits);
    A factor[kUnits];
    std::fill_n(factor, kUnits, A(1));
    for (int64_t block = slices.begin(slice); block < slices.end(slice); ++block) {
      const int64_t first = block * kRows, count = std::min(kRows, s.rows - first);
      const int64_t values = count * s.channels;
      convert(data<T>(rows) + first * s.channels, in.get(), values);
      convert(data<T>(grads) + first * s.channels, out.get(), values);
      std::fill_n(sums.get(), values, A(0));
      for (int64_t r = 0; want_b2 && r < count; ++r) {
        A* sum = db2.slice(slice);
        for (int64_t c = 0; c < s.channels; ++c) sum[c] += out[r * s.channels + c];
      }
      for (int64_t begin = 0; begin < s.hidden; begin += kUnits) {
        const int64_t width = std::min(kUnits, s.hidden - begin);
        hidden_units(in.get(), count, w, s, begin, width, h.get());
        multiply<A>({.m = count,
                     .n = width,
                     .k = s.channels,
                     .a = out.get(),
                     .a_row = s.channels,
                     .a_col = 1,
                     .b = w.w2.data() + begin,
                     .b_row = s.hidden,
                     .c = dh.get(),
                     .c_row = kUnits});
        A* bias = want_b1 ? db1.slice(slice) + begin : nullptr;
        for (int64_t r = 0; r < count; ++r) {
          if (dropout.active) dropout.factors(first + r, begin, factor);
          A *unit = h.get() + r * kUnits, *slope = dh.get() + r * kUnits;
          for (int64_t j = 0; j < width; ++j) {
            slope[j] = unit[j] <= 0 || factor[j] == 0 ? A(0) : factor[j] * slope[j];
            unit[j] = unit[j] < 0 || factor[j] == 0 ? A(0) : factor[j] * unit[j];
          }
          for (int64_t j = 0; want_b1 && j < width; ++j) bias[j] += slope[j];
        }
        // rows^T units, into the gradient of a weight.
        const auto outer = [&](const A* of_rows, const A* units, A* sum) {
          multiply<A>({.m = s.channels,
                       .n = width,
                       .k = count,
                       .a = of_rows,
                       .a_row = 1,
                       .a_col = s.channels,
                       .b = units,
                       .b_row = kUnits,
                       .c = sum + begin,
                       .c_row = s.hidden,
                       .accumulate = true});
        };
        if (want_w1) outer(in.get(), dh.get(), dw1.slice(slice));
        if (want_w2) outer(out.get(), h.get(), dw2.slice(slice));
        if (want_x) {
          multiply<A>({.m = count,
                       .n = s.channels,
                       .k = width,
                       .a = dh.get(),
                       .a_row = kUnits,
                       .a_col = 1,
                       .b = w.w1.data() + begin * s.channels,
                       .b_row = s.channels,
                       .c = sums.get(),
                       .c_row = s.channels,
                       .accumulate = true});
        }
      }
      if (want_x) convert(sums.get(), data<T>(dx) + first * s.channels, values);
    }
  });
  const auto gradient = [&](bool wanted, const Tensor& of, Partials<A>& sum) {
    return wanted ? gradient_of(of, sum.total()) : no_gradient(x);
  };
  Tensor first = no_gradient(x);
  if (want_w1) {
    const std::vector<A> total = dw1.total();
    std::vector<A> rows_of_units(weights);
    for (int64_t j = 0; j < s.hidden; ++j) {
      for (int64_t c = 0; c < s.channels; ++c) {
        rows_of_units[j * s.channels + c] = total[c * s.hidden + j];
      }
    }
    first = gradient_of(w1, rows_of_units);
  }
  return {dx, first, gradient(want_b1, b1, db1), gradient(want_w2, w2, dw2),
          gradient(want_b2, b2, db2)};
}

Tensor narrow_ffn(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, OptionalTensor seed,
                  int64_t dropped) {
  const Sizes s = sizes_of(x, w1, b1, w2, b2);
  const Dropout dropout(seed, dropped);
  return dispatch(x, "narrow_ffn", [&](auto type) {
    return forward<decltype(type)>(x, w1, b1, w2, b2, dropout, s);
  });
}

Gradients narrow_ffn_backward(Tensor grad, Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2,
                              OptionalTensor seed, int64_t dropped, int64_t needs) {
  const Sizes s = sizes_of(x, w1, b1, w2, b2);
  SKELOPS_CHECK(grad.numel() == x.numel(), "narrow_ffn_backward", "grad (N, C)");
  const Dropout dropout(seed, dropped);
  return dispatch(x, "narrow_ffn_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, w1, b1, w2, b2, dropout, s, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("narrow_ffn", TORCH_BOX(&narrow_ffn));
  m.impl("narrow_ffn_backward", TORCH_BOX(&narrow_ffn_backward));
}

}  // namespace skelops
