// affinity_contrastive_loss: scores by one matrix product, then a few passes over a row while it is
// in the first-level cache. The backward turns the kept scores into their gradients and needs two
// products more.
#include <cmath>
#include <limits>
#include <vector>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/exp.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr const char* kOp = "affinity_contrastive_loss";
constexpr int64_t kRows = 4 * kAccumulatorRows;  // of a task

template <typename A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

// Which rows of the memory are positives and negatives of a sample.
class Roles {
 public:
  Roles(const Tensor& label, const Tensor& memory_label, const OptionalTensor& affinity, bool own)
      : label_tensor_(as_contiguous(label)),
        memory_tensor_(as_contiguous(memory_label)),
        label_(static_cast<const int64_t*>(label_tensor_.data_ptr())),
        memory_(static_cast<const int64_t*>(memory_tensor_.data_ptr())),
        rows(label.size(0)),
        entries(memory_label.size(0)),
        own_(own) {
    if (!affinity.has_value()) return;
    affinity_tensor_ = as_contiguous(*affinity);
    affinity_ = static_cast<const bool*>(affinity_tensor_->data_ptr());
    classes_ = affinity->size(0);
  }

  // Weights 0 or 1 of the negatives, the positives, and whether a row of the memory counts at all.
  template <typename A>
  void of(int64_t n, A* negative, std::vector<int64_t>& positives, A* present) const {
    positives.clear();
    const int64_t y = label_[n];
    if (y < 0) {
      std::fill_n(negative, entries, A(0));
      std::fill_n(present, entries, A(0));
      return;
    }
    int64_t same = 0;
    for (int64_t k = 0; k < entries; ++k) {
      present[k] = memory_[k] >= 0;
      negative[k] = (memory_[k] >= 0) & (memory_[k] != y);
      same += memory_[k] == y;
    }
    if (affinity_tensor_.has_value()) {
      const bool* near = y < classes_ ? affinity_ + y * classes_ : nullptr;
      for (int64_t k = 0; k < entries; ++k) {
        const int64_t other = memory_[k];
        negative[k] = near && other >= 0 && other < classes_ && near[other];
      }
    }
    const int64_t self = own_ ? entries - rows + n : -1;
    if (own_) negative[self] = 0;
    for (int64_t k = 0; same > 0; ++k) {
      if (memory_[k] != y) continue;
      if (k != self) positives.push_back(k);
      --same;
    }
  }

 private:
  Tensor label_tensor_, memory_tensor_;
  OptionalTensor affinity_tensor_;
  const int64_t *label_, *memory_;
  const bool* affinity_ = nullptr;
  int64_t classes_ = 0;

 public:
  const int64_t rows, entries;

 private:
  const bool own_;
};

template <typename A>
typename Simd<A>::Vec exp_of_negative(typename Simd<A>::Vec x) {
  constexpr A kLeast = -87;  // where float32 is about to underflow; comparisons keep NaN
  return exp(x < kLeast ? typename Simd<A>::Vec{} + kLeast : x);
}

// The largest score of those with weight 1; minus infinity if there is none.
template <typename A>
A largest(const A* s, const A* weight, int64_t count) {
  A top = -kInfinity<A>;
  for (int64_t k = 0; k < count; ++k) top = weight[k] > 0 && !(s[k] <= top) ? s[k] : top;
  return top;
}

// log(sum of e^s over the negatives + eps e^most).
template <typename A>
A log_sum(const A* s, const A* negative, A most, double eps, int64_t count) {
  const A extra = eps > 0 ? most + static_cast<A>(std::log(eps)) : -kInfinity<A>;
  const A top = std::max(largest(s, negative, count), extra);
  if (top == -kInfinity<A>) return top;
  const A sum = reduce<A>(count, [=](int64_t k, int lanes) {
    const auto w = load_some(negative + k, lanes);
    const auto x = load_some(s + k, lanes) - top;
    return exp_of_negative<A>(w > 0 ? x : typename Simd<A>::Vec{}) * w;
  });
  return top + std::log(sum + std::exp(extra - top));
}

