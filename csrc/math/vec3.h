// Vectors, matrices and symmetric matrices of three dimensions over any scalar: a number, or a
// register that holds one number of each of several frames.
#pragma once

#include "math/host_device.h"

namespace skelops {

template <typename S>
struct Vec3 {
  S x, y, z;
};

template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> operator+(const Vec3<S>& a, const Vec3<S>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> operator-(const Vec3<S>& a, const Vec3<S>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <typename S, typename U>
SKELOPS_HOST_DEVICE inline Vec3<S> operator*(const Vec3<S>& a, const U& u) {
  return {a.x * u, a.y * u, a.z * u};
}
template <typename S>
SKELOPS_HOST_DEVICE inline void operator+=(Vec3<S>& a, const Vec3<S>& b) {
  a = a + b;
}
template <typename S>
SKELOPS_HOST_DEVICE inline void operator-=(Vec3<S>& a, const Vec3<S>& b) {
  a = a - b;
}
template <typename S>
SKELOPS_HOST_DEVICE inline S dot(const Vec3<S>& a, const Vec3<S>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> cross(const Vec3<S>& a, const Vec3<S>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

// Columns x, y, z.
template <typename S>
struct Mat3 {
  Vec3<S> x, y, z;
};

template <typename S, typename U>
SKELOPS_HOST_DEVICE inline Vec3<S> operator*(const Mat3<S>& m, const Vec3<U>& v) {
  return m.x * v.x + m.y * v.y + m.z * v.z;
}
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> transposed(const Mat3<S>& m, const Vec3<S>& v) {
  return {dot(m.x, v), dot(m.y, v), dot(m.z, v)};
}

template <typename S>
struct Sym3 {
  S xx, xy, yy, xz, yz, zz;
};

template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> column_x(const Sym3<S>& m) {
  return {m.xx, m.xy, m.xz};
}
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> column_y(const Sym3<S>& m) {
  return {m.xy, m.yy, m.yz};
}
template <typename S>
SKELOPS_HOST_DEVICE inline Vec3<S> column_z(const Sym3<S>& m) {
  return {m.xz, m.yz, m.zz};
}
template <typename S, typename U>
SKELOPS_HOST_DEVICE inline Vec3<U> operator*(const Sym3<S>& m, const Vec3<U>& v) {
  return {v.x * m.xx + v.y * m.xy + v.z * m.xz, v.x * m.xy + v.y * m.yy + v.z * m.yz,
          v.x * m.xz + v.y * m.yz + v.z * m.zz};
}
template <typename S>
SKELOPS_HOST_DEVICE inline Sym3<S> operator+(const Sym3<S>& a, const Sym3<S>& b) {
  return {a.xx + b.xx, a.xy + b.xy, a.yy + b.yy, a.xz + b.xz, a.yz + b.yz, a.zz + b.zz};
}
template <typename S>
SKELOPS_HOST_DEVICE inline void operator+=(Sym3<S>& a, const Sym3<S>& b) {
  a = a + b;
}
template <typename S, typename U>
SKELOPS_HOST_DEVICE inline Sym3<S> scaled(const Sym3<S>& a, const U& u) {
  return {a.xx * u, a.xy * u, a.yy * u, a.xz * u, a.yz * u, a.zz * u};
}
// a b^T + b a^T
template <typename S>
SKELOPS_HOST_DEVICE inline Sym3<S> symmetric_outer(const Vec3<S>& a, const Vec3<S>& b) {
  const S xx = a.x * b.x, yy = a.y * b.y, zz = a.z * b.z;
  return {xx + xx, a.x * b.y + a.y * b.x, yy + yy, a.x * b.z + a.z * b.x, a.y * b.z + a.z * b.y,
          zz + zz};
}
template <typename S>
SKELOPS_HOST_DEVICE inline S trace(const Sym3<S>& m) {
  return m.xx + m.yy + m.zz;
}

// R m R^T
template <typename S, typename U>
SKELOPS_HOST_DEVICE inline Sym3<S> rotated(const Mat3<S>& r, const Sym3<U>& m) {
  const Vec3<S> x = r * column_x(m), y = r * column_y(m), z = r * column_z(m);
  return {r.x.x * x.x + r.y.x * y.x + r.z.x * z.x, r.x.y * x.x + r.y.y * y.x + r.z.y * z.x,
          r.x.y * x.y + r.y.y * y.y + r.z.y * z.y, r.x.z * x.x + r.y.z * y.x + r.z.z * z.x,
          r.x.z * x.y + r.y.z * y.y + r.z.z * z.y, r.x.z * x.z + r.y.z * y.z + r.z.z * z.z};
}
// R^T m R
template <typename S>
SKELOPS_HOST_DEVICE inline Sym3<S> rotated_back(const Mat3<S>& r, const Sym3<S>& m) {
  const Vec3<S> x = m * r.x, y = m * r.y, z = m * r.z;
  return {dot(r.x, x), dot(r.x, y), dot(r.y, y), dot(r.x, z), dot(r.y, z), dot(r.z, z)};
}

}  // namespace skelops
