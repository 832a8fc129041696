// Sine and cosine of one number or of a register of numbers, within two units in the last place.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "math/host_device.h"
#if !defined(__CUDACC__)
#include "common/simd.h"
#endif

namespace skelops {

SKELOPS_HOST_DEVICE inline void sine_cosine(float x, float& sine, float& cosine) {
#if defined(__CUDA_ARCH__)
  sincosf(x, &sine, &cosine);
#else
  sine = std::sin(x), cosine = std::cos(x);
#endif
}

SKELOPS_HOST_DEVICE inline void sine_cosine(double x, double& sine, double& cosine) {
#if defined(__CUDA_ARCH__)
  sincos(x, &sine, &cosine);
#else
  sine = std::sin(x), cosine = std::cos(x);
#endif
}

#if !defined(__CUDACC__)
namespace detail {

// Argument reduction by pi / 2 in three parts (Cody and Waite), whose products with the quotient
// are exact up to kLimit; polynomials on |r| <= pi / 4 (fdlibm in double, Cephes in single).
template <typename T>
struct SineSeries;

template <>
struct SineSeries<double> {
  using Int = int64_t;
  static constexpr double kLimit = 1e6;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds
  static constexpr double kPart[] = {1.57079632673412561417, 6.07710050630396597660e-11,
                                     2.02226624879595063154e-21};
  static constexpr double kSine[] = {1.58969099521155010221e-10, -2.50507602534068634195e-08,
                                     2.75573137070700676789e-06, -1.98412698298579493134e-04,
                                     8.33333333332248946124e-03, -1.66666666666666324348e-01};
  static constexpr double kCosine[] = {-1.13596475577881948265e-11, 2.08757232129817482790e-09,
                                       -2.75573143513906633035e-07, 2.48015872894767294178e-05,
                                       -1.38888888888741095749e-03, 4.16666666666666019037e-02};
};

template <>
struct SineSeries<float> {
  using Int = int32_t;
  static constexpr float kLimit = 8192.0f;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  static constexpr float kPart[] = {1.5703125f, 4.837512969970703125e-4f, 7.54978995489188e-8f};
  static constexpr float kSine[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
  static constexpr float kCosine[] = {2.443315711809948e-5f, -1.388731625493765e-3f,
                                      4.166664568298827e-2f};
};

template <typename Vec, typename T, int kTerms>
inline Vec polynomial(Vec x, const T (&coefficient)[kTerms]) {
  Vec sum = Vec{} + coefficient[0];
#pragma GCC unroll 8
  for (int i = 1; i < kTerms; ++i) sum = sum * x + coefficient[i];
  return sum;
}

template <typename T>
inline void sine_cosine(typename Simd<T>::Vec x, typename Simd<T>::Vec& sine,
                        typename Simd<T>::Vec& cosine) {
  using Vec = typename Simd<T>::Vec;
  using Series = SineSeries<T>;
  typedef typename Series::Int Int __attribute__((vector_size(kVectorBytes)));
  const Int large = (x > Series::kLimit) | (x < -Series::kLimit);
  typename Series::Int any = 0;
  for (int i = 0; i < Simd<T>::kLanes; ++i) any |= large[i];
  if (any) {
    for (int i = 0; i < Simd<T>::kLanes; ++i) sine[i] = std::sin(x[i]), cosine[i] = std::cos(x[i]);
    return;
  }
  constexpr T kTwoOverPi = static_cast<T>(0.63661977236758134308);
  const Vec shifted = x * kTwoOverPi + Series::kRound;
  const Vec k = shifted - Series::kRound;
  const Vec r = ((x - k * Series::kPart[0]) - k * Series::kPart[1]) - k * Series::kPart[2];
  const Vec r2 = r * r;
  const Vec s = r + r * r2 * polynomial(r2, Series::kSine);
  const Vec c = T(1) - (r2 * T(0.5) - r2 * r2 * polynomial(r2, Series::kCosine));
  // The low bits of `shifted` hold the quadrant.
  Int quadrant;
  std::memcpy(&quadrant, &shifted, sizeof(quadrant));
  const Int odd = (quadrant & 1) != 0;
  const Vec sine_size = odd ? c : s, cosine_size = odd ? s : c;
  sine = (quadrant & 2) != 0 ? -sine_size : sine_size;
  cosine = ((quadrant + 1) & 2) != 0 ? -cosine_size : cosine_size;
}

}  // namespace detail

inline void sine_cosine(Simd<float>::Vec x, Simd<float>::Vec& sine, Simd<float>::Vec& cosine) {
  detail::sine_cosine<float>(x, sine, cosine);
}
inline void sine_cosine(Simd<double>::Vec x, Simd<double>::Vec& sine, Simd<double>::Vec& cosine) {
  detail::sine_cosine<double>(x, sine, cosine);
}
#endif

}  // namespace skelops
