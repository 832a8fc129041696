// masked_cosine_loss: three sums per row in one read; the gradient needs the same three again.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/joint_mask.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr double kEps = 1e-12;

// The error of a row is (1 - cosine)^beta with cosine = xy / (|x| |y|).
template <typename A>
struct Angle {
  A x_norm, y_norm, cosine;

  Angle(const A* x, const A* y, int64_t channels) {
    double sums[3] = {};  // of x x, y y and x y
    reduce_into<3, A>(channels, sums, [=](int64_t i, int lanes, typename Simd<A>::Vec* sum) {
      const auto a = load_some(x + i, lanes), b = load_some(y + i, lanes);
      sum[0] += a * a;
      sum[1] += b * b;
      sum[2] += a * b;
    });
    x_norm = std::max(static_cast<A>(std::sqrt(sums[0])), static_cast<A>(kEps));
    y_norm = std::max(static_cast<A>(std::sqrt(sums[1])), static_cast<A>(kEps));
    cosine = static_cast<A>(sums[2]) / (x_norm * y_norm);
  }

  // 1 - cosine, which rounding may make negative
  A distance() const {
    const A d = A(1) - cosine;
    return d < A(0) ? A(0) : d;
  }
};

// Masked rows lie apart: the joint's row of the next frame is asked for ahead.
template <typename T>
void ask_for_next(const Samples<T>& samples, int64_t n, int64_t row, int64_t joints, int64_t rows,
                  int64_t channels) {
  if (row + joints < rows) prefetch(samples.raw(n) + (row + joints) * channels, channels);
}

template <typename A>
A power(A base, A exponent) {
  return exponent == A(2) ? base * base : exponent == A(1) ? base : std::pow(base, exponent);
}

void check(const Tensor& x, const Tensor& y, const Tensor& mask) {
  SKELOPS_CHECK(x.dim() == 4 && y.numel() == x.numel() && y.scalar_type() == x.scalar_type(),
                "masked_cosine_loss", "x and y (N, T, V, C)");
  check_joint_mask("masked_cosine_loss", mask, x.size(0), x.size(2));
}

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& y, const Tensor& mask,
                                   double beta, bool literal) {
  using A = Accumulate<T>;
  const int64_t batch = x.size(0), joints = x.size(2), channels = x.size(3);
  const int64_t rows = x.size(1) * joints;
  const Samples<T> xs(x), ys(y);
  const JointMask kept(mask);
  std::vector<double> sums(batch);
  std::vector<int64_t> counts(batch);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> x_row(xs.kInPlace ? 0 : channels), y_row(xs.kInPlace ? 0 : channels);
    for (int64_t i = 0; i < rows; ++i) {
      if (kept.row(n)[i % joints]) continue;
      ask_for_next(xs, n, i, joints, rows, channels);
      ask_for_next(ys, n, i, joints, rows, channels);
      const Angle<A> angle(xs.get(n, i * channels, channels, x_row.get()),
                           ys.get(n, i * channels, channels, y_row.get()), channels);
      sums[n] += power(angle.distance(), static_cast<A>(beta));
      ++counts[n];
    }
  });
  const double sum = std::accumulate(sums.begin(), sums.end(), 0.0);
  const int64_t count = std::accumulate(counts.begin(), counts.end(), int64_t(0));
  const double share = static_cast<double>(std::max<int64_t>(count, 1));
  const std::vector<int64_t> scalar;
  Tensor loss = new_tensor<A>(x, scalar), masked = new_tensor<A>(x, scalar);
  *data<A>(loss) = static_cast<A>(sum / (literal ? std::pow(share, beta) : share));
  *data<A>(masked) = static_cast<A>(count);
  return {loss, masked};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                    const Tensor& mask, double beta, bool literal,
                                    const Tensor& count, int64_t needs) {
  using A = Accumulate<T>;
  const int64_t batch = x.size(0), joints = x.size(2), channels = x.size(3);
  const int64_t rows = x.size(1) * joints;
  const Samples<T> xs(x), ys(y);
  const JointMask kept(mask);
  const double share = std::max(static_cast<double>(parameter<A>(count)[0]), 1.0);
  const A scale = static_cast<A>(-beta * static_cast<double>(parameter<A>(grad)[0]) /
                                 (literal ? std::pow(share, beta) : share));
  const std::vector<int64_t> shape{batch, x.size(1), joints, channels};
  const bool want_x = wants(needs, 0), want_y = wants(needs, 1);
  Tensor dx = want_x ? new_tensor<T>(x, shape) : no_gradient(x);
  Tensor dy = want_y ? new_tensor<T>(x, shape) : no_gradient(x);
  parallel(batch, [&](int64_t n) {
    const Scratch<A> x_row(xs.kInPlace ? 0 : channels), y_row(xs.kInPlace ? 0 : channels);
    // Of one side: d cosine = other / (|a| |b|) - cosine a / |a|^2, the last unless |a| is cut.
    const auto write = [&](const Tensor& out, int64_t i, const A* a, const A* b, A a_norm, A b_norm,
                           A cosine, A factor) {
      T* to = data<T>(out) + (n * rows + i) * channels;
      const A along = a_norm > static_cast<A>(kEps) ? factor * cosine / (a_norm * a_norm) : A(0);
      const A across = factor / (a_norm * b_norm);
      for (int64_t c = 0; c < channels; ++c) {
        to[c] = static_cast<T>(across * b[c] - along * a[c]);
      }
    };
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = (n * rows + i) * channels;
      if (kept.row(n)[i % joints]) {
        if (want_x) std::fill_n(data<T>(dx) + at, channels, T(0));
        if (want_y) std::fill_n(data<T>(dy) + at, channels, T(0));
        continue;
      }
      ask_for_next(xs, n, i, joints, rows, channels);
      ask_for_next(ys, n, i, joints, rows, channels);
      const A* a = xs.get(n, i * channels, channels, x_row.get());
      const A* b = ys.get(n, i * channels, channels, y_row.get());
      const Angle<A> angle(a, b, channels);
      const A slope =
          angle.cosine > A(1) ? A(0) : power(angle.distance(), static_cast<A>(beta - 1));
      const A factor = scale * slope;
      if (want_x) write(dx, i, a, b, angle.x_norm, angle.y_norm, angle.cosine, factor);
      if (want_y) write(dy, i, b, a, angle.y_norm, angle.x_norm, angle.cosine, factor);
    }
  });
  return {dx, dy};
}

std::tuple<Tensor, Tensor> masked_cosine_loss(Tensor x, Tensor y, Tensor mask, double beta,
                                              bool literal) {
  check(x, y, mask);
  return dispatch(x, "masked_cosine_loss",
                  [&](auto type) { return forward<decltype(type)>(x, y, mask, beta, literal); });
}

std::tuple<Tensor, Tensor> masked_cosine_loss_backward(Tensor grad, Tensor x, Tensor y, Tensor mask,
                                                       double beta, bool literal, Tensor count,
                                                       int64_t needs) {
  check(x, y, mask);
  return dispatch(x, "masked_cosine_loss_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, y, mask, beta, literal, count, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("masked_cosine_loss", TORCH_BOX(&masked_cosine_loss));
  m.impl("masked_cosine_loss_backward", TORCH_BOX(&masked_cosine_loss_backward));
}

}  // namespace skelops
