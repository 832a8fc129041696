// Recursive Newton-Euler: accelerations from the root down, wrenches from the leaves up,
//   F = m a + al x h + w x (w x h),   N = h x a + I al + w x (I w)   (h = m c, N about the origin)
//   tau = z . N (revolute) or z . F (prismatic), of the wrenches of everything beyond the joint.
//
// Backward: p . tau = sum_i F_i . v*_i + N_i . w*_i, with (w*, v*) the velocities of a motion with
// joint rates p. One sweep down evaluates it, one sweep up carries its adjoints.
#pragma once

#include "math/rigid_body.h"

namespace skelops {

namespace inverse {
constexpr int kN = 0, kF = 3, kW = 6, kAl = 9, kA = 12, kR = 15, kSlots = 24;
}  // namespace inverse

// The motion of a body in its own axes.
template <typename S>
struct Motion {
  Vec3<S> w, al, a;  // angular velocity and acceleration, acceleration of the origin
};

// A joint turns about axis 0 of the cyclic axes (0, 1, 2).
template <typename S>
SKELOPS_HOST_DEVICE inline void turn_about(S& w0, S& w1, S& w2, S& al0, S& al1, S& al2, S& a1,
                                           S& a2, const S& s, const S& c, const S& qd,
                                           const S& qdd) {
  turn(w1, w2, s, c), turn(al1, al2, s, c), turn(a1, a2, s, c);
  al1 += w2 * qd, al2 -= w1 * qd;
  w0 += qd, al0 += qdd;
}

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline void turn_into(const TreeView<A>& tree, int i, Motion<S>& m, const S& s,
                                          const S& c, const S& qd, const S& qdd) {
  Vec3<S>&w = m.w, &al = m.al, &a = m.a;
  switch (tree.along(i)) {
    case 0:
      turn_about(w.x, w.y, w.z, al.x, al.y, al.z, a.y, a.z, s, c, qd, qdd);
      return;
    case 1:
      turn_about(w.y, w.z, w.x, al.y, al.z, al.x, a.z, a.x, s, c, qd, qdd);
      return;
    case 2:
      turn_about(w.z, w.x, w.y, al.z, al.x, al.y, a.x, a.y, s, c, qd, qdd);
      return;
    default: {
      const Vec3<S> u = every_lane<S>(tree.axis_of(i));
      w = turned(u, w, s, c), a = turned(u, a, s, c);
      al = turned(u, al, s, c) + cross(w, u) * qd + u * qdd;
      w += u * qd;
    }
  }
}

// `world` is the acceleration of the root: minus gravity. `wrench`, if given: (n, 6), force and
// moment about the origin that act on every body, in world axes. Of the rates qd and qdd, sines and
// cosines are left; `tau` may be either.
//
// Vectors are in the axes of their body here, and those of a body go on to the next in registers:
// memory holds the motions that several bodies start from, and the wrenches of massive bodies and
// of those where several meet.
template <typename S, typename A, typename M, typename W>
SKELOPS_HOST_DEVICE void inverse_dynamics(const TreeView<A>& tree, const S* q, S* qd, S* qdd,
                                          const W* wrench, const Vec3<S>& world, const M& memory,
                                          S* tau) {
  using namespace inverse;
  const Vec3<S> zero{};
  Motion<S> m{};
  Mat3<S> R{};
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    if (l < 0) {
      m = {zero, zero, world};
      if (wrench) R = identity<S>();
    } else if (l != i - 1) {
      const M from = memory.from(l * kSlots);
      m = {from.vec(kW), from.vec(kAl), from.vec(kA)};
      if (wrench) R = from.mat(kR);
    }
    if (tree.shifted(i)) {
      const Vec3<S> r = origin_of(tree, i, q[i]);
      m.a += cross(m.al, r) + cross(m.w, cross(m.w, r));
    }
    if (tree.revolute(i)) {
      S s, c;
      sine_cosine(q[i], s, c);
      turn_into(tree, i, m, s, c, qd[i], qdd[i]);
      if (wrench) R = rotate(tree, i, R, world_axis(tree, i, R), s, c);
      qd[i] = s, qdd[i] = c;
    } else {
      const Vec3<S> u = every_lane<S>(tree.axis_of(i));
      m.a += cross(m.w, u) * (qd[i] * 2.0f) + u * qdd[i];
    }
    const M body = memory.from(i * kSlots);
    Vec3<S> N{}, F{};
    if (tree.massive(i)) {
      const Vec3<S> h = every_lane<S>(tree.moment(i));
      const Sym3<A> I = tree.rotational(i);
      F = m.a * tree.mass(i) + cross(m.al, h) + cross(m.w, cross(m.w, h));
      N = cross(h, m.a) + I * m.al + cross(m.w, I * m.w);
    }
    if (wrench) {
      F -= transposed(R, Vec3<S>{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]});
      N -= transposed(R, Vec3<S>{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]});
    }
    if (wrench || tree.massive(i) || tree.branches(i)) body.put(kN, N), body.put(kF, F);
    if (tree.branches(i)) {
      body.put(kW, m.w), body.put(kAl, m.al), body.put(kA, m.a);
      if (wrench) body.put(kR, R);
    }
  }
  Vec3<S> N{}, F{};
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kSlots);
    if (wrench || tree.massive(i) || tree.branches(i)) N += body.vec(kN), F += body.vec(kF);
    const S s = qd[i], c = qdd[i];
    tau[i] = along_axis(tree, i, tree.revolute(i) ? N : F);
    if (tree.revolute(i)) turn(tree, i, -s, c, N, F);
    if (tree.shifted(i)) N += cross(origin_of(tree, i, q[i]), F);
    if (l == i - 1) continue;
    if (l >= 0) {
      const M to = memory.from(l * kSlots);
      to.add(kN, N), to.add(kF, F);
    }
    N = F = zero;
  }
}

