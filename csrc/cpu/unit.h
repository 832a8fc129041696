// What the units share that run at inference: parameters in pieces, and the end of a unit,
// y = relu(BN(z) + r), applied to rows of z while they are in cache.
#pragma once

#include <cmath>
#include <cstring>

#include "common/tensor.h"
#include "math/moments.h"

namespace skelops {

using TensorList = std::vector<Tensor>;

inline int64_t numel(const TensorList& pieces) {
  int64_t count = 0;
  for (const Tensor& t : pieces) count += t.numel();
  return count;
}

// Pieces one after the other, as one tensor. They have the dtype of the first.
inline Tensor joined(const char* op, const TensorList& pieces, std::vector<int64_t> shape) {
  SKELOPS_CHECK(!pieces.empty(), op, "at least one piece of a parameter");
  const Tensor& first = pieces.front();
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  SKELOPS_CHECK(numel(pieces) == size, op, "parameters that fit x and one another");
  if (pieces.size() == 1) {
    const Tensor whole = as_contiguous(first);
    const auto sizes = whole.sizes();
    const bool fits = std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end());
    return fits ? whole : torch::stable::view(whole, shape);
  }
  Tensor whole = torch::stable::new_empty(first, shape);
  auto* to = static_cast<char*>(whole.data_ptr());
  for (const Tensor& t : pieces) {
    SKELOPS_CHECK(t.scalar_type() == first.scalar_type(), op, "pieces of one dtype");
    const Tensor piece = as_contiguous(t);
    const size_t bytes = piece.numel() * piece.element_size();
    if (bytes > 0) std::memcpy(to, piece.data_ptr(), bytes);
    to += bytes;
  }
  return whole;
}

// The normalisations of neighbouring channels: weights, then biases, means and variances.
struct NormPieces {
  NormPieces(const char* op, const TensorList& norm) {
    SKELOPS_CHECK(norm.size() % 4 == 0, op, "weights, biases, means and variances of norms");
    const auto quarter = static_cast<std::ptrdiff_t>(norm.size() / 4);
    for (int i = 0; i < 4; ++i) {
      parts[i].assign(norm.begin() + i * quarter, norm.begin() + (i + 1) * quarter);
    }
  }

  bool empty() const { return parts[0].empty(); }
  int64_t channels() const { return numel(parts[0]); }
  Tensor part(const char* op, int i) const { return joined(op, parts[i], {channels()}); }

  TensorList parts[4];
};

struct TailTensors {
  const TensorList& norm;
  const OptionalTensor& residual;
  bool relu;
  double eps;
};

template <typename T>
class Tail {
 public:
  using A = Accumulate<T>;

  // Of a result (batch, channels, row).
  Tail(const char* op, const Tensor& x, const TailTensors& t, int64_t batch, int64_t channels,
       int64_t row)
      : row_(row),
        relu_(t.relu),
        residual_(t.residual.has_value()),
        residuals_(t.residual.value_or(x)) {
    SKELOPS_CHECK(!residual_ || t.residual->numel() == batch * channels * row, op,
                  "a residual of the result's shape");
    const NormPieces norm(op, t.norm);
    scale_.assign(channels, A(1)), shift_.assign(channels, A(0));
    if (norm.empty()) return;
    SKELOPS_CHECK(norm.channels() == channels, op, "a normalisation of the result's channels");
    const std::vector<A> weight = parameter<A>(norm.part(op, 0)),
                         bias = parameter<A>(norm.part(op, 1));
    const std::vector<A> mean = parameter<A>(norm.part(op, 2)),
                         var = parameter<A>(norm.part(op, 3));
    for (int64_t c = 0; c < channels; ++c) {
      scale_[c] = weight[c] * static_cast<A>(1 / std::sqrt(static_cast<double>(var[c]) + t.eps));
      shift_[c] = bias[c] - mean[c] * scale_[c];
    }
  }

  // Channels [begin, begin + size) of sample n, in place.
  void apply(int64_t n, int64_t begin, int64_t size, A* z) const {
    const Scratch<A> converted(residual_ && !residuals_.kInPlace ? row_ : 0);
    for (int64_t c = begin; c < begin + size; ++c, z += row_) {
      const A* r = residual_ ? residuals_.get(n, c * row_, row_, converted.get()) : nullptr;
      const A scale = scale_[c], shift = shift_[c];
      vectors<A>(row_, [&](int64_t i, int lanes) {
        auto v = load_some(z + i, lanes) * scale + shift;
        if (r != nullptr) v += load_some(r + i, lanes);
        if (relu_) v = v < A(0) ? typename Simd<A>::Vec{} : v;
        store_some(z + i, v, lanes);
      });
    }
  }

 private:
  int64_t row_;
  bool relu_, residual_;
  Samples<T> residuals_;
  std::vector<A> scale_, shift_;
};

}  // namespace skelops
