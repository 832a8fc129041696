// mlp: a block of rows meets a chunk of hidden units at a time in the second-level cache. The
// backward computes the hidden units again, then the gradients of the weights over all rows.
#include <tuple>

#include "cpu/panels.h"
#include "math/gelu.h"

namespace skelops {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

constexpr const char* kOp = "mlp";

struct Sizes {
  int64_t rows, channels, hidden;
};

Sizes checked(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2,
              const Tensor& b2) {
  const bool fits = x.dim() == 2 && w1.dim() == 2 && w1.size(1) == x.size(1) && w2.dim() == 2 &&
                    w2.size(0) == x.size(1) && w2.size(1) == w1.size(0) &&
                    b1.numel() == w1.size(0) && b2.numel() == x.size(1);
  SKELOPS_CHECK(fits, kOp, "x (N, C), w1 (H, C), b1 (H,), w2 (C, H), b2 (C,)");
  const auto type = x.scalar_type();
  SKELOPS_CHECK(w1.scalar_type() == type && w2.scalar_type() == type, kOp, "weights of x's dtype");
  return {x.size(0), x.size(1), w1.size(0)};
}

template <typename A>
constexpr int64_t kUnits = Panels<A>::kDepth;  // of a chunk

// function(first unit, units) for the chunks of the hidden units.
template <typename A, typename F>
void for_each_chunk(int64_t hidden, const F& function) {
  for (int64_t unit = 0; unit < hidden; unit += kUnits<A>) {
    function(unit, std::min(kUnits<A>, hidden - unit));
  }
}

// Rows are no power of two apart, so that they spread over the sets of a cache.
template <typename A>
int64_t pitch(int64_t width) {
  return width + Simd<A>::kLanes;
}

// A block of rows of a matrix (N, width).
template <typename A, typename T>
Scratch<A> block_of(const T* matrix, int64_t row, int64_t rows, int64_t width) {
  Scratch<A> block(rows * pitch<A>(width));
  rows_of<A>(matrix, width)(row, rows, 0, width, pitch<A>(width), block.get());
  return block;
}

template <typename T>
Tensor forward(const Sizes& s, const Tensor& x_, const Tensor& w1, const Tensor& b1_,
               const Tensor& w2, const Tensor& b2_) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Tensor x = as_contiguous(x_);
  const Parameter<A> b1(b1_), b2(b2_);
  Panels<A> first(s.channels, s.hidden), second(s.hidden, s.channels);
  first.copy_transposed(data<T>(as_contiguous(w1)));
  second.copy_transposed(data<T>(as_contiguous(w2)));
  Tensor y = new_tensor<T>(x, {s.rows, s.channels});
  for_each_block(s.rows, [&](int64_t row, int64_t rows) {
    const int64_t h_row = pitch<A>(kUnits<A>);
    const Scratch<A> in = block_of<A>(data<T>(x), row, rows, s.channels), h(rows * h_row);
    const Sums<A, T> out(data<T>(y) + row * s.channels, rows * s.channels);
    for_each_chunk<A>(s.hidden, [&](int64_t unit, int64_t units) {
      first.multiply_columns(unit, units,
                             {.m = rows,
                              .a = in.get(),
                              .a_row = pitch<A>(s.channels),
                              .a_col = 1,
                              .c = h.get(),
                              .c_row = h_row,
                              .init = b1.data() + unit});
      for (int64_t i = 0; i < rows; ++i) {
        A* of_row = h.get() + i * h_row;
        vectors<A>(units, [&](int64_t j, int lanes) {
          const auto z = S::load(of_row + j, lanes);
          S::store(of_row + j, z * normal(z).below, lanes);
        });
      }
      second.multiply_rows(unit, units,
                           {.m = rows,
                            .a = h.get(),
                            .a_row = h_row,
                            .a_col = 1,
                            .c = out.get(),
                            .c_row = s.channels,
                            .accumulate = unit > 0,
                            .init = b2.data()});
    });
    out.finish();
  });
  return y;
}

