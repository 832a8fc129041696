// motion_mask: intensities and keys a vector at a time; the kept tokens are selected, not sorted.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/log.h"
#include "math/select.h"

namespace skelops {
namespace {

constexpr double kEps = 1e-10;

struct Sizes {
  int64_t segments, segment, joints, channels;
  int64_t tokens() const { return segments * joints; }
};

// Mean absolute motion of every token, from one segment to the next; not finite ones count as 0.
template <typename A>
void intensities(const A* x, const Sizes& s, A* out) {
  const int64_t row = s.joints * s.channels, block = s.segment * row;
  const Scratch<A> sum(row);
  const A scale = A(1) / static_cast<A>(s.segment * s.channels);
  std::fill_n(out, s.joints, A(0));
  for (int64_t t = 1; t < s.segments; ++t) {
    const A *now = x + t * block, *before = now - block;
    for (int64_t i = 0; i < row; ++i) sum[i] = std::abs(now[i] - before[i]);
    for (int64_t j = 1; j < s.segment; ++j) {
      const A *a = now + j * row, *b = before + j * row;
      for (int64_t i = 0; i < row; ++i) sum[i] += std::abs(a[i] - b[i]);
    }
    A* to = out + t * s.joints;
    for (int64_t v = 0; v < s.joints; ++v) {
      A total = 0;
      for (int64_t c = 0; c < s.channels; ++c) total += sum[v * s.channels + c];
      total *= scale;
      to[v] = std::isfinite(total) ? total : A(0);
    }
  }
  if (s.segments > 1) std::copy_n(out + s.joints, s.joints, out);
}

// key += -log(-log(u + eps) + eps)
void add_gumbel(const float* u, int64_t count, float* key) {
  using S = Simd<float>;
  constexpr float kSmall = static_cast<float>(kEps);
  const S::Vec nan = S::Vec{} + std::nanf("");
  for (int64_t i = 0; i < count; i += S::kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(count - i, S::kLanes));
    const bool whole = lanes == S::kLanes;
    const S::Vec v = (whole ? S::load(u + i) : S::load(u + i, lanes)) + kSmall;
    const S::Vec rate = kSmall - log_of(v);
    S::Vec k = (whole ? S::load(key + i) : S::load(key + i, lanes)) - log_of(rate);
    k = v > 0.0f ? k : nan;
    k = rate > 0.0f ? k : nan;
    whole ? S::store(key + i, k) : S::store(key + i, k, lanes);
  }
}

void add_gumbel(const double* u, int64_t count, double* key) {
  for (int64_t i = 0; i < count; ++i) key[i] -= std::log(kEps - std::log(u[i] + kEps));
}

template <typename A>
struct Selection {
  int64_t *ids_keep, *ids_restore;
  bool* mask;
  int64_t tokens, keep;

  void by_place(const OrderedKey<A>* key) const {
    int64_t kept = 0;
    for_each_chosen(key, tokens, keep, [&](int64_t i, bool chosen) {
      mask[i] = chosen;
      ids_restore[i] = chosen ? kept : keep + i - kept;
      if (chosen) ids_keep[kept++] = i;
    });
  }

  void by_key(const OrderedKey<A>* key) const {
    std::vector<int64_t> order(tokens);
    std::iota(order.begin(), order.end(), int64_t(0));
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return key[a] != key[b] ? key[a] < key[b] : a < b; });
    std::copy_n(order.begin(), keep, ids_keep);
    for (int64_t i = 0; i < tokens; ++i) {
      ids_restore[order[i]] = i;
      mask[order[i]] = i < keep;
    }
  }
};

template <typename T, typename A>
void select(const Tensor& x, const Tensor& noise, const Sizes& sizes, int64_t keep, double tau,
            bool exact, const std::tuple<Tensor, Tensor, Tensor>& out) {
  const int64_t tokens = sizes.tokens();
  const Samples<T> clips(x);
  const Parameter<A> uniform{noise};
  parallel(x.size(0), [&](int64_t n) {
    const A* u = uniform.data() + n * tokens;
    const Scratch<A> key(tokens);
    if (tau > 0) {
      constexpr bool kInPlace = std::is_same_v<T, A>;
      const Scratch<A> converted(kInPlace ? 0 : clips.size());
      const A* clip = converted.get();
      if constexpr (kInPlace) {
        clip = clips.raw(n);
      } else {
        convert(clips.raw(n), converted.get(), clips.size());
      }
      intensities(clip, sizes, key.get());
      const A most = *std::max_element(key.get(), key.get() + tokens);
      const A scale = A(1) / (most * static_cast<A>(tau) + static_cast<A>(kEps));
      for (int64_t i = 0; i < tokens; ++i) key[i] *= scale;
      add_gumbel(u, tokens, key.get());
    } else {
      std::copy_n(u, tokens, key.get());
    }
    const Scratch<OrderedKey<A>> order(tokens);
    for (int64_t i = 0; i < tokens; ++i) order[i] = ordered(key[i]);
    const auto& [ids_keep, mask, ids_restore] = out;
    const Selection<A> selection{data<int64_t>(ids_keep) + n * keep,
                                 data<int64_t>(ids_restore) + n * tokens,
                                 data<bool>(mask) + n * tokens, tokens, keep};
    exact ? selection.by_key(order.get()) : selection.by_place(order.get());
  });
}

std::tuple<Tensor, Tensor, Tensor> motion_mask(Tensor x, Tensor noise, int64_t keep,
                                               int64_t segment, double tau, bool exact) {
  SKELOPS_CHECK(x.dim() == 4 && segment > 0 && x.size(1) % segment == 0, "motion_mask",
                "x (N, T, V, C), T a multiple of the segment");
  const Sizes sizes{x.size(1) / segment, segment, x.size(2), x.size(3)};
  const int64_t batch = x.size(0), tokens = sizes.tokens();
  SKELOPS_CHECK(noise.dim() == 2 && noise.size(0) == batch && noise.size(1) == tokens &&
                    keep >= 0 && keep <= tokens,
                "motion_mask", "noise (N, L), keep in 0..L");
  const std::tuple<Tensor, Tensor, Tensor> out{new_tensor<int64_t>(x, {batch, keep}),
                                               new_tensor<bool>(x, {batch, tokens}),
                                               new_tensor<int64_t>(x, {batch, tokens})};
  dispatch(x, "motion_mask", [&](auto type) {
    using T = decltype(type);
    if (std::is_same_v<T, double> || noise.scalar_type() == ScalarType::Double) {
      select<T, double>(x, noise, sizes, keep, tau, exact, out);
    } else {
      select<T, float>(x, noise, sizes, keep, tau, exact, out);
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("motion_mask", TORCH_BOX(&motion_mask)); }

}  // namespace skelops
