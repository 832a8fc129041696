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

template <typename S>
struct Motion {
  Mat3<S> R;
  Vec3<S> w, al, a;  // angular velocity and acceleration, acceleration of the origin
};

namespace inverse {
constexpr int kR = 0, kW = 9, kAl = 12, kA = 15;
constexpr int kN = 18, kF = 21, kSlots = 24;
constexpr int kRates = 18;    // w*, v*
constexpr int kAdjoint = 24;  // of w, al, a, w*, v*, and t
constexpr int kBackwardSlots = 42;
}  // namespace inverse

template <typename S, typename M>
SKELOPS_HOST_DEVICE inline Motion<S> motion_of(const M& memory, int i, int slots,
                                               const Vec3<S>& world) {
  const Vec3<S> zero{};
  if (i < 0) return {identity<S>(), zero, zero, world};
  const M body = memory.from(i * slots);
  return {body.mat(inverse::kR), body.vec(inverse::kW), body.vec(inverse::kAl),
          body.vec(inverse::kA)};
}

// The motion of body i from its parent's.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Motion<S> advance(const TreeView<A>& tree, int i, const Motion<S>& from,
                                             const Joint<S>& joint, const S& q, const S& qd,
                                             const S& qdd) {
  Motion<S> to = from;
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

// `world` is the acceleration of the root: minus gravity. `wrench`, if given: (n, 6), force and
// moment about the origin that act on every body. `tau` may be qdd.
template <typename S, typename A, typename M, typename W>
SKELOPS_HOST_DEVICE void inverse_dynamics(const TreeView<A>& tree, const S* q, const S* qd,
                                          const S* qdd, const W* wrench, const Vec3<S>& world,
                                          const M& memory, S* tau) {
  using namespace inverse;
  for (int i = 0; i < tree.size; ++i) {
    const Motion<S> from = motion_of(memory, tree.parent[i], kSlots, world);
    const Motion<S> m =
        advance(tree, i, from, joint_of(tree, i, from.R, q[i]), q[i], qd[i], qdd[i]);
    const M body = memory.from(i * kSlots);
    body.put(kR, m.R), body.put(kW, m.w), body.put(kAl, m.al), body.put(kA, m.a);
    Vec3<S> N{}, F{};
    if (tree.massive(i)) {
      const Vec3<S> h = m.R * tree.moment(i);
      const Sym3<A> I = tree.rotational(i);
      F = m.a * tree.mass(i) + cross(m.al, h) + cross(m.w, cross(m.w, h));
      N = cross(h, m.a) + m.R * (I * transposed(m.R, m.al)) +
          cross(m.w, m.R * (I * transposed(m.R, m.w)));
    }
    if (wrench) {
      F -= Vec3<S>{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]};
      N -= Vec3<S>{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]};
    }
    body.put(kN, N), body.put(kF, F);
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kSlots);
    const Vec3<S> F = body.vec(kF);
    Vec3<S> N = body.vec(kN);
    // A joint's axis is the same in the parent and in the body.
    tau[i] = dot(world_axis(tree, i, body.mat(kR)), tree.revolute(i) ? N : F);
    if (l < 0) continue;
    if (tree.shifted(i)) {
      N += cross(joint_of(tree, i, memory.mat(l * kSlots + kR), q[i]).r, F);
    }
    memory.add(l * kSlots + kN, N);
    memory.add(l * kSlots + kF, F);
  }
}

// Gradients of p . tau. `dinertia`, if given, is added to; all others are written, and may be what
// they are gradients of.
template <typename S, typename A, typename M, typename W>
SKELOPS_HOST_DEVICE void inverse_dynamics_backward(const TreeView<A>& tree, const S* p, const S* q,
                                                   const S* qd, const S* qdd, const W* wrench,
                                                   const Vec3<S>& world, const M& memory, S* dq,
                                                   S* dqd, S* dqdd, W* dwrench, const M* dinertia) {
  using namespace inverse;
  constexpr int kDw = kAdjoint, kDal = kDw + 3, kDa = kDw + 6, kDws = kDw + 9, kDvs = kDw + 12;
  constexpr int kT = kDw + 15, kWs = kRates, kVs = kRates + 3, kStep = kBackwardSlots;
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Motion<S> from = motion_of(memory, l, kStep, world);
    const Joint<S> joint = joint_of(tree, i, from.R, q[i]);
    const Motion<S> m = advance(tree, i, from, joint, q[i], qd[i], qdd[i]);
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
    const Motion<S> from = motion_of(memory, l, kStep, world);
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
