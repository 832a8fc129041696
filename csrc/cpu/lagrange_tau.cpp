// lagrange_tau: forces of a learned mass matrix M = L L^T and a learned skew part, clip by clip. L
// and the skew part are used from their packed rows; no matrix is formed, in either direction.
#include "math/lagrange_tau.h"

#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

constexpr const char* kOp = "lagrange_tau";

template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < count; ++j) sum += a[j] * b[j];
  return sum;
}

// L of a frame: its packed rows, diagonal in place.
template <typename A>
class Factor {
 public:
  explicit Factor(int64_t d) : d_(d), rows_(d * (d + 1) / 2) {}

  void load(const A* packed) {
    std::copy_n(packed, d_ * (d_ + 1) / 2, rows_.get());
    A* diagonal = rows_.get();
    for (int64_t i = 0; i < d_; diagonal += ++i + 1)
      *diagonal = softplus(*diagonal) + A(kSoftplusShift);
  }
  // u = L^T x
  void transposed(const A* x, A* u) const {
    const A* row = rows_.get();
    for (int64_t i = 0; i < d_; row += ++i) {
      const A xi = x[i];
      u[i] = row[i] * xi;
#pragma omp simd
      for (int64_t j = 0; j < i; ++j) u[j] += row[j] * xi;
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
  Scratch<A> rows_;
};

// y += scale (U - U^T) x of the packed rows above the diagonal.
template <typename A>
void add_skew(const A* row, const A* x, int64_t d, A scale, A* y) {
  for (int64_t i = 0; i + 1 < d; row += d - 1 - i, ++i) {
    const A xi = x[i] * scale;
    const A* const beyond = x + i + 1;
    A* const to = y + i + 1;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < d - 1 - i; ++j) {
      sum += row[j] * beyond[j];
      to[j] -= row[j] * xi;
    }
    y[i] += scale * sum;
  }
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
    const Scratch<A> converted(lowers.kInPlace ? 0 : entries), vectors(6 * d);
    A *const v = vectors.get(), *const a = v + d, *const u = a + d, *const w = u + d;
    A *const past = w + d, *const y = past + d;
    for (int64_t t = 0; t < s.frames; ++t) {
      now.load(lowers.get(clip, t * entries, entries, converted.get()));
      convert(rates.raw(clip) + t * d, v, d);
      convert(accelerations.raw(clip) + t * d, a, d);
      std::fill_n(y, d, A(0));
      now.transposed(v, u);
      now.transposed(a, w);
      data<T>(kinetic)[clip * s.frames + t] = static_cast<T>(A(0.5) * dot(u, u, d));
      for (int64_t j = 0; j < d; ++j) w[j] += A(0.5) * u[j];
      now.add_product(w, A(1), y);
      if (t > 0) {
        before.transposed(v, past);
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
    const Scratch<A> converted(lowers.kInPlace ? 0 : entries), vectors(13 * d);
    A* at = vectors.get();
    const auto vector = [&] { return (at += d) - d; };
    // Of this frame and the next: velocity, gradient; then products with L^T.
    A *v = vector(), *v_next = vector(), *g = vector(), *g_next = vector();
    A *const x = vector(), *const Lg = vector(), *const Lx = vector(), *const Lv = vector();
    A *const Lg_next = vector(), *const Lv_next = vector(), *const sum = vector();
    A *dv = vector(), *dv_next = vector();
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
      L.transposed(g, Lg), L.transposed(x, Lx), L.transposed(v, Lv);
      L.transposed(g_next, Lg_next), L.transposed(v_next, Lv_next);
      if (wants(needs, 0)) {
        T* row = data<T>(found[0]) + (clip * frames + t) * entries;
        const A* raw = packed;
        for (int64_t i = 0; i < d; row += ++i, raw += i) {
          const A gi = g[i], xi = x[i], hi = A(-0.5) * g_next[i], ui = A(-0.5) * v_next[i];
          const A ei = energy * v[i];
#pragma omp simd
          for (int64_t j = 0; j <= i; ++j) {
            row[j] = static_cast<T>(gi * Lx[j] + xi * Lg[j] + hi * Lv_next[j] + ui * Lg_next[j] +
                                    ei * Lv[j]);
          }
          row[i] = static_cast<T>(
              (gi * Lx[i] + xi * Lg[i] + hi * Lv_next[i] + ui * Lg_next[i] + ei * Lv[i]) *
              softplus_slope(raw[i]));
        }
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
        T* row = data<T>(found[1]) + (clip * frames + t) * (entries - d);
        for (int64_t i = 0; i + 1 < d; row += d - 1 - i, ++i) {
          for (int64_t j = 0; j < d - 1 - i; ++j) {
            row[j] = static_cast<T>(A(-0.5) * (g[i] * v[i + 1 + j] - g[i + 1 + j] * v[i]));
          }
        }
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
