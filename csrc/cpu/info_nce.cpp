// info_nce: a softmax over the keys of a bank whose values are the keys themselves, tile by tile.
// All queries are one block of rows; the bank is cut into slices, each read once.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/exp.h"

namespace skelops {
namespace {

constexpr int64_t kSlices = 8;
constexpr int64_t kKeys = 128;           // keys of a tile
constexpr int64_t kStride = kKeys + 16;  // not a power of two: columns spread over the sets
constexpr const char* kOp = "info_nce";

template <typename A>
constexpr A kNone = -std::numeric_limits<A>::infinity();

struct Sizes {
  int64_t branches, batch, width, keys, top;
  int64_t rows() const { return branches * batch; }
  int64_t slices() const { return std::max<int64_t>(1, std::min(kSlices, keys / kKeys)); }
  int64_t begin(int64_t slice) const { return slice * keys / slices(); }

  // function(first key, keys) for every tile of a slice
  template <typename F>
  void for_each_tile(int64_t slice, const F& function) const {
    for (int64_t j = begin(slice); j < begin(slice + 1); j += kKeys) {
      function(j, std::min(kKeys, begin(slice + 1) - j));
    }
  }
};

Sizes checked(const Tensor& q, const OptionalTensor& key, const Tensor& bank, const Tensor& scale,
              int64_t top) {
  SKELOPS_CHECK(q.dim() == 3, kOp, "q (R, N, D)");
  SKELOPS_CHECK(bank.dim() == 2 && bank.size(1) == q.size(2), kOp, "bank (K, D)");
  SKELOPS_CHECK(scale.dim() == 1 && scale.size(0) == q.size(1), kOp, "scale (N,)");
  SKELOPS_CHECK(top >= 0 && top <= bank.size(0), kOp, "top in 0..K");
  if (key.has_value()) {
    SKELOPS_CHECK(key->dim() == 2 && key->size(0) == q.size(1) && key->size(1) == q.size(2), kOp,
                  "key (N, D)");
  }
  return {q.size(0), q.size(1), q.size(2), bank.size(0), top};
}

// The arguments in the accumulation type A; the bank (of type B) is converted tile by tile.
template <typename A>
struct Arguments {
  Arguments(const Tensor& q, const OptionalTensor& key, const Tensor& scale)
      : q(q), key(key), scale(scale) {}
  const Parameter<A> q, key, scale;
};

// Keys of a tile as they lie, and across: (D, keys).
template <typename A, typename B>
class Keys {
 public:
  Keys(const Sizes& sizes, const Tensor& bank)
      : width_(sizes.width),
        bank_(data<B>(bank)),
        rows_(std::is_same_v<A, B> ? 0 : kKeys * sizes.width),
        across_(sizes.width * kStride) {}

  void load(int64_t first, int64_t count) {
    if constexpr (std::is_same_v<A, B>) {
      at_ = bank_ + first * width_;
    } else {
      convert(bank_ + first * width_, rows_.get(), count * width_);
      at_ = rows_.get();
    }
    transpose(at_, count, width_, width_, across_.get(), kStride);
  }

  const A* rows() const { return at_; }
  const A* across() const { return across_.get(); }

