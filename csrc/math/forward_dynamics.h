// The articulated-body algorithm: inertias and biases from the leaves up,
//   (N; F) = [[I, H], [H^T, M]] (al; a) + (pN; pF),
// each joint takes its own direction S out of them (U = IA S, D = S . U, u = tau - S . p), then
// accelerations from the root down, qdd = (u - U . a') / D.
//
// Vectors are in the axes of their body, and what belongs to a body goes on to the next in
// registers: memory holds what several bodies start from, and where several meet.
#pragma once

#include "math/inverse_dynamics.h"

namespace skelops {

namespace articulated {
constexpr int kBiasAl = 0, kBiasA = 3, kSine = 6, kCosine = 7;
constexpr int kUn = 8, kUf = 11, kD = 14, kU = 15, kPn = 16, kPf = 19;
constexpr int kW = 22, kR = 25, kI = 34, kM = 40, kH = 46, kSlots = 55;
constexpr int kAl = kW, kA = kR;  // on the way down
}  // namespace articulated

template <typename S>
struct Articulated {
  Sym3<S> I, M;
  Mat3<S> H;
  Vec3<S> N, F;
};

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

// A symmetric matrix of a body that turns about axis 0 of the cyclic axes (0, 1, 2), in those of
// its parent.
template <typename S>
SKELOPS_HOST_DEVICE inline void turn_back(S& m01, S& m02, S& m11, S& m12, S& m22, const S& s,
                                          const S& c) {
  turn(m01, m02, -s, c);
  const S difference = m11 - m22;
  const S t = s * (s * difference + c * m12 * 2.0f);
  m12 += s * (c * difference - s * m12 * 2.0f);
  m11 -= t, m22 += t;
}

template <typename S>
SKELOPS_HOST_DEVICE inline void turn(Vec3<S>& a, Vec3<S>& b, const S& s, const S& c) {
  turn(a.x, b.x, s, c), turn(a.y, b.y, s, c), turn(a.z, b.z, s, c);
}

// Inertia and bias of body i in the axes of its parent.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline void turn_back(const TreeView<A>& tree, int i, Articulated<S>& b,
                                          const S& s, const S& c) {
  Sym3<S>&I = b.I, &M = b.M;
  Mat3<S>& H = b.H;
  const S back = -s;
  turn(tree, i, back, c, b.N, b.F);
  switch (tree.along(i)) {
    case 0:
      turn_back(I.xy, I.xz, I.yy, I.yz, I.zz, s, c), turn_back(M.xy, M.xz, M.yy, M.yz, M.zz, s, c);
      turn(H.x.y, H.x.z, back, c), turn(H.y.y, H.y.z, back, c), turn(H.z.y, H.z.z, back, c);
      turn(H.y, H.z, back, c);
      return;
    case 1:
      turn_back(I.yz, I.xy, I.zz, I.xz, I.xx, s, c), turn_back(M.yz, M.xy, M.zz, M.xz, M.xx, s, c);
      turn(H.x.z, H.x.x, back, c), turn(H.y.z, H.y.x, back, c), turn(H.z.z, H.z.x, back, c);
      turn(H.z, H.x, back, c);
      return;
    case 2:
      turn_back(I.xz, I.yz, I.xx, I.xy, I.yy, s, c), turn_back(M.xz, M.yz, M.xx, M.xy, M.yy, s, c);
      turn(H.x.x, H.x.y, back, c), turn(H.y.x, H.y.y, back, c), turn(H.z.x, H.z.y, back, c);
      turn(H.x, H.y, back, c);
      return;
    default: {
      const Mat3<S> unit = identity<S>();
      const Vec3<S> u = every_lane<S>(tree.axis_of(i));
      const Mat3<S> R{turned(u, unit.x, back, c), turned(u, unit.y, back, c),
                      turned(u, unit.z, back, c)};
      I = rotated(R, I), M = rotated(R, M);
      const Vec3<S> x = R * H.x, y = R * H.y, z = R * H.z;
      H.x = x * R.x.x + y * R.y.x + z * R.z.x;
      H.y = x * R.x.y + y * R.y.y + z * R.z.y;
      H.z = x * R.x.z + y * R.y.z + z * R.z.z;
    }
  }
}

