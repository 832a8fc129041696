// lagrange_tau: forces of a learned mass matrix M = L L^T and a learned skew part, clip by clip. L
// and the skew part are used from their packed rows; no matrix is formed, in either direction.
#include "math/lagrange_tau.h"

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/logistic.h"
#include "math/moments.h"
#include "math/softplus.h"

namespace skelops {
namespace {

constexpr const char* kOp = "lagrange_tau";

template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  return reduce<A>(count, [=](int64_t j, int lanes) {
    return load_some(a + j, lanes) * load_some(b + j, lanes);
  });
}

// L of a frame: its packed rows, diagonal in place.
template <typename A>
class Factor {
 public:
  using S = Simd<A>;
  explicit Factor(int64_t d) : d_(d), rows_(d * (d + 1) / 2), diagonal_(d) {}

  void load(const A* packed) {
    std::copy_n(packed, d_ * (d_ + 1) / 2, rows_.get());
    const A* raw = packed;
    for (int64_t i = 0; i < d_; raw += ++i + 1) diagonal_[i] = *raw;
    vectors<A>(d_, [&](int64_t i, int lanes) {
      A* at = diagonal_.get() + i;
      S::store(at, softplus(load_some(at, lanes)) + A(kSoftplusShift), lanes);
    });
    A* to = rows_.get();
    for (int64_t i = 0; i < d_; to += ++i + 1) *to = diagonal_[i];
  }
  // u[k] = L^T x[k]: four rows at a time, so that u is read and written a quarter as often.
  template <int K>
  void transposed(const A* const (&x)[K], A* const (&u)[K]) const {
    for (int k = 0; k < K; ++k) std::fill_n(u[k], d_, A(0));
    const A* row = rows_.get();
    int64_t i = 0;
    for (; i + 4 <= d_; i += 4) {
      const A* r[4] = {row, row + i + 1, row + 2 * i + 3, row + 3 * i + 6};
      vectors<A>(i, [&](int64_t j, int lanes) {
        typename S::Vec of[4];
        for (int m = 0; m < 4; ++m) of[m] = load_some(r[m] + j, lanes);
        for (int k = 0; k < K; ++k) {
          auto sum = load_some(u[k] + j, lanes);
          for (int m = 0; m < 4; ++m) sum += of[m] * x[k][i + m];
          S::store(u[k] + j, sum, lanes);
        }
      });
      for (int m = 0; m < 4; ++m) {
        for (int j = 0; j <= m; ++j) {
          for (int k = 0; k < K; ++k) u[k][i + j] += r[m][i + j] * x[k][i + m];
        }
      }
      row = r[3] + i + 4;
    }
    for (; i < d_; row += ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        for (int k = 0; k < K; ++k) u[k][j] += row[j] * x[k][i];
      }
    }
  }
  // y += scale L u
  void add_product(const A* u, A scale, A* y) const {
    const A* row = rows_.get();
    for (int64_t i = 0; i < d_; row += ++i) y[i] += scale * dot(row, u, i + 1);
  }
  void swap(Factor& other) { std::swap(rows_, other.rows_); }

 private:
  int64_t d_;
  Scratch<A> rows_, diagonal_;
};

// y += scale (U - U^T) x of the packed rows above the diagonal.
template <typename A>
void add_skew(const A* row, const A* x, int64_t d, A scale, A* y) {
  using S = Simd<A>;
  for (int64_t i = 0; i + 1 < d; row += d - 1 - i, ++i) {
    const A xi = x[i] * scale;
    const A* const beyond = x + i + 1;
    A* const to = y + i + 1;
    y[i] += scale * reduce<A>(d - 1 - i, [=](int64_t j, int lanes) {
              const auto r = load_some(row + j, lanes);
              S::store(to + j, load_some(to + j, lanes) - r * xi, lanes);
              return r * load_some(beyond + j, lanes);
            });
  }
}

// Where results in A go: to their own place, or into scratch if they are converted after.
template <typename A, typename T>
A* in_place(T* to, A* scratch) {
  if constexpr (std::is_same_v<A, T>) return to;
  return scratch;
}

