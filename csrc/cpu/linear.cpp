// linear: three products, each of one operand in panels that a kernel reads front to back and of
// blocks of the other's rows, both copied a first-level cache at a time.
#include <algorithm>
#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"

namespace skelops {
namespace {

constexpr int64_t kRows = 52 / kAccumulatorRows * kAccumulatorRows;  // of a block
constexpr const char* kOp = "linear";

// A matrix (depth, columns) in panels of two vectors of columns, cut along the depth.
template <typename A>
class Panels {
 public:
  static constexpr int64_t kColumns = 2 * Simd<A>::kLanes;
  static constexpr int64_t kDepth = kPanelRows<A>;  // of a cut

  Panels(int64_t depth, int64_t columns)
      : depth_(depth), columns_(columns), values_(count() * depth * kColumns) {}

  int64_t depth() const { return depth_; }
  int64_t columns() const { return columns_; }
  int64_t count() const { return (columns_ + kColumns - 1) / kColumns; }
  int64_t cuts() const { return std::max<int64_t>((depth_ + kDepth - 1) / kDepth, 1); }
  int64_t width(int64_t panel) const { return std::min(kColumns, columns_ - panel * kColumns); }
  int64_t size(int64_t cut) const { return std::min(kDepth, depth_ - cut * kDepth); }
  const A* get(int64_t panel, int64_t cut) const { return at(panel, cut * kDepth); }

  // of a matrix (depth, columns)
  template <typename T>
  void copy(const T* from) {
    parallel(cuts(), [&](int64_t cut) {
      for (int64_t i = cut * kDepth; i < cut * kDepth + size(cut); ++i) {
        for (int64_t p = 0; p < count(); ++p) {
          convert(from + i * columns_ + p * kColumns, at(p, i), width(p));
        }
      }
    });
  }

  // of a matrix (columns, depth)
  template <typename T>
  void copy_transposed(const T* from) {
    parallel(count(), [&](int64_t p) {
      const Scratch<A> rows(width(p) * depth_);
      convert(from + p * kColumns * depth_, rows.get(), width(p) * depth_);
      transpose(rows.get(), width(p), depth_, depth_, at(p, 0), kColumns);
    });
  }

 private:
  A* at(int64_t panel, int64_t row) const {
    return values_.get() + (panel * depth_ + row) * kColumns;
  }

  int64_t depth_, columns_;
  Scratch<A> values_;
};

// to (rows, columns) = bias + left right for blocks of rows, in parallel. load(row, rows, first
// column, columns, buffer) copies a part of the left matrix to rows that are kStride apart, or
// columns where it is read `across`.
template <typename A, bool kAcross, typename T, typename F>
void product(int64_t rows, const Panels<A>& right, const A* bias, T* to, const F& load) {
  constexpr int64_t kStride = (kAcross ? kRows : Panels<A>::kDepth) + Simd<A>::kLanes;
  const int64_t columns = right.columns();
  parallel((rows + kRows - 1) / kRows, [&](int64_t block) {
    const int64_t row = block * kRows, count = std::min(kRows, rows - row);
    const Scratch<A> left(kStride * (kAcross ? Panels<A>::kDepth : kRows));
    constexpr bool kInPlace = std::is_same_v<T, A>;
    const Scratch<A> sums(kInPlace ? 0 : count * columns);
    A* c = sums.get();
    if constexpr (kInPlace) c = to + row * columns;
    for (int64_t cut = 0; cut < right.cuts(); ++cut) {
      load(row, count, cut * Panels<A>::kDepth, right.size(cut), kStride, left.get());
      for (int64_t p = 0; p < right.count(); ++p) {
        const int64_t column = p * Panels<A>::kColumns;
        multiply<A>({.m = count,
                     .n = right.width(p),
                     .k = right.size(cut),
                     .a = left.get(),
                     .a_row = kAcross ? 1 : kStride,
                     .a_col = kAcross ? kStride : 1,
                     .b = right.get(p, cut),
                     .b_row = Panels<A>::kColumns,
                     .c = c + column,
                     .c_row = columns,
                     .accumulate = cut > 0,
                     .init = bias ? bias + column : nullptr});
      }
    }
    if constexpr (!kInPlace) convert(c, to + row * columns, count * columns);
  });
}

// Rows of a matrix (rows, width), a part of their columns.
template <typename T, typename A>
auto rows_of(const T* matrix, int64_t width) {
  return [=](int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t stride, A* to) {
    for (int64_t i = 0; i < rows; ++i) {
      convert(matrix + (row + i) * width + column, to + i * stride, columns);
    }
  };
}

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
  const Tensor x = torch::stable::contiguous(x_), weight = torch::stable::contiguous(weight_);
  const Parameter<A> bias(bias_);
  Panels<A> right(s.in, s.out);
  right.copy_transposed(data<T>(weight));
  Tensor y = new_tensor<T>(x, {s.rows, s.out});
  product<A, false>(s.rows, right, bias.data(), data<T>(y), rows_of<T, A>(data<T>(x), s.in));
  return y;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Sizes& s, const Tensor& grad_, const Tensor& x_,
                                            const Tensor& weight_, const OptionalTensor& bias,
                                            int64_t needs) {
  using A = Accumulate<T>;
  const Tensor grad = torch::stable::contiguous(grad_), x = torch::stable::contiguous(x_);
  SKELOPS_CHECK(grad.numel() == s.rows * s.out && grad.scalar_type() == kScalarType<T>,
                "linear_backward", "a gradient (N, D) of x's dtype");
  const T* dy = data<T>(grad);
  Tensor dx = no_gradient(x), dw = no_gradient(x), db = no_gradient(x);
  if (wants(needs, 0)) {
    const Tensor weight = torch::stable::contiguous(weight_);
    Panels<A> right(s.out, s.in);
    right.copy(data<T>(weight));
    dx = new_tensor<T>(x, {s.rows, s.in});
    product<A, false>(s.rows, right, nullptr, data<T>(dx), rows_of<T, A>(dy, s.out));
  }
  if (wants(needs, 1)) {
    Panels<A> right(s.rows, s.in);
    right.copy(data<T>(x));
    dw = new_tensor<T>(weight_, {s.out, s.in});
    product<A, true>(
        s.out, right, nullptr, data<T>(dw),
        [&](int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t stride, A* to) {
          rows_of<T, A>(dy, s.out)(column, columns, row, rows, stride, to);
        });
  }
  if (wants(needs, 2)) {
    const Slices slices(s.rows);
    Partials<A> sums(slices, s.out);
    parallel(slices.count, [&](int64_t slice) {
      A* sum = sums.slice(slice);
      for (int64_t i = slices.begin(slice); i < slices.end(slice); ++i) {
        for (int64_t j = 0; j < s.out; ++j) sum[j] += static_cast<A>(dy[i * s.out + j]);
      }
    });
    db = gradient_of(*bias, sums.total());
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