// M S, H S and H^T S of a joint's direction S.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> column(const TreeView<A>& tree, int i, const Sym3<S>& m) {
  switch (tree.along(i)) {
    case 0:
      return column_x(m);
    case 1:
      return column_y(m);
    case 2:
      return column_z(m);
    default:
      return m * every_lane<S>(tree.axis_of(i));
  }
}
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> column(const TreeView<A>& tree, int i, const Mat3<S>& m) {
  return world_axis(tree, i, m);
}
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> row(const TreeView<A>& tree, int i, const Mat3<S>& m) {
  switch (tree.along(i)) {
    case 0:
      return {m.x.x, m.y.x, m.z.x};
    case 1:
      return {m.x.y, m.y.y, m.z.y};
    case 2:
      return {m.x.z, m.y.z, m.z.z};
    default:
      return transposed(m, every_lane<S>(tree.axis_of(i)));
  }
}

// Arguments as of inverse_dynamics, but that the rates are kept. `qdd` may be tau.
template <typename S, typename A, typename Mem, typename W>
SKELOPS_HOST_DEVICE void forward_dynamics(const TreeView<A>& tree, const S* q, const S* qd,
                                          const S* tau, const W* wrench, const Vec3<S>& world,
                                          const Mem& memory, S* qdd) {
  using namespace articulated;
  const Vec3<S> zero{};
  Vec3<S> w{};
  Mat3<S> R{};
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Mem body = memory.from(i * kSlots);
    if (l < 0) {
      w = zero;
      if (wrench) R = identity<S>();
    } else if (l != i - 1) {
      w = memory.vec(l * kSlots + kW);
      if (wrench) R = memory.mat(l * kSlots + kR);
    }
    // The part of the accelerations that the joint rate makes.
    Vec3<S> al{}, a{};
    if (tree.shifted(i)) a = cross(w, cross(w, origin_of(tree, i, q[i])));
    const Vec3<S> u = every_lane<S>(tree.axis_of(i));
    if (tree.revolute(i)) {
      S s, c;
      sine_cosine(q[i], s, c);
      turn(tree, i, s, c, w, a);
      if (wrench) R = rotate(tree, i, R, world_axis(tree, i, R), s, c);
      al = cross(w, u) * qd[i];
      w += u * qd[i];
      body[kSine] = s, body[kCosine] = c;
    } else {
      a += cross(w, u) * (qd[i] * 2.0f);
    }
    body.put(kBiasAl, al), body.put(kBiasA, a);
    Vec3<S> N{}, F{};
    if (tree.massive(i)) {
      N = cross(w, tree.rotational(i) * w);
      F = cross(w, cross(w, every_lane<S>(tree.moment(i))));
    }
    if (wrench) {
      F -= transposed(R, Vec3<S>{wrench[6 * i], wrench[6 * i + 1], wrench[6 * i + 2]});
      N -= transposed(R, Vec3<S>{wrench[6 * i + 3], wrench[6 * i + 4], wrench[6 * i + 5]});
    }
    if (wrench || tree.massive(i) || tree.branches(i)) body.put(kPn, N), body.put(kPf, F);
    if (tree.branches(i)) {
      body.put(kW, w);
      if (wrench) body.put(kR, R);
      body.put(kI, Sym3<S>{}), body.put(kM, Sym3<S>{}), body.put(kH, Mat3<S>{});
    }
  }
  Articulated<S> b{};
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const Mem body = memory.from(i * kSlots);
    if (tree.massive(i)) {
      const S m = S{} + tree.mass(i);
      const Vec3<S> h = every_lane<S>(tree.moment(i));
      const Sym3<A> I = tree.rotational(i);
      const S none{};
      b.I += Sym3<S>{none + I.xx, none + I.xy, none + I.yy, none + I.xz, none + I.yz, none + I.zz};
      b.M += Sym3<S>{m, none, m, none, none, m};
      b.H.x += Vec3<S>{none, h.z, -h.y};
      b.H.y += Vec3<S>{-h.z, none, h.x};
      b.H.z += Vec3<S>{h.y, -h.x, none};
    }
    if (wrench || tree.massive(i) || tree.branches(i)) b.N += body.vec(kPn), b.F += body.vec(kPf);
    if (tree.branches(i)) {
      b.I += body.sym(kI), b.M += body.sym(kM);
      b.H.x += body.vec(kH), b.H.y += body.vec(kH + 3), b.H.z += body.vec(kH + 6);
    }
    Vec3<S> Un, Uf;
    S D, u = tau[i];
    if (tree.revolute(i)) {
      Un = column(tree, i, b.I), Uf = row(tree, i, b.H);
      D = A(1) / along_axis(tree, i, Un), u -= along_axis(tree, i, b.N);
    } else {
      Un = column(tree, i, b.H), Uf = column(tree, i, b.M);
      D = A(1) / along_axis(tree, i, Uf), u -= along_axis(tree, i, b.F);
    }
    body.put(kUn, Un), body.put(kUf, Uf);
    body[kD] = D, body[kU] = u;
    if (l >= 0) {
      const Vec3<S> Vn = Un * D, Vf = Uf * D, al = body.vec(kBiasAl), a = body.vec(kBiasA);
      b.I += Sym3<S>{-Un.x * Vn.x, -Un.y * Vn.x, -Un.y * Vn.y,
                     -Un.z * Vn.x, -Un.z * Vn.y, -Un.z * Vn.z};
      b.M += Sym3<S>{-Uf.x * Vf.x, -Uf.y * Vf.x, -Uf.y * Vf.y,
                     -Uf.z * Vf.x, -Uf.z * Vf.y, -Uf.z * Vf.z};
      b.H.x -= Un * Vf.x, b.H.y -= Un * Vf.y, b.H.z -= Un * Vf.z;
      b.N += Vn * u + b.I * al + b.H * a;
      b.F += Vf * u + transposed(b.H, al) + b.M * a;
      if (tree.revolute(i)) {
        const S s = body[kSine], c = body[kCosine];
        turn_back(tree, i, b, s, c);
      }
      if (tree.shifted(i)) {
        const Vec3<S> r = origin_of(tree, i, q[i]);
        shift(b.I, b.H, b.M, r);
        b.N += cross(r, b.F);
      }
      if (l == i - 1) continue;
      const Mem to = memory.from(l * kSlots);
      to.add(kI, b.I), to.add(kM, b.M);
      to.add(kH, b.H.x), to.add(kH + 3, b.H.y), to.add(kH + 6, b.H.z);
      to.add(kPn, b.N), to.add(kPf, b.F);
    }
    b = Articulated<S>{};
  }
  Vec3<S> al{}, a{};
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Mem body = memory.from(i * kSlots);
    if (l < 0) {
      al = zero, a = world;
    } else if (l != i - 1) {
      al = memory.vec(l * kSlots + kAl), a = memory.vec(l * kSlots + kA);
    }
    if (tree.shifted(i)) a += cross(al, origin_of(tree, i, q[i]));
    if (tree.revolute(i)) {
      const S s = body[kSine], c = body[kCosine];
      turn(tree, i, s, c, al, a);
    }
    al += body.vec(kBiasAl), a += body.vec(kBiasA);
    qdd[i] = (body[kU] - dot(body.vec(kUn), al) - dot(body.vec(kUf), a)) * body[kD];
    const Vec3<S> own = every_lane<S>(tree.axis_of(i)) * qdd[i];
    if (tree.revolute(i)) {
      al += own;
    } else {
      a += own;
    }
    if (tree.branches(i)) body.put(kAl, al), body.put(kA, a);
  }
}

}  // namespace skelops
