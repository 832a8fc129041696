// Recursive Newton-Euler: accelerations from the root down, wrenches from the leaves up,
//   F = m a + al x h + w x (w x h),   N = h x a + I al + w x (I w)   (h = m c, N about the origin)
//   tau = z . N (revolute) or z . F (prismatic), of the wrenches of everything beyond the joint.
//
// Backward: p . tau = sum_i F_i . v*_i + N_i . w*_i, with (w*, v*) the velocities of a motion with
// joint rates p. One sweep down evaluates it, one sweep up carries its adjoints; the gradient to a
// rotation of a body is a torque t, handed to the parent like the moments.
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
    if (tree.revolute(i)) turn(tree, i, N, F, -s, c);
    if (tree.shifted(i)) N += cross(origin_of(tree, i, q[i]), F);
    if (l == i - 1) continue;
    if (l >= 0) {
      const M to = memory.from(l * kSlots);
      to.add(kN, N), to.add(kF, F);
    }
    N = F = zero;
  }
}

// The backward pass is in world axes.
template <typename S>
struct WorldMotion {
  Mat3<S> R;
  Vec3<S> w, al, a;  // angular velocity and acceleration, acceleration of the origin
};

namespace inverse_backward {
constexpr int kR = 0, kW = 9, kAl = 12, kA = 15;
constexpr int kRates = 18;    // w*, v*
constexpr int kAdjoint = 24;  // of w, al, a, w*, v*, and t
constexpr int kSlots = 42;
}  // namespace inverse_backward

template <typename S, typename M>
SKELOPS_HOST_DEVICE inline WorldMotion<S> motion_of(const M& memory, int i, int slots,
                                                    const Vec3<S>& world) {
  const Vec3<S> zero{};
  if (i < 0) return {identity<S>(), zero, zero, world};
  const M body = memory.from(i * slots);
  return {body.mat(inverse_backward::kR), body.vec(inverse_backward::kW),
          body.vec(inverse_backward::kAl), body.vec(inverse_backward::kA)};
}

// The motion of body i from its parent's.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline WorldMotion<S> advance(const TreeView<A>& tree, int i,
                                                  const WorldMotion<S>& from, const Joint<S>& joint,
                                                  const S& q, const S& qd, const S& qdd) {
  WorldMotion<S> to = from;
  if (tree.shifted(i)) to.a += cross(from.al, joint.r) + cross(from.w, cross(from.w, joint.r));
  if (tree.revolute(i)) {
    to.R = rotate(tree, i, from.R, joint.z, q);
    to.w += joint.z * qd;
    to.al += cross(from.w, joint.z) * qd + joint.z * qdd;
  } else {
    to.a += cross(from.w, joint.z) * (qd * 2.0f) + joint.z * qdd;
  }
  return to;
}