struct Sizes {
  Sizes(const Tensor& lower, const Tensor& skew, const Tensor& qd, const Tensor& qdd)
      : clips(qd.size(0)), frames(qd.size(1)), d(qd.size(2)) {
    SKELOPS_CHECK(lower.numel() == clips * frames * entries() &&
                      skew.numel() == clips * frames * (entries() - d) &&
                      qdd.numel() == clips * frames * d,
                  kOp, "lower (N, T, d (d + 1) / 2), skew (N, T, d (d - 1) / 2), qd and qdd");
  }
  int64_t entries() const { return d * (d + 1) / 2; }
  int64_t clips, frames, d;
};

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& lower, const Tensor& skew, const Tensor& qd,
                                   const Tensor& qdd) {
  using A = Accumulate<T>;
  const Sizes s(lower, skew, qd, qdd);
  const int64_t d = s.d, entries = s.entries();
  const Samples<T> lowers(lower), skews(skew), rates(qd), accelerations(qdd);
  Tensor tau = new_tensor<T>(qd, {s.clips, s.frames, d});
  Tensor kinetic = new_tensor<T>(qd, {s.clips, s.frames});
  parallel(s.clips, [&](int64_t clip) {
    Factor<A> now(d), before(d);
    const Scratch<A> converted(lowers.kInPlace ? 0 : entries), values(6 * d);
    A *const v = values.get(), *const a = v + d, *const u = a + d, *const w = u + d;
    A *const past = w + d, *const y = past + d;
    for (int64_t t = 0; t < s.frames; ++t) {
      now.load(lowers.get(clip, t * entries, entries, converted.get()));
      convert(rates.raw(clip) + t * d, v, d);
      convert(accelerations.raw(clip) + t * d, a, d);
      std::fill_n(y, d, A(0));
      now.template transposed<2>({v, a}, {u, w});
      data<T>(kinetic)[clip * s.frames + t] = static_cast<T>(A(0.5) * dot(u, u, d));
      for (int64_t j = 0; j < d; ++j) w[j] += A(0.5) * u[j];
      now.add_product(w, A(1), y);
      if (t > 0) {
        before.template transposed<1>({v}, {past});
        before.add_product(past, A(-0.5), y);
      }
      add_skew(skews.get(clip, t * (entries - d), entries - d, converted.get()), v, d, A(-0.5), y);
      convert(y, data<T>(tau) + (clip * s.frames + t) * d, d);
      now.swap(before);
    }
  });
  return {tau, kinetic};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_tau,
                                                    const Tensor& grad_kinetic, const Tensor& lower,
                                                    const Tensor& skew, const Tensor& qd,
                                                    const Tensor& qdd, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Sizes s(lower, skew, qd, qdd);
  const int64_t d = s.d, entries = s.entries(), frames = s.frames;
  const Samples<T> lowers(lower), skews(skew), rates(qd), accelerations(qdd), grads(grad_tau);
  const Samples<T> energies(grad_kinetic);
  const int64_t sizes[] = {entries, entries - d, d, d};
  Tensor found[4];
  for (int i = 0; i < 4; ++i) {
    found[i] = wants(needs, i) ? new_tensor<T>(qd, {s.clips, frames, sizes[i]}) : no_gradient(qd);
  }
  parallel(s.clips, [&](int64_t clip) {
    Factor<A> L(d);
    const int64_t convert_size = lowers.kInPlace ? 0 : entries;
    const Scratch<A> converted(convert_size), result(convert_size), values(14 * d);
    A* at = values.get();
    const auto vector = [&] { return (at += d) - d; };
    // Of this frame and the next: velocity, gradient; then products with L^T.
    A *v = vector(), *v_next = vector(), *g = vector(), *g_next = vector();
    A *const x = vector(), *const Lg = vector(), *const Lx = vector(), *const Lv = vector();
    A *const Lg_next = vector(), *const Lv_next = vector(), *const sum = vector();
    A *dv = vector(), *dv_next = vector();
    A* const slopes = vector();
    std::fill_n(dv, d, A(0));
    convert(rates.raw(clip), v, frames ? d : 0);
    convert(grads.raw(clip), g, frames ? d : 0);
    for (int64_t t = 0; t < frames; ++t) {
      const bool last = t + 1 == frames;
      if (!last) {
        convert(rates.raw(clip) + (t + 1) * d, v_next, d);
        convert(grads.raw(clip) + (t + 1) * d, g_next, d);
      } else {
        std::fill_n(v_next, d, A(0)), std::fill_n(g_next, d, A(0));
      }
      convert(accelerations.raw(clip) + t * d, x, d);
      for (int64_t j = 0; j < d; ++j) x[j] += A(0.5) * v[j];
      const A energy = static_cast<A>(energies.raw(clip)[t]);
      const A* const packed = lowers.get(clip, t * entries, entries, converted.get());
      L.load(packed);
      L.template transposed<5>({g, x, v, g_next, v_next}, {Lg, Lx, Lv, Lg_next, Lv_next});
      if (wants(needs, 0)) {
        T* const to = data<T>(found[0]) + (clip * frames + t) * entries;
        A* const lower_gradient = in_place<A>(to, result.get());
        A* row = lower_gradient;
        const A* raw = packed;
        for (int64_t i = 0; i < d; row += ++i, raw += i) {
          const A gi = g[i], xi = x[i], hi = A(-0.5) * g_next[i], ui = A(-0.5) * v_next[i];
          const A ei = energy * v[i];
          vectors<A>(i + 1, [&](int64_t j, int lanes) {
            const auto next =
                load_some(Lv_next + j, lanes) * hi + load_some(Lg_next + j, lanes) * ui;
            const auto here = load_some(Lx + j, lanes) * gi + load_some(Lg + j, lanes) * xi;
            S::store(row + j, here + next + load_some(Lv + j, lanes) * ei, lanes);
          });
          slopes[i] = raw[i];
        }
        vectors<A>(d, [&](int64_t i, int lanes) {
          const auto at = load_some(slopes + i, lanes);
          const auto slope = at > A(kSoftplusThreshold) ? at * 0 + 1 : logistic(at);
          S::store(slopes + i, slope, lanes);
        });
        row = lower_gradient;
        for (int64_t i = 0; i < d; row += ++i + 1) *row *= slopes[i];
        if (!lowers.kInPlace) convert(lower_gradient, to, entries);
      }
      if (wants(needs, 3)) {
        std::fill_n(sum, d, A(0));
        L.add_product(Lg, A(1), sum);
        convert(sum, data<T>(found[3]) + (clip * frames + t) * d, d);
      }
      if (wants(needs, 2)) {
        for (int64_t j = 0; j < d; ++j) sum[j] = A(0.5) * Lg[j] + energy * Lv[j];
        L.add_product(sum, A(1), dv);
        std::fill_n(dv_next, d, A(0));
        L.add_product(Lg_next, A(-0.5), dv_next);
        add_skew(skews.get(clip, t * (entries - d), entries - d, converted.get()), g, d, A(0.5),
                 dv);
        convert(dv, data<T>(found[2]) + (clip * frames + t) * d, d);
        std::swap(dv, dv_next);
      }
      if (wants(needs, 1)) {
        T* const to = data<T>(found[1]) + (clip * frames + t) * (entries - d);
        A* const skew_gradient = in_place<A>(to, result.get());
        A* row = skew_gradient;
        for (int64_t i = 0; i + 1 < d; row += d - 1 - i, ++i) {
          const A gi = A(-0.5) * g[i], vi = A(-0.5) * v[i];
          vectors<A>(d - 1 - i, [&](int64_t j, int lanes) {
            const auto along = load_some(v + i + 1 + j, lanes) * gi;
            S::store(row + j, along - load_some(g + i + 1 + j, lanes) * vi, lanes);
          });
        }
        if (!lowers.kInPlace) convert(skew_gradient, to, entries - d);
      }
      std::swap(v, v_next), std::swap(g, g_next);
    }
  });
  return {found[0], found[1], found[2], found[3]};
}

std::tuple<Tensor, Tensor> lagrange_tau_cpu(Tensor lower, Tensor skew, Tensor qd, Tensor qdd) {
  return dispatch(qd, kOp,
                  [&](auto type) { return forward<decltype(type)>(lower, skew, qd, qdd); });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lagrange_tau_backward_cpu(Tensor grad_tau,
                                                                     Tensor grad_kinetic,
                                                                     Tensor lower, Tensor skew,
                                                                     Tensor qd, Tensor qdd,
                                                                     int64_t needs) {
  return dispatch(qd, kOp, [&](auto type) {
    return backward<decltype(type)>(grad_tau, grad_kinetic, lower, skew, qd, qdd, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("lagrange_tau", TORCH_BOX(&lagrange_tau_cpu));
  m.impl("lagrange_tau_backward", TORCH_BOX(&lagrange_tau_backward_cpu));
}

}  // namespace skelops