template <typename T>
Gradients backward(const Sizes& s, const Tensor& grad_, const Tensor& x_, const Tensor& w1_,
                   const Tensor& b1_, const Tensor& w2_, const Tensor& b2, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Tensor grad = as_contiguous(grad_), x = as_contiguous(x_);
  SKELOPS_CHECK(grad.numel() == s.rows * s.channels && grad.scalar_type() == kScalarType<T>,
                "mlp_backward", "a gradient (N, C) of x's dtype");
  const Tensor w1 = as_contiguous(w1_), w2 = as_contiguous(w2_);
  const T *in = data<T>(x), *out = data<T>(grad);
  const Parameter<A> b1(b1_);
  Panels<A> first(s.channels, s.hidden), second(s.channels, s.hidden), back(s.hidden, s.channels);
  first.copy_transposed(data<T>(w1));
  second.copy(data<T>(w2));
  back.copy(data<T>(w1));
  Tensor dx = wants(needs, 0) ? new_tensor<T>(x, {s.rows, s.channels}) : no_gradient(x);
  // Hidden units, and the gradients in front of the GELU.
  const int64_t h_row = pitch<A>(s.hidden);
  const Scratch<A> h(s.rows * h_row), dz(s.rows * h_row);
  for_each_block(s.rows, [&](int64_t row, int64_t rows) {
    const Scratch<A> x_rows = block_of<A>(in, row, rows, s.channels);
    const Scratch<A> dy_rows = block_of<A>(out, row, rows, s.channels);
    const Sums<A, T> dx_rows(wants(needs, 0) ? data<T>(dx) + row * s.channels : nullptr,
                             rows * s.channels);
    for_each_chunk<A>(s.hidden, [&](int64_t unit, int64_t units) {
      A *of_h = h.get() + row * h_row + unit, *of_dz = dz.get() + row * h_row + unit;
      const auto to_hidden = [&](const Panels<A>& right, const Scratch<A>& left, A* to,
                                 const A* bias) {
        right.multiply_columns(unit, units,
                               {.m = rows,
                                .a = left.get(),
                                .a_row = pitch<A>(s.channels),
                                .a_col = 1,
                                .c = to,
                                .c_row = h_row,
                                .init = bias});
      };
      to_hidden(first, x_rows, of_h, b1.data() + unit);
      to_hidden(second, dy_rows, of_dz, nullptr);
      for (int64_t i = 0; i < rows; ++i) {
        A *value = of_h + i * h_row, *slope = of_dz + i * h_row;
        vectors<A>(units, [&](int64_t j, int lanes) {
          const auto z = S::load(value + j, lanes);
          const auto [below, density] = normal(z);
          S::store(value + j, z * below, lanes);
          S::store(slope + j, S::load(slope + j, lanes) * (below + z * density), lanes);
        });
      }
      if (!wants(needs, 0)) return;
      back.multiply_rows(unit, units,
                         {.m = rows,
                          .a = of_dz,
                          .a_row = h_row,
                          .a_col = 1,
                          .c = dx_rows.get(),
                          .c_row = s.channels,
                          .accumulate = unit > 0});
    });
    if (wants(needs, 0)) dx_rows.finish();
  });
  // (H, C) sum over the rows of a hidden and a narrow vector; `load` copies the hidden ones.
  const auto outer = [&](const auto& load, const T* narrow) {
    Panels<A> right(s.rows, s.channels);
    right.copy(narrow);
    std::vector<A> sum(s.hidden * s.channels);
    product<true>(s.hidden, right, static_cast<const A*>(nullptr), sum.data(), load);
    return sum;
  };
  Gradients found{dx, no_gradient(x), no_gradient(x), no_gradient(x), no_gradient(x)};
  if (wants(needs, 1) || wants(needs, 2)) {
    std::vector<A> db1(s.hidden);
    const auto load = [&](int64_t unit, int64_t units, int64_t row, int64_t rows, int64_t stride,
                          A* to) {
      columns_of<A>(dz.get(), h_row)(unit, units, row, rows, stride, to);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < units; ++j) db1[unit + j] += to[i * stride + j];
      }
    };
    const std::vector<A> dw1 = outer(load, in);
    if (wants(needs, 1)) std::get<1>(found) = gradient_of(w1, dw1);
    if (wants(needs, 2)) std::get<2>(found) = gradient_of(b1_, db1);
  }
  if (wants(needs, 3)) {
    const std::vector<A> sum = outer(columns_of<A>(h.get(), h_row), out);
    std::vector<A> transposed(sum.size());
    transpose(sum.data(), s.hidden, s.channels, transposed.data());
    std::get<3>(found) = gradient_of(w2, transposed);
  }
  if (wants(needs, 4)) std::get<4>(found) = gradient_of(b2, row_sum<A>(out, s.rows, s.channels));
  return found;
}

Tensor mlp(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2) {
  const Sizes s = checked(x, w1, b1, w2, b2);
  return dispatch(x, kOp, [&](auto type) { return forward<decltype(type)>(s, x, w1, b1, w2, b2); });
}

Gradients mlp_backward(Tensor grad, Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2,
                       int64_t needs) {
  const Sizes s = checked(x, w1, b1, w2, b2);
  return dispatch(x, kOp, [&](auto type) {
    return backward<decltype(type)>(s, grad, x, w1, b1, w2, b2, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("mlp", TORCH_BOX(&mlp));
  m.impl("mlp_backward", TORCH_BOX(&mlp_backward));
}

}  // namespace skelops