 private:
  int64_t width_;
  const B* bank_;
  const A* at_ = nullptr;
  Scratch<A> rows_, across_;
};

// to (rows, keys) = q keys^T
template <typename A, typename B>
void similarities(const Sizes& sizes, const A* q, const Keys<A, B>& keys, int64_t count, A* to) {
  const int64_t D = sizes.width;
  multiply(Product<A>{sizes.rows(), count, D, q, D, 1, keys.across(), kStride, to, kStride});
}

// row[i] = exp(factor row[i] - shift), 0 in the lanes after `count` -> sum
template <typename A>
A exponentiate(A* row, int64_t count, A factor, A shift) {
  using S = Simd<A>;
  typename S::Vec total = {};
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) {
    const auto x = S::load(row + i) * factor - shift;
    // Below that, exp is 0 in float32 for all that matters, and bits of it would wrap around.
    const auto e = exp(x < A(-87) ? typename S::Vec{} + A(-87) : x);
    S::store(row + i, e);
    total += e;
  }
  A sum = S::sum(total);
  for (; i < count; ++i) sum += row[i] = std::exp(factor * row[i] - shift);
  return sum;
}

template <typename A>
A maximum(const A* row, int64_t count) {
  using S = Simd<A>;
  A largest = row[0];
  int64_t i = 0;
  if (count >= S::kLanes) {
    auto m = S::load(row);
    for (i = S::kLanes; i + S::kLanes <= count; i += S::kLanes) {
      const auto x = S::load(row + i);
      m = x > m ? x : m;
    }
    for (int l = 0; l < S::kLanes; ++l) largest = std::max<A>(largest, m[l]);
  }
  for (; i < count; ++i) largest = std::max(largest, row[i]);
  return largest;
}

// The largest similarities of a row and where they are, best first; of equal ones the first.
template <typename A>
void keep_best(const A* row, int64_t first, int64_t count, int64_t top, A* value, int64_t* at) {
  for (int64_t i = 0; i < count; ++i) {
    if (!(row[i] > value[top - 1])) continue;
    int64_t place = top - 1;
    for (; place > 0 && row[i] > value[place - 1]; --place) {
      value[place] = value[place - 1];
      at[place] = at[place - 1];
    }
    value[place] = row[i];
    at[place] = first + i;
  }
}

// Running softmax of all rows over a part of the keys.
template <typename A>
struct Softmax {
  explicit Softmax(const Sizes& s)
      : largest(s.rows(), kNone<A>),
        total(s.rows()),
        mean(s.rows() * s.width),
        best(s.rows() * s.top, kNone<A>),
        at(s.rows() * s.top) {}
  std::vector<A> largest, total, mean, best;
  std::vector<int64_t> at;
};

template <typename A, typename B>
void accumulate(const Sizes& s, const Arguments<A>& given, Keys<A, B>& keys, int64_t slice,
                Softmax<A>& softmax) {
  const Scratch<A> tile(s.rows() * kStride);
  s.for_each_tile(slice, [&](int64_t first, int64_t count) {
    keys.load(first, count);
    similarities(s, given.q.data(), keys, count, tile.get());
    for (int64_t r = 0; r < s.rows(); ++r) {
      A* row = tile.get() + r * kStride;
      const A factor = given.scale.data()[r % s.batch];
      const A most = maximum(row, count);
      if (s.top && most > softmax.best[r * s.top + s.top - 1]) {
        keep_best(row, first, count, s.top, softmax.best.data() + r * s.top,
                  softmax.at.data() + r * s.top);
      }
      const A before = softmax.largest[r], now = std::max(before, most * factor);
      if (now != before) {
        const A shrink = std::exp(before - now);
        softmax.total[r] *= shrink;
        for (int64_t d = 0; d < s.width; ++d) softmax.mean[r * s.width + d] *= shrink;
        softmax.largest[r] = now;
      }
      softmax.total[r] += exponentiate(row, count, factor, now);
    }
    multiply(Product<A>{s.rows(), s.width, count, tile.get(), kStride, 1, keys.rows(), s.width,
                        softmax.mean.data(), s.width, /*accumulate=*/true});
  });
}

template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  using S = Simd<A>;
  typename S::Vec total = {};
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) total += S::load(a + i) * S::load(b + i);
  A sum = S::sum(total);
  for (; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// Similarity of a row to its own key, 0 without one.
template <typename A>
A own_similarity(const Sizes& s, const Arguments<A>& given, int64_t r) {
  if (!given.key.present()) return A(0);
  const int64_t n = r % s.batch, D = s.width;
  return given.scale.data()[n] * dot(given.q.data() + r * D, given.key.data() + n * D, D);
}

// The slices and the own key of a row together.
template <typename A>
void merge_row(const Sizes& s, const Arguments<A>& given, std::vector<Softmax<A>>& parts, int64_t r,
               A* out, A* mean, int64_t* at) {
  const int64_t n = r % s.batch, D = s.width;
  const A* key = given.key.present() ? given.key.data() + n * D : nullptr;
  const A own = own_similarity(s, given, r);
  A largest = key ? own : kNone<A>;
  for (const auto& part : parts) largest = std::max(largest, part.largest[r]);
  A total = key ? std::exp(own - largest) : A(0);
  for (int64_t d = 0; d < D; ++d) mean[d] = key ? total * key[d] : A(0);
  std::vector<A> best(s.top, kNone<A>);
  for (auto& part : parts) {
    const A shrink = std::exp(part.largest[r] - largest);
    total += shrink * part.total[r];
    for (int64_t d = 0; d < D; ++d) mean[d] += shrink * part.mean[r * D + d];
    for (int64_t i = 0; i < s.top; ++i) {
      const A value = part.best[r * s.top + i];
      int64_t place = s.top;
      for (; place > 0 && value > best[place - 1]; --place) {
        if (place == s.top) continue;
        best[place] = best[place - 1];
        at[place] = at[place - 1];
      }
      if (place < s.top) best[place] = value, at[place] = part.at[r * s.top + i];
    }
  }
  for (int64_t d = 0; d < D; ++d) mean[d] /= total;
  *out = (largest - own) + std::log(total);
}

// function(type of the bank): the queries' own, or a half one.
template <typename A, typename F>
auto dispatch_bank(const Tensor& bank, const F& function) {
  SKELOPS_CHECK(bank.scalar_type() == kScalarType<A> || bank.scalar_type() == ScalarType::Half ||
                    bank.scalar_type() == ScalarType::BFloat16,
                kOp, "bank of q's dtype or a half one");
  if (bank.scalar_type() == ScalarType::Half) return function(c10::Half{});
  if (bank.scalar_type() == ScalarType::BFloat16) return function(c10::BFloat16{});
  return function(A{});
}

template <typename A>
std::tuple<Tensor, Tensor, Tensor> forward(const Sizes& s, const Tensor& q,
                                           const OptionalTensor& key, const Tensor& bank_,
                                           const Tensor& scale) {
  const Arguments<A> given(q, key, scale);
  const Tensor bank = torch::stable::contiguous(bank_);
  Tensor out = new_tensor<A>(q, {s.branches, s.batch});
  Tensor mean = new_tensor<A>(q, {s.branches, s.batch, s.width});
  Tensor at = new_tensor<int64_t>(q, {s.branches, s.batch, s.top});
  std::vector<Softmax<A>> parts(s.slices(), Softmax<A>(s));
  dispatch_bank<A>(bank, [&](auto type) {
    parallel(s.rows() ? s.slices() : 0, [&](int64_t slice) {
      Keys<A, decltype(type)> keys(s, bank);
      accumulate(s, given, keys, slice, parts[slice]);
    });
  });
  parallel(s.rows(), [&](int64_t r) {
    merge_row(s, given, parts, r, data<A>(out) + r, data<A>(mean) + r * s.width,
              data<int64_t>(at) + r * s.top);
  });
  return {out, mean, at};
}

// dbank = sum over queries of weight p q, recomputed tile by tile.
template <typename A, typename B>
void bank_gradient(const Sizes& s, const Arguments<A>& given, const Tensor& bank, const A* lse,
                   const A* weight, B* to) {
  parallel(s.slices(), [&](int64_t slice) {
    Keys<A, B> keys(s, bank);
    const Scratch<A> tile(s.rows() * kStride);
    const Scratch<A> sum(std::is_same_v<A, B> ? 0 : kKeys * s.width);
    s.for_each_tile(slice, [&](int64_t first, int64_t count) {
      keys.load(first, count);
      similarities(s, given.q.data(), keys, count, tile.get());
      for (int64_t r = 0; r < s.rows(); ++r) {
        A* row = tile.get() + r * kStride;
        exponentiate(row, count, given.scale.data()[r % s.batch], lse[r]);
        for (int64_t j = 0; j < count; ++j) row[j] *= weight[r];
      }
      A* found;
      if constexpr (std::is_same_v<A, B>) {
        found = to + first * s.width;
      } else {
        found = sum.get();
      }
      multiply(Product<A>{count, s.width, s.rows(), tile.get(), 1, kStride, given.q.data(), s.width,
                          found, s.width});
      if constexpr (!std::is_same_v<A, B>) convert(found, to + first * s.width, count * s.width);
    });
  });
}

template <typename A>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Sizes& s, const Tensor& grad_,
                                                    const Tensor& q, const OptionalTensor& key,
                                                    const Tensor& bank_, const Tensor& scale,
                                                    const Tensor& out_, const Tensor& mean_,
                                                    int64_t needs) {
  const Arguments<A> given(q, key, scale);
  const Parameter<A> grad(grad_), out(out_), mean(mean_);
  SKELOPS_CHECK(
      grad_.numel() == s.rows() && out_.numel() == s.rows() && mean_.numel() == s.rows() * s.width,
      "info_nce_backward", "gradient, loss and mean that fit q");
  const int64_t D = s.width;
  // The gradient of the loss by the similarities of a row is its softmax minus the own key.
  std::vector<A> weight(s.rows()), pull(s.rows() * D);
  for (int64_t r = 0; r < s.rows(); ++r) {
    weight[r] = grad.data()[r] * given.scale.data()[r % s.batch];
    const A* key = given.key.present() ? given.key.data() + r % s.batch * D : nullptr;
    for (int64_t i = r * D; i < (r + 1) * D; ++i) {
      pull[i] = mean.data()[i] - (key ? key[i - r * D] : A(0));
    }
  }
  Tensor dq = no_gradient(q), dkey = no_gradient(q), dbank = no_gradient(q),
         dscale = no_gradient(q);
  if (wants(needs, 0)) {
    std::vector<A> d(s.rows() * D);
    for (int64_t i = 0; i < s.rows() * D; ++i) d[i] = weight[i / D] * pull[i];
    dq = gradient_of(q, d);
  }
  if (wants(needs, 1)) {
    std::vector<A> d(s.batch * D);
    for (int64_t r = 0; r < s.rows(); ++r) {
      const A share = weight[r] * (std::exp(-out.data()[r]) - A(1));
      for (int64_t i = 0; i < D; ++i) d[r % s.batch * D + i] += share * given.q.data()[r * D + i];
    }
    dkey = gradient_of(*key, d);
  }
  if (wants(needs, 2)) {
    const Tensor bank = torch::stable::contiguous(bank_);
    std::vector<A> lse(s.rows());
    for (int64_t r = 0; r < s.rows(); ++r) lse[r] = out.data()[r] + own_similarity(s, given, r);
    dispatch_bank<A>(bank, [&](auto type) {
      using B = decltype(type);
      dbank = new_tensor<B>(bank, {s.keys, D});
      bank_gradient<A, B>(s, given, bank, lse.data(), weight.data(), data<B>(dbank));
    });
  }
  if (wants(needs, 3)) {
    std::vector<A> d(s.batch);
    for (int64_t r = 0; r < s.rows(); ++r) {
      d[r % s.batch] += grad.data()[r] * dot(given.q.data() + r * D, pull.data() + r * D, D);
    }
    dscale = gradient_of(scale, d);
  }
  return {dq, dkey, dbank, dscale};
}

std::tuple<Tensor, Tensor, Tensor> info_nce(Tensor q, OptionalTensor key, Tensor bank, Tensor scale,
                                            int64_t top) {
  const Sizes sizes = checked(q, key, bank, scale, top);
  return dispatch(q, kOp, [&](auto type) {
    return forward<Accumulate<decltype(type)>>(sizes, q, key, bank, scale);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> info_nce_backward(Tensor grad, Tensor q,
                                                             OptionalTensor key, Tensor bank,
                                                             Tensor scale, int64_t top, Tensor out,
                                                             Tensor mean, Tensor, int64_t needs) {
  const Sizes sizes = checked(q, key, bank, scale, top);
  return dispatch(q, kOp, [&](auto type) {
    return backward<Accumulate<decltype(type)>>(sizes, grad, q, key, bank, scale, out, mean, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("info_nce", TORCH_BOX(&info_nce));
  m.impl("info_nce_backward", TORCH_BOX(&info_nce_backward));
}

}  // namespace skelops
