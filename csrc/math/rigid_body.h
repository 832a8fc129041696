// A tree of rigid bodies, one joint of one degree of freedom each.
//
// frame_i = frame_parent * Trans(offset_i) * Rot(axis_i, q_i)   (revolute)
//                                          * Trans(axis_i q_i)  (prismatic)
//
// Vectors of body i refer to its origin p_i, so that a joint at the origin of its parent (one of
// the three of a ball joint) shifts nothing. They are in world axes where each is used by many
// bodies, in the body's own where they go from body to body: inertias are constant there. An
// inertia is (m, m c, I), I about the origin, in body axes.
#pragma once

#include <cstdint>

#include "math/sincos.h"
#include "math/vec3.h"

namespace skelops {

constexpr int kInertiaSize = 10;

// What is known of a joint before any position is: flags of `kind`.
enum JointKind : int {
  kRevolute = 1,
  kAxisShift = 1,  // two bits: the axis is x, y, z of the body, or another
  kAxisMask = 3 << kAxisShift,
  kOffset = 8,    // the joint is not at its parent's origin
  kMassive = 16,  // the body has an inertia
  kBranches = 32  // a body that is not the next hangs on it
};

template <typename Parent>
SKELOPS_HOST_DEVICE inline bool branches(const Parent* parent, int size, int i) {
  for (int j = i + 2; j < size; ++j) {
    if (parent[j] == i) return true;
  }
  return false;
}

template <typename A>
SKELOPS_HOST_DEVICE inline int joint_kind(bool revolute, const A* axis, const A* offset,
                                          const A* inertia) {
  int kind = revolute ? kRevolute : 0, along = 3;
  for (int k = 0; k < 3; ++k) {
    if (axis[k] == A(1) && axis[(k + 1) % 3] == A(0) && axis[(k + 2) % 3] == A(0)) along = k;
  }
  kind |= along << kAxisShift;
  if (offset[0] != A(0) || offset[1] != A(0) || offset[2] != A(0)) kind |= kOffset;
  for (int k = 0; k < kInertiaSize; ++k) {
    if (inertia[k] != A(0)) kind |= kMassive;
  }
  return kind;
}

template <typename A>
struct TreeView {
  int size;
  const int* parent;  // -1: the world; otherwise an earlier body
  const int* kind;
  const A *axis, *offset, *inertia;  // (n, 3), (n, 3), (n, 10)

  SKELOPS_HOST_DEVICE bool revolute(int i) const { return kind[i] & kRevolute; }
  SKELOPS_HOST_DEVICE bool massive(int i) const { return kind[i] & kMassive; }
  SKELOPS_HOST_DEVICE bool branches(int i) const { return kind[i] & kBranches; }
  SKELOPS_HOST_DEVICE bool shifted(int i) const {
    return (kind[i] & (kOffset | kRevolute)) != kRevolute;
  }
  SKELOPS_HOST_DEVICE int along(int i) const { return (kind[i] & kAxisMask) >> kAxisShift; }
  SKELOPS_HOST_DEVICE Vec3<A> axis_of(int i) const { return at(axis + 3 * i); }
  SKELOPS_HOST_DEVICE Vec3<A> offset_of(int i) const { return at(offset + 3 * i); }
  SKELOPS_HOST_DEVICE A mass(int i) const { return inertia[kInertiaSize * i]; }
  SKELOPS_HOST_DEVICE Vec3<A> moment(int i) const { return at(inertia + kInertiaSize * i + 1); }
  SKELOPS_HOST_DEVICE Sym3<A> rotational(int i) const {
    const A* v = inertia + kInertiaSize * i + 4;
    return {v[0], v[1], v[2], v[3], v[4], v[5]};
  }

 private:
  SKELOPS_HOST_DEVICE static Vec3<A> at(const A* v) { return {v[0], v[1], v[2]}; }
};

// Numbered slots of working memory: adjacent (a CPU's registers of frames), or a stride apart (a
// GPU's threads side by side).
template <typename S, bool kStrided>
struct Memory {
  S* base;
  long long stride;

  SKELOPS_HOST_DEVICE S& operator[](int slot) const {
    return base[kStrided ? slot * stride : slot];
  }
  SKELOPS_HOST_DEVICE Memory from(int slot) const { return {&(*this)[slot], stride}; }

