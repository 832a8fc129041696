// linear: three products in panels.
#include <tuple>

#include "cpu/panels.h"

namespace skelops {
namespace {

constexpr const char* kOp = "linear";

struct Sizes {
  int64_t rows, in, out;
};

Sizes checked(const Tensor& x, const Tensor& weight, const OptionalTensor& bias) {
  SKELOPS_CHECK(x.dim() == 2, kOp, "x (N, C)");
  SKELOPS_CHECK(
      weight.dim() == 2 && weight.size(1) == x.size(1) && weight.scalar_type() == x.scalar_type(),
      kOp, "weight (D, C) of x's dtype");
  SKELOPS_CHECK(!bias.has_value() || bias->numel() == weight.size(0), kOp, "bias (D,)");
  return {x.size(0), x.size(1), weight.size(0)};
}

template <typename T>
Tensor forward(const Sizes& s, const Tensor& x_, const Tensor& weight_,
               const OptionalTensor& bias_) {
  using A = Accumulate<T>;
  const Tensor x = as_contiguous(x_), weight = as_contiguous(weight_);
  const Parameter<A> bias(bias_);
  Panels<A> right(s.in, s.out);
  right.copy_transposed(data<T>(weight));
  Tensor y = new_tensor<T>(x, {s.rows, s.out});
  product(s.rows, right, bias.data(), data<T>(y), rows_of<A>(data<T>(x), s.in));
  return y;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Sizes& s, const Tensor& grad_, const Tensor& x_,
                                            const Tensor& weight_, const OptionalTensor& bias,
                                            int64_t needs) {
  using A = Accumulate<T>;
  const Tensor grad = as_contiguous(grad_), x = as_contiguous(x_);
  SKELOPS_CHECK(grad.numel() == s.rows * s.out && grad.scalar_type() == kScalarType<T>,
                "linear_backward", "a gradient (N, D) of x's dtype");
  const T* dy = data<T>(grad);
  constexpr const A* null = nullptr;
  Tensor dx = no_gradient(x), dw = no_gradient(x), db = no_gradient(x);
  if (wants(needs, 0)) {
    const Tensor weight = as_contiguous(weight_);
    Panels<A> right(s.out, s.in);
    right.copy(data<T>(weight));
    dx = new_tensor<T>(x, {s.rows, s.in});
    product(s.rows, right, null, data<T>(dx), rows_of<A>(dy, s.out));
  }
  if (wants(needs, 1)) {
    Panels<A> right(s.rows, s.in);
    right.copy(data<T>(x));
    dw = new_tensor<T>(weight_, {s.out, s.in});
    product<true>(s.out, right, null, data<T>(dw), columns_of<A>(dy, s.out));
  }
  if (wants(needs, 2)) {
    db = gradient_of(*bias, row_sum<A>(dy, s.rows, s.out));
  }
  return {dx, dw, db};
}

Tensor linear(Tensor x, Tensor weight, OptionalTensor bias) {
  const Sizes s = checked(x, weight, bias);
  return dispatch(x, kOp, [&](auto type) { return forward<decltype(type)>(s, x, weight, bias); });
}

std::tuple<Tensor, Tensor, Tensor> linear_backward(Tensor grad, Tensor x, Tensor weight,
                                                   OptionalTensor bias, int64_t needs) {
  const Sizes s = checked(x, weight, bias);
  return dispatch(
      x, kOp, [&](auto type) { return backward<decltype(type)>(s, grad, x, weight, bias, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("linear", TORCH_BOX(&linear));
  m.impl("linear_backward", TORCH_BOX(&linear_backward));
}

}  // namespace skelops
