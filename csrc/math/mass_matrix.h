// Composite rigid bodies: M_ij = S_j . (wrench of everything beyond joint i, moving along S_i), for
// j on the way from i to the root. These entries, row by row with j ascending, are the packed form.
//
// Backward: sum_ij G_ij M_ij = sum_i F_i . v_i + N_i . w_i with (w_i, v_i) = sum_j G_ij S_j at i.
// What a composite inertia's gradient is at a body's parent is what it is at the body, shifted.
#pragma once

#include "math/rigid_body.h"

namespace skelops {

namespace composite {
constexpr int kR = 0, kInertia = 9, kSlots = 19;
constexpr int kDInertia = 19, kT = 29, kDp = 32, kDz = 35, kBackwardSlots = 38;
}  // namespace composite

template <typename S, typename M>
SKELOPS_HOST_DEVICE inline Inertia<S> inertia_at(const M& memory, int slot) {
  return {memory[slot], memory.vec(slot + 1), memory.sym(slot + 4)};
}
template <typename S, typename M>
SKELOPS_HOST_DEVICE inline void put_inertia(const M& memory, int slot, const Inertia<S>& v) {
  memory[slot] = v.m, memory.put(slot + 1, v.h), memory.put(slot + 4, v.I);
}

// An inertia about an origin that lies -r away.
template <typename S>
SKELOPS_HOST_DEVICE inline Inertia<S> shifted(const Inertia<S>& v, const Vec3<S>& r) {
  const Vec3<S> mr = r * v.m, h = v.h + mr;
  const S square = dot(r, v.h) + dot(r, h);
  const Sym3<S> outer = symmetric_outer(r, v.h + mr * 0.5f);
  return {v.m,
          h,
          {v.I.xx + square - outer.xx, v.I.xy - outer.xy, v.I.yy + square - outer.yy,
           v.I.xz - outer.xz, v.I.yz - outer.yz, v.I.zz + square - outer.zz}};
}

// The wrench of an inertia that moves along a joint: unit rotation or translation along z.
template <typename S>
struct Wrench {
  Vec3<S> N, F;
};
template <typename S>
SKELOPS_HOST_DEVICE inline Wrench<S> wrench_along(const Inertia<S>& v, bool revolute,
                                                  const Vec3<S>& z) {
  if (revolute) return {v.I * z, cross(z, v.h)};
  return {cross(v.h, z), z * v.m};
}

// Rotations and composite inertias.
template <typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void composites(const TreeView<A>& tree, const S* q, const M& memory,
                                    int slots) {
  using namespace composite;
  for (int i = 0; i < tree.size; ++i) {
    const Mat3<S> from = parent_rotation<S>(memory, tree.parent[i], slots, kR);
    const Mat3<S> R = rotate(tree, i, from, world_axis(tree, i, from), q[i]);
    memory.put(i * slots + kR, R);
    put_inertia(memory, i * slots + kInertia,
                tree.massive(i) ? world_inertia(tree, i, R) : Inertia<S>{});
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    if (l < 0) continue;
    Inertia<S> v = inertia_at<S>(memory, i * slots + kInertia);
    if (tree.shifted(i)) v = shifted(v, joint_of(tree, i, memory.mat(l * slots + kR), q[i]).r);
    const M to = memory.from(l * slots + kInertia);
    to[0] += v.m, to.add(1, v.h), to.add(4, v.I);
  }
}

// `row`: where the entries of a body's row begin in the packed form; its last is the diagonal's.
// `entry(at, i, j, value)` takes entry (i, j), which is value `at` of the packed form.
template <typename S, typename A, typename M, typename Entry>
SKELOPS_HOST_DEVICE void mass_matrix(const TreeView<A>& tree, const int* row, const S* q,
                                     const M& memory, const Entry& entry) {
  using namespace composite;
  composites(tree, q, memory, kSlots);
  for (int i = 0; i < tree.size; ++i) {
    const Vec3<S> z = world_axis(tree, i, memory.mat(i * kSlots + kR));
    Wrench<S> v = wrench_along(inertia_at<S>(memory, i * kSlots + kInertia), tree.revolute(i), z);
    int at = row[i + 1] - 1;
    for (int j = i; j >= 0; --at) {
      const int l = tree.parent[j];
      entry(at, i, j,
            dot(world_axis(tree, j, memory.mat(j * kSlots + kR)), tree.revolute(j) ? v.N : v.F));
      if (l >= 0 && tree.shifted(j)) {
        v.N += cross(joint_of(tree, j, memory.mat(l * kSlots + kR), q[j]).r, v.F);
      }
      j = l;
    }
  }
}

// Gradients of sum_e grad_e packed_e, with `grad(at, i, j)` that of an entry; `dinertia`, if given,
// is added to, and `dq` may be q.
template <typename S, typename A, typename M, typename Grad>
SKELOPS_HOST_DEVICE void mass_matrix_backward(const TreeView<A>& tree, const int* row,
                                              const Grad& grad, const S* q, const M& memory, S* dq,
                                              const M* dinertia) {
  using namespace composite;
  constexpr int kStep = kBackwardSlots;
  composites(tree, q, memory, kStep);
  for (int i = 0; i < tree.size * kStep; i += kStep) {
    for (int k = kDInertia; k < kStep; ++k) memory[i + k] = S{};
  }
  for (int i = 0; i < tree.size; ++i) {
    const Vec3<S> z = world_axis(tree, i, memory.mat(i * kStep + kR));
    const Inertia<S> v = inertia_at<S>(memory, i * kStep + kInertia);
    const bool revolute = tree.revolute(i);
    Wrench<S> at = wrench_along(v, revolute, z);
    const Vec3<S> F = at.F;
    Vec3<S> turn{}, move{};  // w_i, v_i; d is the way back to i from the origin of j
    Vec3<S> d{};
    int entry = row[i + 1] - 1;
    for (int j = i; j >= 0; --entry) {
      const int l = tree.parent[j];
      const Mat3<S> from = parent_rotation<S>(memory, l, kStep, kR);
      const Joint<S> joint = joint_of(tree, j, from, q[j]);
      const S weight = grad(entry, i, j);
      const Vec3<S> gz = joint.z * weight;
      if (tree.revolute(j)) {
        turn += gz;
        move += cross(gz, d);
        memory.add(j * kStep + kDz, at.N * weight);
        memory.add(j * kStep + kDp, cross(gz, F));
      } else {
        move += gz;
        memory.add(j * kStep + kDz, F * weight);
      }
      if (tree.shifted(j)) {
        d += joint.r;
        at.N += cross(joint.r, F);
      }
      j = l;
    }
    const M body = memory.from(i * kStep);
    body.add(kDp, cross(F, turn));
    if (revolute) {
      body.add(kDz, cross(v.h, move) + v.I * turn);
      body.add(kDInertia + 1, cross(move, z));
      body.add(kDInertia + 4, scaled(symmetric_outer(z, turn), 0.5f));
    } else {
      body.add(kDz, move * v.m + cross(turn, v.h));
      body[kDInertia] += dot(z, move);
      body.add(kDInertia + 1, cross(z, turn));
    }
  }
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kStep);
    Inertia<S> g = inertia_at<S>(body, kDInertia);
    if (l >= 0) {
      Inertia<S> add = inertia_at<S>(memory, l * kStep + kDInertia);
      if (tree.shifted(i)) {
        const Inertia<S> v = inertia_at<S>(body, kInertia);
        const Vec3<S> r = joint_of(tree, i, memory.mat(l * kStep + kR), q[i]).r;
        const S twice = trace(add.I) * 2.0f;
        const Vec3<S> Gr = add.I * r;
        const Vec3<S> dr = add.h * v.m + (v.h + r * v.m) * twice - (add.I * v.h + Gr * v.m) * 2.0f;
        body.add(kDp, dr);
        memory.put(l * kStep + kDp, memory.vec(l * kStep + kDp) - dr);
        add.m += dot(add.h, r) + dot(r, r) * twice * 0.5f - dot(r, Gr);
        add.h += r * twice - Gr * 2.0f;
      }
      g.m += add.m, g.h += add.h, g.I += add.I;
      put_inertia(body, kDInertia, g);
    }
    if (tree.massive(i)) {
      const Mat3<S> R = body.mat(kR);
      const Inertia<S> own = world_inertia(tree, i, R);
      // The rotation's gradient of tr(G I): twice the axial vector of I G.
      const Vec3<S> x = own.I * column_x(g.I), y = own.I * column_y(g.I), z = own.I * column_z(g.I);
      body.add(kT, cross(own.h, g.h) + Vec3<S>{z.y - y.z, x.z - z.x, y.x - x.y} * 2.0f);
      if (dinertia) {
        add_inertia_grad(*dinertia, i, g.m, transposed(R, g.h), rotated_back(R, g.I));
      }
    }
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i];
    const M body = memory.from(i * kStep);
    const Joint<S> joint = joint_of(tree, i, parent_rotation<S>(memory, l, kStep, kR), q[i]);
    Vec3<S> t = body.vec(kT);
    const Vec3<S> f = body.vec(kDp);
    dq[i] = dot(joint.z, tree.revolute(i) ? t : f);
    if (l < 0) continue;
    t += cross(joint.z, body.vec(kDz));
    if (tree.shifted(i)) t += cross(joint.r, f);
    memory.add(l * kStep + kT, t);
    memory.add(l * kStep + kDp, f);
  }
}

}  // namespace skelops