  SKELOPS_HOST_DEVICE Vec3<S> vec(int slot) const {
    return {(*this)[slot], (*this)[slot + 1], (*this)[slot + 2]};
  }
  SKELOPS_HOST_DEVICE void put(int slot, const Vec3<S>& v) const {
    (*this)[slot] = v.x, (*this)[slot + 1] = v.y, (*this)[slot + 2] = v.z;
  }
  SKELOPS_HOST_DEVICE void add(int slot, const Vec3<S>& v) const {
    (*this)[slot] += v.x, (*this)[slot + 1] += v.y, (*this)[slot + 2] += v.z;
  }
  SKELOPS_HOST_DEVICE Mat3<S> mat(int slot) const {
    return {vec(slot), vec(slot + 3), vec(slot + 6)};
  }
  SKELOPS_HOST_DEVICE void put(int slot, const Mat3<S>& m) const {
    put(slot, m.x), put(slot + 3, m.y), put(slot + 6, m.z);
  }
  SKELOPS_HOST_DEVICE Sym3<S> sym(int slot) const {
    return {(*this)[slot],     (*this)[slot + 1], (*this)[slot + 2],
            (*this)[slot + 3], (*this)[slot + 4], (*this)[slot + 5]};
  }
  SKELOPS_HOST_DEVICE void put(int slot, const Sym3<S>& m) const {
    (*this)[slot] = m.xx, (*this)[slot + 1] = m.xy, (*this)[slot + 2] = m.yy;
    (*this)[slot + 3] = m.xz, (*this)[slot + 4] = m.yz, (*this)[slot + 5] = m.zz;
  }
  SKELOPS_HOST_DEVICE void add(int slot, const Sym3<S>& m) const { put(slot, sym(slot) + m); }
};

// The joint of a body whose parent has rotation R: its axis, and its origin from the parent's.
template <typename S>
struct Joint {
  Vec3<S> z, r;
};

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> world_axis(const TreeView<A>& tree, int i, const Mat3<S>& R) {
  const int along = tree.along(i);
  return along == 0 ? R.x : along == 1 ? R.y : along == 2 ? R.z : R * tree.axis_of(i);
}

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Joint<S> joint_of(const TreeView<A>& tree, int i, const Mat3<S>& R,
                                             const S& q) {
  Joint<S> joint{};
  joint.z = world_axis(tree, i, R);
  if (tree.kind[i] & kOffset) joint.r = R * tree.offset_of(i);
  if (!tree.revolute(i)) joint.r += joint.z * q;
  return joint;
}

template <typename S>
SKELOPS_HOST_DEVICE inline Mat3<S> identity() {
  const S one = S{} + 1.0f, zero{};
  return {{one, zero, zero}, {zero, one, zero}, {zero, zero, one}};
}

template <typename S, typename M>
SKELOPS_HOST_DEVICE inline Mat3<S> parent_rotation(const M& memory, int l, int slots, int slot) {
  return l < 0 ? identity<S>() : memory.mat(l * slots + slot);
}

// R Rot(axis_i, q) by the sine and cosine of q: the two columns across the axis turn.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Mat3<S> rotate(const TreeView<A>& tree, int i, const Mat3<S>& R,
                                          const Vec3<S>& z, const S& s, const S& c) {
  switch (tree.along(i)) {
    case 0:
      return {R.x, R.y * c + R.z * s, R.z * c - R.y * s};
    case 1:
      return {R.x * c - R.z * s, R.y, R.z * c + R.x * s};
    case 2:
      return {R.x * c + R.y * s, R.y * c - R.x * s, R.z};
    default: {
      const Vec3<A> u = tree.axis_of(i);
      const Vec3<S> rest = z * (1.0f - c);
      return {R.x * c + cross(z, R.x) * s + rest * u.x, R.y * c + cross(z, R.y) * s + rest * u.y,
              R.z * c + cross(z, R.z) * s + rest * u.z};
    }
  }
}

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Mat3<S> rotate(const TreeView<A>& tree, int i, const Mat3<S>& R,
                                          const Vec3<S>& z, const S& q) {
  if (!tree.revolute(i)) return R;
  S s, c;
  sine_cosine(q, s, c);
  return rotate(tree, i, R, z, s, c);
}

// In the axes of the bodies.

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> every_lane(const Vec3<A>& v) {
  return {S{} + v.x, S{} + v.y, S{} + v.z};
}

// The origin of body i in the axes of its parent.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Vec3<S> origin_of(const TreeView<A>& tree, int i, const S& q) {
  Vec3<S> r = every_lane<S>(tree.offset_of(i));
  if (!tree.revolute(i)) r += every_lane<S>(tree.axis_of(i)) * q;
  return r;
}

// Of a vector, what is along a joint.
template <typename S, typename A>
SKELOPS_HOST_DEVICE inline S along_axis(const TreeView<A>& tree, int i, const Vec3<S>& v) {
  switch (tree.along(i)) {
    case 0:
      return v.x;
    case 1:
      return v.y;
    case 2:
      return v.z;
    default:
      return dot(every_lane<S>(tree.axis_of(i)), v);
  }
}

