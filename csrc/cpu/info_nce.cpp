// info_nce: a softmax over the keys of a bank whose values are the keys themselves, tile by tile. A
// row of a tile belongs to a key, so that keys are read as they lie and a vector holds a value of
// as many queries. All queries are in one tile; the bank is cut into slices, each read once.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "cpu/column_softmax.h"
#include "math/exp2.h"

namespace skelops {
namespace {

constexpr int64_t kSlices = 8;
constexpr int64_t kKeys = 128;  // keys of a tile
constexpr const char* kOp = "info_nce";

template <typename A>
constexpr A kLog2E = static_cast<A>(1.4426950408889634);

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
  Arguments(const Sizes& s, const Tensor& q, const OptionalTensor& key, const Tensor& scale)
      : q(q),
        key(key),
        scale(scale),
        lanes((s.rows() + Simd<A>::kLanes - 1) / Simd<A>::kLanes * Simd<A>::kLanes),
        pitch(lanes + Simd<A>::kLanes),
        factor(lanes),
        across(s.width * pitch) {
    for (int64_t r = 0; r < s.rows(); ++r) factor[r] = this->scale.data()[r % s.batch] * kLog2E<A>;
    transpose(this->q.data(), s.rows(), s.width, s.width, across.data(), pitch);
  }

  const Parameter<A> q, key, scale;
  const int64_t lanes, pitch;  // queries in whole vectors; rows of these are no power of two apart
  std::vector<A> factor;       // of a query's similarities, in units of log 2
  std::vector<A> across;       // (D, queries)
};

template <typename A, typename B>
class Keys {
 public:
  Keys(const Sizes& sizes, const Tensor& bank)
      : width_(sizes.width),
        bank_(data<B>(bank)),
        rows_(std::is_same_v<A, B> ? 0 : kKeys * sizes.width) {}

  const A* load(int64_t first, int64_t count) const {
    if constexpr (std::is_same_v<A, B>) {
      return bank_ + first * width_;
    } else {
      convert(bank_ + first * width_, rows_.get(), count * width_);
      return rows_.get();
    }
  }

