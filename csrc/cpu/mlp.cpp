// mlp: a block of rows passes both layers in the second-level cache. The backward computes the
// hidden units again, then the gradients of the weights over all rows.
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

template <typename T>
Tensor forward(const Sizes& s, const Tensor& x_, const Tensor& w1, const Tensor& b1_,
               const Tensor& w2, const Tensor& b2_) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Tensor x = torch::stable::contiguous(x_);
  const Parameter<A> b1(b1_), b2(b2_);
  Panels<A> first(s.channels, s.hidden), second(s.hidden, s.channels);
  first.copy_transposed(data<T>(torch::stable::contiguous(w1)));
  second.copy_transposed(data<T>(torch::stable::contiguous(w2)));
  Tensor y = new_tensor<T>(x, {s.rows, s.channels});
  for_each_block(s.rows, [&](int64_t row, int64_t rows) {
    const Scratch<A> h(rows * s.hidden);
    block_product(row, rows, first, b1.data(), h.get(), s.hidden,
                  rows_of<A>(data<T>(x), s.channels));
    vectors<A>(rows * s.hidden, [&](int64_t j, int lanes) {
      const auto z = S::load(h.get() + j, lanes);
      S::store(h.get() + j, z * normal(z).below, lanes);
    });
    block_product(0, rows, second, b2.data(), data<T>(y) + row * s.channels, s.channels,
                  rows_of<A>(h.get(), s.hidden));
  });
  return y;
}

template <typename T>
Gradients backward(const Sizes& s, const Tensor& grad_, const Tensor& x_, const Tensor& w1_,
                   const Tensor& b1_, const Tensor& w2_, const Tensor& b2, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Tensor grad = torch::stable::contiguous(grad_), x = torch::stable::contiguous(x_);
  SKELOPS_CHECK(grad.numel() == s.rows * s.channels && grad.scalar_type() == kScalarType<T>,
                "mlp_backward", "a gradient (N, C) of x's dtype");
  const Tensor w1 = torch::stable::contiguous(w1_), w2 = torch::stable::contiguous(w2_);
  const T *in = data<T>(x), *out = data<T>(grad);
  const Parameter<A> b1(b1_);
  constexpr const A* null = nullptr;
  Panels<A> first(s.channels, s.hidden), second(s.channels, s.hidden), back(s.hidden, s.channels);
  first.copy_transposed(data<T>(w1));
  second.copy(data<T>(w2));
  back.copy(data<T>(w1));
  Tensor dx = wants(needs, 0) ? new_tensor<T>(x, {s.rows, s.channels}) : no_gradient(x);
  // Hidden units, and the gradients in front of the GELU.
  const Scratch<A> h(s.rows * s.hidden), dz(s.rows * s.hidden);
  for_each_block(s.rows, [&](int64_t row, int64_t rows) {
    A *units = h.get() + row * s.hidden, *slopes = dz.get() + row * s.hidden;
    block_product(row, rows, first, b1.data(), units, s.hidden, rows_of<A>(in, s.channels));
    block_product(row, rows, second, null, slopes, s.hidden, rows_of<A>(out, s.channels));
    vectors<A>(rows * s.hidden, [&](int64_t j, int lanes) {
      const auto z = S::load(units + j, lanes);
      const auto [below, density] = normal(z);
      S::store(units + j, z * below, lanes);
      S::store(slopes + j, S::load(slopes + j, lanes) * (below + z * density), lanes);
    });
    if (!wants(needs, 0)) return;
    block_product(0, rows, back, null, data<T>(dx) + row * s.channels, s.channels,
                  rows_of<A>(slopes, s.hidden));
  });
  // (H, C) sum over the rows of a hidden and a narrow vector
  const auto outer = [&](const Scratch<A>& hidden, const T* narrow) {
    Panels<A> right(s.rows, s.channels);
    right.copy(narrow);
    std::vector<A> sum(s.hidden * s.channels);
    product<true>(s.hidden, right, null, sum.data(), columns_of<A>(hidden.get(), s.hidden));
    return sum;
  };
  Gradients found{dx, no_gradient(x), no_gradient(x), no_gradient(x), no_gradient(x)};
  if (wants(needs, 1)) std::get<1>(found) = gradient_of(w1, outer(dz, in));
  if (wants(needs, 2)) {
    std::get<2>(found) = gradient_of(b1_, row_sum<A>(dz.get(), s.rows, s.hidden));
  }
  if (wants(needs, 3)) {
    const std::vector<A> sum = outer(h, out);
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