namespace inverse_backward {
constexpr int kW = 0, kAl = 3, kA = 6, kWs = 9, kVs = 12;  // w*, v*
constexpr int kForce = 15, kMoment = 18, kSine = 21, kCosine = 22;
constexpr int kAdjoint = 23, kT = 38, kR = 41, kSlots = 50;
}  // namespace inverse_backward

// A motion and the one with joint rates p; or their adjoints.
template <typename S>
struct Motions {
  Vec3<S> w, al, a, ws, vs;

  SKELOPS_HOST_DEVICE void operator+=(const Motions& other) {
    w += other.w, al += other.al, a += other.a, ws += other.ws, vs += other.vs;
  }
};

template <typename S, typename M>
SKELOPS_HOST_DEVICE inline Motions<S> motions_at(const M& memory, int slot) {
  return {memory.vec(slot), memory.vec(slot + 3), memory.vec(slot + 6), memory.vec(slot + 9),
          memory.vec(slot + 12)};
}
template <typename S, typename M>
SKELOPS_HOST_DEVICE inline void put_motions(const M& memory, int slot, const Motions<S>& m) {
  memory.put(slot, m.w), memory.put(slot + 3, m.al), memory.put(slot + 6, m.a);
  memory.put(slot + 9, m.ws), memory.put(slot + 12, m.vs);
}

// The adjoints of a body's own F . v* + N . w*.
template <typename S, typename A, typename M>
SKELOPS_HOST_DEVICE inline Motions<S> own_adjoint(const TreeView<A>& tree, int i,
                                                  const Motions<S>& m, const M* dinertia) {
  const Vec3<S> h = every_lane<S>(tree.moment(i));
  const A mass = tree.mass(i);
  const Sym3<A> I = tree.rotational(i);
  const Vec3<S> s = cross(m.w, h), ds = cross(m.vs, m.w);  // of w x (w x h)
  const Vec3<S> spin = I * m.w, dspin = cross(m.ws, m.w);  // of w x (I w)
  const Vec3<S> turn = I * m.al;
  if (dinertia) {
    const Sym3<S> twice = symmetric_outer(m.al, m.ws) + symmetric_outer(m.w, dspin);
    add_inertia_grad(*dinertia, i, dot(m.a, m.vs),
                     cross(m.vs, m.al) + cross(m.a, m.ws) + cross(ds, m.w), scaled(twice, 0.5f));
  }
  return {cross(s, m.vs) + cross(h, ds) + cross(spin, m.ws) + I * dspin, cross(h, m.vs) + I * m.ws,
          m.vs * mass + cross(m.ws, h), cross(h, m.a) + turn + cross(m.w, spin),
          m.a * mass + cross(m.al, h) + cross(m.w, s)};
}