 private:
  int64_t width_;
  const B* bank_;
  Scratch<A> rows_;
};

// to (keys, queries) = keys q^T
template <typename A>
void similarities(const Sizes& s, const Arguments<A>& given, const A* keys, int64_t count, A* to) {
  multiply<A>({.m = count,
               .n = given.lanes,
               .k = s.width,
               .a = keys,
               .a_row = s.width,
               .a_col = 1,
               .b = given.across.data(),
               .b_row = given.pitch,
               .c = to,
               .c_row = given.pitch});
}

// The largest similarities of a query and where they are, best first; of equal ones the first.
template <typename A>
void keep_best(const A* column, int64_t pitch, int64_t first, int64_t count, int64_t top, A* value,
               int64_t* at) {
  for (int64_t i = 0; i < count; ++i) {
    const A found = column[i * pitch];
    if (!(found > value[top - 1])) continue;
    int64_t place = top - 1;
    for (; place > 0 && found > value[place - 1]; --place) {
      value[place] = value[place - 1];
      at[place] = at[place - 1];
    }
    value[place] = found;
    at[place] = first + i;
  }
}

// Running softmax of all queries over a part of the keys.
template <typename A>
struct Softmax {
  Softmax(const Sizes& s, int64_t lanes)
      : largest(lanes, kNone<A>),
        total(lanes),
        mean(s.rows() * s.width),
        best(s.rows() * s.top, kNone<A>),
        at(s.rows() * s.top) {}
  std::vector<A> largest, total;  // `largest` in units of log 2
  std::vector<A> mean, best;
  std::vector<int64_t> at;
};

template <typename A, typename B>
void accumulate(const Sizes& s, const Arguments<A>& given, const Keys<A, B>& keys, int64_t slice,
                Softmax<A>& softmax) {
  using S = Simd<A>;
  const int64_t pitch = given.pitch;
  const Scratch<A> tile(kKeys * pitch), shrink(given.lanes);
  s.for_each_tile(slice, [&](int64_t first, int64_t count) {
    const A* of_keys = keys.load(first, count);
    similarities(s, given, of_keys, count, tile.get());
    for (int64_t r = 0; r < given.lanes; r += S::kLanes) {
      A *columns = tile.get() + r, *largest = softmax.largest.data() + r;
      A* total = softmax.total.data() + r;
      const auto factor = S::load(given.factor.data() + r), before = S::load(largest);
      const auto most = column_maximum(columns, count, pitch, typename S::Vec{} + kNone<A>);
      for (int64_t q = r; s.top && q < std::min(s.rows(), r + S::kLanes); ++q) {
        A* best = softmax.best.data() + q * s.top;
        if (!(most[q - r] > best[s.top - 1])) continue;
        keep_best(tile.get() + q, pitch, first, count, s.top, best, softmax.at.data() + q * s.top);
      }
      const auto now = larger(before, most * factor);
      const auto less = exp2_nonpositive(before - now);
      const auto sum = column_exponentials(columns, count, pitch, factor, now);
      S::store(shrink.get() + r, less);
      S::store(total, S::load(total) * less + sum);
      S::store(largest, now);
    }
    for (int64_t r = 0; r < s.rows(); ++r) {
      if (shrink[r] == A(1)) continue;
      for (int64_t d = 0; d < s.width; ++d) softmax.mean[r * s.width + d] *= shrink[r];
    }
    multiply<A>({.m = s.rows(),
                 .n = s.width,
                 .k = count,
                 .a = tile.get(),
                 .a_row = 1,
                 .a_col = pitch,
                 .b = of_keys,
                 .b_row = s.width,
                 .c = softmax.mean.data(),
                 .c_row = s.width,
                 .accumulate = true});
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
  for (const auto& part : parts) largest = std::max(largest, part.largest[r] / kLog2E<A>);
  A total = key ? std::exp(own - largest) : A(0);
  for (int64_t d = 0; d < D; ++d) mean[d] = key ? total * key[d] : A(0);
  std::vector<A> best(s.top, kNone<A>);
  for (auto& part : parts) {
    const A shrink = std::exp(part.largest[r] / kLog2E<A> - largest);
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
  const Arguments<A> given(s, q, key, scale);
  const Tensor bank = as_contiguous(bank_);
  Tensor out = new_tensor<A>(q, {s.branches, s.batch});
  Tensor mean = new_tensor<A>(q, {s.branches, s.batch, s.width});
  Tensor at = new_tensor<int64_t>(q, {s.branches, s.batch, s.top});
  std::vector<Softmax<A>> parts(s.slices(), Softmax<A>(s, given.lanes));
  dispatch_bank<A>(bank, [&](auto type) {
    parallel(s.rows() ? s.slices() : 0, [&](int64_t slice) {
      const Keys<A, decltype(type)> keys(s, bank);
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
  using S = Simd<A>;
  // Of queries that fill the vectors up the weight is 0.
  std::vector<A> shift(given.lanes), share(given.lanes);
  for (int64_t r = 0; r < s.rows(); ++r) shift[r] = lse[r] * kLog2E<A>, share[r] = weight[r];
  parallel(s.slices(), [&](int64_t slice) {
    const Keys<A, B> keys(s, bank);
    const Scratch<A> tile(kKeys * given.pitch);
    const Scratch<A> sum(std::is_same_v<A, B> ? 0 : kKeys * s.width);
    s.for_each_tile(slice, [&](int64_t first, int64_t count) {
      similarities(s, given, keys.load(first, count), count, tile.get());
      for (int64_t j = 0; j < count; ++j) {
        A* row = tile.get() + j * given.pitch;
        for (int64_t r = 0; r < given.lanes; r += S::kLanes) {
          const auto x = S::load(row + r) * S::load(given.factor.data() + r);
          const auto p = exp2_nonpositive(x - S::load(shift.data() + r));
          S::store(row + r, p * S::load(share.data() + r));
        }
      }
      A* found;
      if constexpr (std::is_same_v<A, B>) {
        found = to + first * s.width;
      } else {
        found = sum.get();
      }
      multiply<A>({.m = count,
                   .n = s.width,
                   .k = s.rows(),
                   .a = tile.get(),
                   .a_row = given.pitch,
                   .a_col = 1,
                   .b = given.q.data(),
                   .b_row = s.width,
                   .c = found,
                   .c_row = s.width});
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
  const Arguments<A> given(s, q, key, scale);
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
    const Tensor bank = as_contiguous(bank_);
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
