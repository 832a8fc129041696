// The articulated-body algorithm: inertias and biases from the leaves up,
//   (N; F) = [[I, H], [H^T, M]] (al; a) + (pN; pF),
// each joint takes its own direction S out of them (U = IA S, D = S . U, u = tau - S . p), then
// accelerations from the root down, qdd = (u - U . a') / D.
#pragma once

#include "math/inverse_dynamics.h"

namespace skelops {

namespace articulated {
constexpr int kR = 0, kW = 9;
constexpr int kI = 12, kM = 18, kH = 24, kPn = 33, kPf = 36;
constexpr int kUn = 39, kUf = 42, kD = 45, kU = 46, kSlots = 47;
constexpr int kAl = kPn, kA = kPf;  // on the way down
}  // namespace articulated

// The part of the accelerations of body i that its joint rate makes.
template <typename S>
struct Bias {
  Vec3<S> al, a;
};

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Bias<S> bias_of(const TreeView<A>& tree, int i, const Vec3<S>& w,
                                           const Joint<S>& joint, const S& qd) {
  Bias<S> bias{};
  if (tree.shifted(i)) bias.a = cross(w, cross(w, joint.r));
  if (tree.revolute(i)) {
    bias.al = cross(w, joint.z) * qd;
  } else {
    bias.a += cross(w, joint.z) * (qd * 2.0f);
  }
  return bias;
}

// I and H at a parent's origin, r before the body's: H' = H + [r] M,
// I' = I - H [r] + [r] H'^T, of which six entries are needed.
template <typename S>
SKELOPS_HOST_DEVICE inline void shift(Sym3<S>& I, Mat3<S>& H, const Sym3<S>& M, const Vec3<S>& r) {
  const Vec3<S> x = H.z * r.y - H.y * r.z, y = H.x * r.z - H.z * r.x, z = H.y * r.x - H.x * r.y;
  H.x += cross(r, column_x(M));
  H.y += cross(r, column_y(M));
  H.z += cross(r, column_z(M));
  const Vec3<S> rx = cross(r, Vec3<S>{H.x.x, H.y.x, H.z.x});
  const Vec3<S> ry = cross(r, Vec3<S>{H.x.y, H.y.y, H.z.y});
  const Vec3<S> rz = cross(r, Vec3<S>{H.x.z, H.y.z, H.z.z});
  I += Sym3<S>{x.x + rx.x, x.y + rx.y, y.y + ry.y, x.z + rx.z, y.z + ry.z, z.z + rz.z};
}

// Arguments as of inverse_dynamics. `qdd` may be tau.
template <typename S, typename A, typename Mem, typename W>
SKELOPS_HOST_DEVICE void forward_dynamics(const TreeView<A>& tree, const S* q, const S* qd,
                                          const S* tau, const W* wrench, const Vec3<S>& world,
                                          const Mem& memory, S* qdd) {
  using namespace articulated;
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Mat3<S> from = parent_rotation<S>(memory, l, kSlots, kR);
    const Joint<S> joint = joint_of(tree, i, from, q[i]);
    const Mat3<S> R = rotate(tree, i, from, joint.z, q[i]);
    Vec3<S> w{};
    if (l >= 0) w = memory.vec(l * kSlots + kW);
    if (tree.revolute(i)) w += joint.z * qd[i];
    Inertia<S> inertia{};
    Vec3<S> N{}, F{};
    if (tree.massive(i)) {
      inertia = world_inertia(tree, i, R);
      N = cross(w, inertia.I * w);
      F = cross(w, cross(w, inertia.h));
    }
    if (wrench) {
      F -= Vec3<S>{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]};
      N -= Vec3<S>{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]};
    }
    const Vec3<S>& h = inertia.h;
    const S zero{};
    const Mem body = memory.from(i * kSlots);
    body.put(kR, R), body.put(kW, w);
    body.put(kI, inertia.I);
    body.put(kM, Sym3<S>{inertia.m, zero, inertia.m, zero, zero, inertia.m});
    body.put(kH, Mat3<S>{{zero, h.z, -h.y}, {-h.z, zero, h.x}, {h.y, -h.x, zero}});
    body.put(kPn, N), body.put(kPf, F);
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const Mem body = memory.from(i * kSlots);
    const Mat3<S> from = parent_rotation<S>(memory, l, kSlots, kR);
    const Joint<S> joint = joint_of(tree, i, from, q[i]);
    const bool revolute = tree.revolute(i);
    Sym3<S> I = body.sym(kI), M = body.sym(kM);
    Mat3<S> H = body.mat(kH);
    Vec3<S> N = body.vec(kPn), F = body.vec(kPf);
    const Vec3<S> Un = revolute ? I * joint.z : H * joint.z;
    const Vec3<S> Uf = revolute ? transposed(H, joint.z) : M * joint.z;
    const S D = A(1) / dot(joint.z, revolute ? Un : Uf);
    const S u = tau[i] - dot(joint.z, revolute ? N : F);
    body.put(kUn, Un), body.put(kUf, Uf);
    body[kD] = D, body[kU] = u;
    if (l < 0) continue;
    const Vec3<S> Vn = Un * D, Vf = Uf * D;
    const Bias<S> c = bias_of(tree, i, memory.vec(l * kSlots + kW), joint, qd[i]);
    I +=
        Sym3<S>{-Un.x * Vn.x, -Un.y * Vn.x, -Un.y * Vn.y, -Un.z * Vn.x, -Un.z * Vn.y, -Un.z * Vn.z};
    M +=
        Sym3<S>{-Uf.x * Vf.x, -Uf.y * Vf.x, -Uf.y * Vf.y, -Uf.z * Vf.x, -Uf.z * Vf.y, -Uf.z * Vf.z};
    H.x -= Un * Vf.x, H.y -= Un * Vf.y, H.z -= Un * Vf.z;
    N += Vn * u + I * c.al + H * c.a;
    F += Vf * u + transposed(H, c.al) + M * c.a;
    if (tree.shifted(i)) {
      shift(I, H, M, joint.r);
      N += cross(joint.r, F);
    }
    const Mem to = memory.from(l * kSlots);
    to.add(kI, I), to.add(kM, M);
    to.add(kH, H.x), to.add(kH + 3, H.y), to.add(kH + 6, H.z);
    to.add(kPn, N), to.add(kPf, F);
  }
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Mem body = memory.from(i * kSlots);
    const Mat3<S> from = parent_rotation<S>(memory, l, kSlots, kR);
    const Joint<S> joint = joint_of(tree, i, from, q[i]);
    Vec3<S> w{}, al{}, a = world;
    if (l >= 0) {
      w = memory.vec(l * kSlots + kW);
      al = memory.vec(l * kSlots + kAl), a = memory.vec(l * kSlots + kA);
    }
    if (tree.shifted(i)) a += cross(al, joint.r);
    const Bias<S> c = bias_of(tree, i, w, joint, qd[i]);
    al += c.al, a += c.a;
    qdd[i] = (body[kU] - dot(body.vec(kUn), al) - dot(body.vec(kUf), a)) * body[kD];
    (tree.revolute(i) ? al : a) += joint.z * qdd[i];
    body.put(kAl, al), body.put(kA, a);
  }
}

}  // namespace skelops