// Gradients of p . tau. `dinertia`, if given, is added to; all others are written, and may be what
// they are gradients of.
//
// A vector that a joint turns has the gradient u . (dv x v) to the angle; so has what is left of a
// given wrench, which is turned by all joints on the way from the root: t.
template <typename S, typename A, typename M, typename W>
SKELOPS_HOST_DEVICE void inverse_dynamics_backward(const TreeView<A>& tree, const S* p, const S* q,
                                                   const S* qd, const S* qdd, const W* wrench,
                                                   const Vec3<S>& world, const M& memory, S* dq,
                                                   S* dqd, S* dqdd, W* dwrench, const M* dinertia) {
  using namespace inverse_backward;
  const Vec3<S> zero{};
  Motions<S> m{};
  Mat3<S> R{};
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kSlots);
    if (l < 0) {
      m = Motions<S>{zero, zero, world, zero, zero};
      if (wrench) R = identity<S>();
    } else if (l != i - 1) {
      m = motions_at<S>(memory, l * kSlots);
      if (wrench) R = memory.mat(l * kSlots + kR);
    }
    if (tree.shifted(i)) {
      const Vec3<S> r = origin_of(tree, i, q[i]);
      m.a += cross(m.al, r) + cross(m.w, cross(m.w, r));
      m.vs += cross(m.ws, r);
    }
    const Vec3<S> u = every_lane<S>(tree.axis_of(i));
    if (tree.revolute(i)) {
      S s, c;
      sine_cosine(q[i], s, c);
      turn(tree, i, s, c, m.w, m.al, m.a, m.ws, m.vs);
      if (wrench) R = rotate(tree, i, R, world_axis(tree, i, R), s, c);
      m.al += cross(m.w, u) * qd[i] + u * qdd[i];
      m.w += u * qd[i];
      m.ws += u * p[i];
      body[kSine] = s, body[kCosine] = c;
    } else {
      m.a += cross(m.w, u) * (qd[i] * 2.0f) + u * qdd[i];
      m.vs += u * p[i];
    }
    put_motions(body, kW, m);
    if (wrench) {
      const Vec3<S> F{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]};
      const Vec3<S> N{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]};
      body.put(kForce, transposed(R, F)), body.put(kMoment, transposed(R, N));
      if (dwrench) {
        const Vec3<S> vs = R * m.vs, ws = R * m.ws;
        dwrench[6 * i] = -vs.x, dwrench[6 * i + 1] = -vs.y, dwrench[6 * i + 2] = -vs.z;
        dwrench[6 * i + 3] = -ws.x, dwrench[6 * i + 4] = -ws.y, dwrench[6 * i + 5] = -ws.z;
      }
    }
    if (tree.branches(i)) {
      put_motions(body, kAdjoint, Motions<S>{});
      body.put(kT, zero);
      if (wrench) body.put(kR, R);
    }
  }
  Motions<S> d{};
  Vec3<S> t{};
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kSlots);
    const S rate = qd[i];
    m = motions_at<S>(body, kW);
    if (tree.massive(i)) d += own_adjoint(tree, i, m, dinertia);
    if (wrench) {
      const Vec3<S> F = body.vec(kForce), N = body.vec(kMoment);
      d.vs -= F, d.ws -= N;
      t += cross(F, m.vs) + cross(N, m.ws);
    }
    if (tree.branches(i)) d += motions_at<S>(body, kAdjoint), t += body.vec(kT);
    const Vec3<S> u = every_lane<S>(tree.axis_of(i));
    if (tree.revolute(i)) {
      const Vec3<S> across = cross(m.w, u);
      dqd[i] = along_axis(tree, i, d.w) + dot(across, d.al);
      dqdd[i] = along_axis(tree, i, d.al);
      d.w += cross(u, d.al) * rate;
      dq[i] = along_axis(tree, i,
                         t + cross(d.w, m.w) + cross(d.al, m.al - across * rate) + cross(d.a, m.a) +
                             cross(d.ws, m.ws) + cross(d.vs, m.vs));
      const S s = -body[kSine], c = body[kCosine];
      turn(tree, i, s, c, d.w, d.al, d.a, d.ws, d.vs, t);
    } else {
      dqd[i] = along_axis(tree, i, cross(d.a, m.w)) * 2.0f;
      dqdd[i] = along_axis(tree, i, d.a);
      d.w += cross(u, d.a) * (rate * 2.0f);
    }
    if (tree.shifted(i)) {
      Vec3<S> w{}, al{}, ws{};
      if (l >= 0) {
        const M from = memory.from(l * kSlots);
        w = from.vec(kW), al = from.vec(kAl), ws = from.vec(kWs);
      }
      const Vec3<S> r = origin_of(tree, i, q[i]), ds = cross(d.a, w);
      if (!tree.revolute(i)) {
        dq[i] = along_axis(tree, i, cross(d.a, al) + cross(ds, w) + cross(d.vs, ws));
      }
      d.w += cross(cross(w, r), d.a) + cross(r, ds);
      d.al += cross(r, d.a);
      d.ws += cross(r, d.vs);
    }
    if (l == i - 1) continue;
    if (l >= 0) {
      const M to = memory.from(l * kSlots);
      to.add(kAdjoint, d.w), to.add(kAdjoint + 3, d.al), to.add(kAdjoint + 6, d.a);
      to.add(kAdjoint + 9, d.ws), to.add(kAdjoint + 12, d.vs);
      to.add(kT, t);
    }
    d = Motions<S>{}, t = zero;
  }
}

}  // namespace skelops