template <typename A>
A sigmoid(A z) {
  return 1 / (1 + std::exp(-z));
}

template <typename F>
void parallel_rows(int64_t rows, const F& function) {
  parallel((rows + kRows - 1) / kRows,
           [&](int64_t task) { function(task * kRows, std::min(rows, (task + 1) * kRows)); });
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& feature, const Tensor& memory,
                                           const Roles& roles, const Tensor& temperature,
                                           double margin, double eps) {
  using A = Accumulate<T>;
  const int64_t N = roles.rows, K = roles.entries, D = feature.size(1);
  Tensor loss = new_tensor<A>(feature, {N}), scores = new_tensor<A>(feature, {N, K}),
         notes = new_tensor<A>(feature, {3, N});
  const Parameter<A> f(feature), m(memory);
  const std::vector<A> tau = parameter<A>(temperature);
  const A delta = static_cast<A>(margin);
  // The features are fewer than the memory: scores are computed, and then turned, by its blocks.
  const Scratch<A> columns(D * N);
  transpose(f.data(), N, D, columns.get());
  parallel_rows(K, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    const Scratch<A> block(count * N);
    multiply(Product<A>{count, N, D, m.data() + begin * D, D, 1, columns.get(), N, block.get(), N});
    transpose(block.get(), count, N, N, data<A>(scores) + begin, K);
  });
  parallel_rows(N, [&](int64_t begin, int64_t end) {
    const Scratch<A> negative(K), present(K);
    std::vector<int64_t> positives;
    for (int64_t n = begin; n < end; ++n) {
      A* s = data<A>(scores) + n * K;
      for (int64_t k = 0; k < K; ++k) s[k] /= tau[n];
      roles.of(n, negative.get(), positives, present.get());
      const A most = eps > 0 ? largest(s, present.get(), K) : -kInfinity<A>;
      const A lse = log_sum(s, negative.get(), most, eps, K);
      const A share = positives.empty() ? A(0) : 1 / static_cast<A>(positives.size());
      A sum = 0, pull = 0;
      for (const int64_t k : positives) {
        const A z = lse - s[k] + delta;
        sum += std::max(z, A(0)) + std::log1p(std::exp(-std::abs(z))) - delta;
        pull += sigmoid(z);
      }
      data<A>(loss)[n] = share * sum;
      const A values[] = {lse, share * pull, share};
      for (int i = 0; i < 3; ++i) data<A>(notes)[i * N + n] = values[i];
    }
  });
  return {loss, scores, notes};
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& feature, const Tensor& memory,
                                    const Roles& roles, const Tensor& temperature, double margin,
                                    const Tensor& scores, const Tensor& notes, int64_t needs) {
  using A = Accumulate<T>;
  const int64_t N = roles.rows, K = roles.entries, D = feature.size(1);
  const bool want_feature = wants(needs, 0), want_memory = wants(needs, 1);
  const Parameter<A> f(feature), m(memory);
  const std::vector<A> g = parameter<A>(grad), tau = parameter<A>(temperature),
                       note = parameter<A>(notes);
  const Tensor kept = as_contiguous(scores);
  Tensor df = want_feature ? new_tensor<T>(feature, {N, D}) : no_gradient(feature);
  Tensor dm = want_memory ? new_tensor<T>(memory, {K, D}) : no_gradient(memory);
  const A delta = static_cast<A>(margin);
  const Scratch<A> ds(N * K);
  // c[row][column] = sum_k a b, into a gradient of any dtype.
  const auto product = [D](int64_t rows, int64_t k, const A* a, int64_t a_row, int64_t a_col,
                           const A* b, T* to) {
    if constexpr (Samples<T>::kInPlace) {
      multiply(Product<A>{rows, D, k, a, a_row, a_col, b, D, to, D});
    } else {
      const Scratch<A> c(rows * D);
      multiply(Product<A>{rows, D, k, a, a_row, a_col, b, D, c.get(), D});
      convert(c.get(), to, rows * D);
    }
  };
  parallel_rows(N, [&](int64_t begin, int64_t end) {
    const Scratch<A> negative(K), present(K);
    std::vector<int64_t> positives;
    for (int64_t n = begin; n < end; ++n) {
      const A* s = data<A>(kept) + n * K;
      A* d = ds.get() + n * K;
      roles.of(n, negative.get(), positives, present.get());
      const A lse = note[n], scale = g[n] / tau[n];
      const A push = scale * note[N + n], pull = scale * note[2 * N + n];
      if (lse == -kInfinity<A>) {
        std::fill_n(d, K, A(0));
        continue;
      }
      using S = Simd<A>;
      for (int64_t k = 0; k < K; k += S::kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(K - k, S::kLanes));
        const auto w = load_some(negative.get() + k, lanes);
        const auto x = load_some(s + k, lanes) - lse;
        const auto v = exp_of_negative<A>(w > 0 ? x : typename S::Vec{}) * w * push;
        if (lanes == S::kLanes) {
          S::store(d + k, v);
        } else {
          S::store(d + k, v, lanes);
        }
      }
      for (const int64_t k : positives) d[k] -= pull * sigmoid(lse - s[k] + delta);
    }
    if (want_feature) {
      product(end - begin, K, ds.get() + begin * K, K, 1, m.data(), data<T>(df) + begin * D);
    }
  });
  if (want_memory) {
    parallel_rows(K, [&](int64_t begin, int64_t end) {
      product(end - begin, N, ds.get() + begin, 1, K, f.data(), data<T>(dm) + begin * D);
    });
  }
  return {df, dm};
}