// Gradients of p . tau. `dinertia`, if given, is added to; all others are written, and may be what
// they are gradients of.
template <typename S, typename A, typename M, typename W>
SKELOPS_HOST_DEVICE void inverse_dynamics_backward(const TreeView<A>& tree, const S* p, const S* q,
                                                   const S* qd, const S* qdd, const W* wrench,
                                                   const Vec3<S>& world, const M& memory, S* dq,
                                                   S* dqd, S* dqdd, W* dwrench, const M* dinertia) {
  using namespace inverse_backward;
  constexpr int kDw = kAdjoint, kDal = kDw + 3, kDa = kDw + 6, kDws = kDw + 9, kDvs = kDw + 12;
  constexpr int kT = kDw + 15, kWs = kRates, kVs = kRates + 3, kStep = kSlots;
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const WorldMotion<S> from = motion_of(memory, l, kStep, world);
    const Joint<S> joint = joint_of(tree, i, from.R, q[i]);
    const WorldMotion<S> m = advance(tree, i, from, joint, q[i], qd[i], qdd[i]);
    Vec3<S> ws{}, vs{};
    if (l >= 0) ws = memory.vec(l * kStep + kWs), vs = memory.vec(l * kStep + kVs);
    if (tree.shifted(i)) vs += cross(ws, joint.r);
    (tree.revolute(i) ? ws : vs) += joint.z * p[i];
    const M body = memory.from(i * kStep);
    body.put(kR, m.R), body.put(kW, m.w), body.put(kAl, m.al), body.put(kA, m.a);
    body.put(kWs, ws), body.put(kVs, vs);

    Vec3<S> dw{}, dal{}, da{}, dws{}, dvs{}, t{};
    if (tree.massive(i)) {
      const Inertia<S> inertia = world_inertia(tree, i, m.R);
      const Vec3<S>& h = inertia.h;
      const Vec3<S> s = cross(m.w, h), ds = cross(vs, m.w);          // of w x (w x h)
      const Vec3<S> spin = inertia.I * m.w, dspin = cross(ws, m.w);  // of w x (I w)
      const Vec3<S> turn = inertia.I * m.al, Iws = inertia.I * ws, Idspin = inertia.I * dspin;
      dvs = m.a * inertia.m + cross(m.al, h) + cross(m.w, s);
      dws = cross(h, m.a) + turn + cross(m.w, spin);
      da = vs * inertia.m + cross(ws, h);
      dal = cross(h, vs) + Iws;
      dw = cross(s, vs) + cross(h, ds) + cross(spin, ws) + Idspin;
      const Vec3<S> dh = cross(vs, m.al) + cross(m.a, ws) + cross(ds, m.w);
      t = cross(h, dh) + cross(turn, ws) + cross(Iws, m.al) + cross(spin, dspin) +
          cross(Idspin, m.w);
      if (dinertia) {
        const Sym3<S> twice = symmetric_outer(m.al, ws) + symmetric_outer(m.w, dspin);
        add_inertia_grad(*dinertia, i, m.R, dot(m.a, vs), dh, scaled(twice, 0.5f));
      }
    }
    if (wrench) {
      dvs -= Vec3<S>{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]};
      dws -= Vec3<S>{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]};
      // The wrench's force is applied at the origin, whose rotation moves neither.
      if (dwrench) {
        dwrench[6 * i] = -vs.x, dwrench[6 * i + 1] = -vs.y, dwrench[6 * i + 2] = -vs.z;
        dwrench[6 * i + 3] = -ws.x, dwrench[6 * i + 4] = -ws.y, dwrench[6 * i + 5] = -ws.z;
      }
    }
    body.put(kDw, dw), body.put(kDal, dal), body.put(kDa, da);
    body.put(kDws, dws), body.put(kDvs, dvs), body.put(kT, t);
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const WorldMotion<S> from = motion_of(memory, l, kStep, world);
    const Joint<S> joint = joint_of(tree, i, from.R, q[i]);
    const S rate = qd[i], acceleration = qdd[i];
    const M body = memory.from(i * kStep);
    Vec3<S> dw = body.vec(kDw), dal = body.vec(kDal), dws = body.vec(kDws), t = body.vec(kT);
    const Vec3<S> da = body.vec(kDa), dvs = body.vec(kDvs);
    Vec3<S> dz;
    if (tree.revolute(i)) {
      dq[i] = dot(joint.z, t);
      dqd[i] = dot(joint.z, dw + cross(dal, from.w));
      dqdd[i] = dot(joint.z, dal);
      dz = (dw + cross(dal, from.w)) * rate + dal * acceleration + dws * p[i];
      dw += cross(joint.z, dal) * rate;
    } else {
      const S twice = rate * 2.0f;
      dqd[i] = dot(joint.z, cross(da, from.w)) * 2.0f;
      dqdd[i] = dot(joint.z, da);
      dz = cross(da, from.w) * twice + da * acceleration + dvs * p[i];
      dw += cross(joint.z, da) * twice;
    }
    t += cross(joint.z, dz);
    if (tree.shifted(i)) {
      Vec3<S> ws{};
      if (l >= 0) ws = memory.vec(l * kStep + kWs);
      const Vec3<S> ds = cross(da, from.w);
      const Vec3<S> dr = cross(da, from.al) + cross(ds, from.w) + cross(dvs, ws);
      if (!tree.revolute(i)) dq[i] = dot(joint.z, dr);
      dw += cross(cross(from.w, joint.r), da) + cross(joint.r, ds);
      dal += cross(joint.r, da);
      dws += cross(joint.r, dvs);
      t += cross(joint.r, dr);
    }
    if (l < 0) continue;
    const M to = memory.from(l * kStep);
    to.add(kDw, dw), to.add(kDal, dal), to.add(kDa, da);
    to.add(kDws, dws), to.add(kDvs, dvs), to.add(kT, t);
  }
}

}  // namespace skelops