// A pair of coordinates in axes that are turned.
template <typename S>
SKELOPS_HOST_DEVICE inline void turn(S& v1, S& v2, const S& s, const S& c) {
  const S turned = v1 * c + v2 * s;
  v2 = v2 * c - v1 * s;
  v1 = turned;
}

// A vector of the parent in the axes of a body turned about u; with -s, the other way.
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> turned(const Vec3<S>& u, const Vec3<S>& v, const S& s,
                                          const S& c) {
  return v * c - cross(u, v) * s + u * (dot(u, v) * (1.0f - c));
}

// Vectors of the parent in the axes of body i; with -s, the other way.
template <typename S, typename A, typename... Vectors>
SKELOPS_HOST_DEVICE inline void turn(const TreeView<A>& tree, int i, const S& s, const S& c,
                                     Vectors&... v) {
  switch (tree.along(i)) {
    case 0:
      (turn(v.y, v.z, s, c), ...);
      return;
    case 1:
      (turn(v.z, v.x, s, c), ...);
      return;
    case 2:
      (turn(v.x, v.y, s, c), ...);
      return;
    default: {
      const Vec3<S> u = every_lane<S>(tree.axis_of(i));
      ((v = turned(u, v, s, c)), ...);
    }
  }
}

// An inertia in world axes.
template <typename S>
struct Inertia {
  S m;
  Vec3<S> h;
  Sym3<S> I;
};

template <typename S, typename A>
SKELOPS_HOST_DEVICE inline Inertia<S> world_inertia(const TreeView<A>& tree, int i,
                                                    const Mat3<S>& R) {
  return {S{} + tree.mass(i), R * tree.moment(i), rotated(R, tree.rotational(i))};
}

// Adds a body's gradient of m, m c and I to that of its inertia, where an off-diagonal entry of I
// stands for two.
template <typename S, typename M>
SKELOPS_HOST_DEVICE inline void add_inertia_grad(const M& grad, int i, const S& m, const Vec3<S>& h,
                                                 const Sym3<S>& I) {
  const M to = grad.from(kInertiaSize * i);
  to[0] += m;
  to.add(1, h);
  to.add(4, Sym3<S>{I.xx, I.xy * 2.0f, I.yy, I.xz * 2.0f, I.yz * 2.0f, I.zz});
}

// Rotations and origins of all frames: 12 values each, rotation by columns first.
constexpr int kFrameSlots = 12;

template <typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void forward_kinematics(const TreeView<A>& tree, const S* q, const M& frame) {
  for (int i = 0; i < tree.size; ++i) {
    const int l = tree.parent[i];
    const Mat3<S> R = parent_rotation<S>(frame, l, kFrameSlots, 0);
    const Joint<S> joint = joint_of(tree, i, R, q[i]);
    Vec3<S> p = l < 0 ? Vec3<S>{} : frame.vec(l * kFrameSlots + 9);
    if (tree.shifted(i)) p += joint.r;
    frame.put(i * kFrameSlots, rotate(tree, i, R, joint.z, q[i]));
    frame.put(i * kFrameSlots + 9, p);
  }
}

// Gradients of rotations become a torque t (the gradient to a rotation of the frame), those of
// origins a force; both are handed to the parent. `grad` is overwritten.
template <typename S, typename A, typename M>
SKELOPS_HOST_DEVICE void forward_kinematics_backward(const TreeView<A>& tree, const S* q,
                                                     const M& frame, const M& grad, S* dq) {
  for (int i = 0; i < tree.size; ++i) {
    const Mat3<S> R = frame.mat(i * kFrameSlots), g = grad.mat(i * kFrameSlots);
    grad.put(i * kFrameSlots, cross(R.x, g.x) + cross(R.y, g.y) + cross(R.z, g.z));
  }
  for (int i = tree.size - 1; i >= 0; --i) {
    const int l = tree.parent[i], at = i * kFrameSlots;
    const Joint<S> joint = joint_of(tree, i, parent_rotation<S>(frame, l, kFrameSlots, 0), q[i]);
    Vec3<S> t = grad.vec(at);
    const Vec3<S> f = grad.vec(at + 9);
    dq[i] = dot(joint.z, tree.revolute(i) ? t : f);
    if (l < 0) continue;
    if (tree.shifted(i)) t += cross(joint.r, f);
    grad.add(l * kFrameSlots, t);
    grad.add(l * kFrameSlots + 9, f);
  }
}

}  // namespace skelops