void check(const Tensor& feature, const Tensor& memory, const Tensor& label,
           const Tensor& memory_label, const OptionalTensor& affinity, const Tensor& temperature,
           bool own) {
  const auto is_label = [](const Tensor& t, int64_t count) {
    return t.scalar_type() == ScalarType::Long && t.dim() == 1 && t.numel() == count;
  };
  SKELOPS_CHECK(feature.dim() == 2 && memory.dim() == 2 && feature.size(1) == memory.size(1) &&
                    feature.scalar_type() == memory.scalar_type(),
                kOp, "feature (N, D) and memory (K, D)");
  SKELOPS_CHECK(is_label(label, feature.size(0)) && is_label(memory_label, memory.size(0)), kOp,
                "int64 labels (N,) and (K,)");
  SKELOPS_CHECK(
      !affinity.has_value() || (affinity->scalar_type() == ScalarType::Bool &&
                                affinity->dim() == 2 && affinity->size(0) == affinity->size(1)),
      kOp, "affinity (Y, Y) bool");
  SKELOPS_CHECK(temperature.numel() == feature.size(0), kOp, "temperature (N,)");
  SKELOPS_CHECK(!own || memory.size(0) >= feature.size(0), kOp, "K >= N with own");
}

std::tuple<Tensor, Tensor, Tensor> affinity_contrastive_loss(Tensor feature, Tensor memory,
                                                             Tensor label, Tensor memory_label,
                                                             OptionalTensor affinity,
                                                             Tensor temperature, double margin,
                                                             double eps, bool own) {
  check(feature, memory, label, memory_label, affinity, temperature, own);
  return dispatch(feature, kOp, [&](auto type) {
    return forward<decltype(type)>(feature, memory, {label, memory_label, affinity, own},
                                   temperature, margin, eps);
  });
}

std::tuple<Tensor, Tensor> affinity_contrastive_loss_backward(
    Tensor grad, Tensor feature, Tensor memory, Tensor label, Tensor memory_label,
    OptionalTensor affinity, Tensor temperature, double margin, double, bool own, Tensor scores,
    Tensor notes, int64_t needs) {
  check(feature, memory, label, memory_label, affinity, temperature, own);
  return dispatch(feature, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, feature, memory, {label, memory_label, affinity, own},
                                    temperature, margin, scores, notes, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("affinity_contrastive_loss", TORCH_BOX(&affinity_contrastive_loss));
  m.impl("affinity_contrastive_loss_backward", TORCH_BOX(&affinity_contrastive_loss_backward));
}

}  // namespace skelops
