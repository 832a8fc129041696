// Point masses joined by rigid bones, in Cartesian coordinates:
//   m_j a_j = f_j + (J^T lam)_j,   e . (a_j - a_p) = -gamma,   e = x_j - x_p, bone j from p to j.
// From the leaves up, the mass beyond a joint is what Phi a = b + (pull of its bone); a bone passes
// on
//   Phi_p += e e^T / k,  b_p += e s / k,   k = e . Phi^-1 e,  s = e . Phi^-1 b + gamma.
//
// Backward: the adjoint (w, mu) solves the same system, for the gradients as force and as gamma.
#pragma once

#include "math/rigid_body.h"

namespace skelops {

namespace points {
constexpr int kInverse = 0, kB = 6, kInverseK = 9, kS = 10, kPhi = 0, kSlots = 11;
}  // namespace points

// Joints in an order with parents first, and their parents.
struct PointTree {
  int size;
  const int* order;
  const int* parent;
};

template <int D, typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> point_at(const S* x, int j) {
  if constexpr (D == 3) return {x[3 * j], x[3 * j + 1], x[3 * j + 2]};
  return {x[2 * j], x[2 * j + 1], S{}};
}
template <int D, typename S>
SKELOPS_HOST_DEVICE inline void put_point(S* x, int j, const Vec3<S>& v) {
  x[D * j] = v.x, x[D * j + 1] = v.y;
  if constexpr (D == 3) x[3 * j + 2] = v.z;
}
template <int D, typename S>
SKELOPS_HOST_DEVICE inline void add_point(S* x, int j, const Vec3<S>& v) {
  put_point<D>(x, j, point_at<D>(x, j) + v);
}

template <typename S>
SKELOPS_HOST_DEVICE inline Sym3<S> inverse_of(const Sym3<S>& m) {
  const S xx = m.yy * m.zz - m.yz * m.yz, xy = m.xz * m.yz - m.xy * m.zz;
  const S xz = m.xy * m.yz - m.xz * m.yy;
  const S scale = 1.0f / (m.xx * xx + m.xy * xy + m.xz * xz);
  return scaled(Sym3<S>{xx, xy, m.xx * m.zz - m.xz * m.xz, xz, m.xy * m.xz - m.xx * m.yz,
                        m.xx * m.yy - m.xy * m.xy},
                scale);
}

// Phi^-1 and 1 / k of every joint: what does not depend on the forces.
template <int D, typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void factor_points(const PointTree& tree, const A* mass, const S* x,
                                       const M& memory) {
  using namespace points;
  for (int j = 0; j < tree.size; ++j) {
    const S m = S{} + mass[j], zero{};
    memory.put(j * kSlots + kPhi, Sym3<S>{m, zero, m, zero, zero, m});
  }
  for (int at = tree.size - 1; at >= 0; --at) {
    const int j = tree.order[at], p = tree.parent[j];
    const M body = memory.from(j * kSlots);
    const Sym3<S> inverse = inverse_of(body.sym(kPhi));
    body.put(kInverse, inverse);
    if (at == 0) return;
    const Vec3<S> e = point_at<D>(x, j) - point_at<D>(x, p);
    const S scale = 1.0f / dot(e, inverse * e);
    body[kInverseK] = scale;
    const Vec3<S> u = e * scale;
    memory.add(p * kSlots + kPhi,
               Sym3<S>{u.x * e.x, u.x * e.y, u.y * e.y, u.x * e.z, u.y * e.z, u.z * e.z});
  }
}

// Accelerations and multipliers; `gamma(j)` of bone j. `a` may be the force, `lam` what gamma
// reads.
template <int D, typename S, typename M, typename Gamma>
SKELOPS_HOST_DEVICE void solve_points(const PointTree& tree, const S* x, const S* force,
                                      const Gamma& gamma, const M& memory, S* a, S* lam) {
  using namespace points;
  for (int j = 0; j < tree.size; ++j) memory.put(j * kSlots + kB, point_at<D>(force, j));
  for (int at = tree.size - 1; at > 0; --at) {
    const int j = tree.order[at], p = tree.parent[j];
    const M body = memory.from(j * kSlots);
    const Vec3<S> e = point_at<D>(x, j) - point_at<D>(x, p);
    const S s = dot(e, body.sym(kInverse) * body.vec(kB)) + gamma(j);
    body[kS] = s;
    memory.add(p * kSlots + kB, e * (s * body[kInverseK]));
  }
  for (int at = 0; at < tree.size; ++at) {
    const int j = tree.order[at], p = tree.parent[j];
    const M body = memory.from(j * kSlots);
    Vec3<S> b = body.vec(kB);
    if (at > 0) {
      const Vec3<S> e = point_at<D>(x, j) - point_at<D>(x, p);
      lam[j] = (dot(e, point_at<D>(a, p)) - body[kS]) * body[kInverseK];
      b += e * lam[j];
    }
    put_point<D>(a, j, body.sym(kInverse) * b);
  }
}

// The rate of the constraint that velocities make.
template <int D, typename S>
struct Centripetal {
  const PointTree& tree;
  const S* v;
  SKELOPS_HOST_DEVICE S operator()(int j) const {
    const Vec3<S> d = point_at<D>(v, j) - point_at<D>(v, tree.parent[j]);
    return dot(d, d);
  }
};
template <typename S>
struct Given {
  const S* values;
  SKELOPS_HOST_DEVICE S operator()(int j) const { return values[j]; }
};

// `lam` has a value per joint; the root's is not touched.
template <int D, typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void point_dynamics(const PointTree& tree, const A* mass, const S* x,
                                        const S* v, const S* force, const M& memory, S* a, S* lam) {
  factor_points<D>(tree, mass, x, memory);
  solve_points<D>(tree, x, force, Centripetal<D, S>{tree, v}, memory, a, lam);
}

// `a`, `lam`, `mu`: scratch. `dforce` receives w; `dmass`, if given, is added to. `a` may be the
// force, `dforce` grad_a, `mu` grad_lam and `dx` x.
template <int D, typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void point_dynamics_backward(const PointTree& tree, const A* mass,
                                                 const S* grad_a, const S* grad_lam, const S* x,
                                                 const S* v, const S* force, const M& memory, S* a,
                                                 S* lam, S* mu, S* dx, S* dv, S* dforce,
                                                 const M* dmass) {
  point_dynamics<D>(tree, mass, x, v, force, memory, a, lam);
  solve_points<D>(tree, x, grad_a, Given<S>{grad_lam}, memory, dforce, mu);
  for (int j = 0; j < D * tree.size; ++j) dx[j] = dv[j] = S{};
  for (int at = 0; at < tree.size; ++at) {
    const int j = tree.order[at], p = tree.parent[j];
    const Vec3<S> aj = point_at<D>(a, j), wj = point_at<D>(dforce, j);
    if (dmass) (*dmass)[j] -= dot(wj, aj);
    if (at == 0) continue;
    const Vec3<S> de = (wj - point_at<D>(dforce, p)) * lam[j] + (aj - point_at<D>(a, p)) * mu[j];
    const Vec3<S> du = (point_at<D>(v, j) - point_at<D>(v, p)) * (mu[j] * 2.0f);
    const Vec3<S> zero{};
    add_point<D>(dx, j, de), add_point<D>(dx, p, zero - de);
    add_point<D>(dv, j, du), add_point<D>(dv, p, zero - du);
  }
}

}  // namespace skelops
