// Mean and variance of rows, exact enough for float32: two passes per row, rows merged in double
// (Chan, Golub and LeVeque, 1979).
#pragma once

#include <cstdint>

#include "common/simd.h"

namespace skelops {

// function(vector) over a row, the last vector padded by zero lanes; returns the lane sum.
template <typename A, typename F>
A reduce(int64_t count, const F& function) {
  using S = Simd<A>;
  typename S::Vec first = {}, second = {};
  int64_t i = 0;
  for (; i + 2 * S::kLanes <= count; i += 2 * S::kLanes) {
    first += function(i, S::kLanes);
    second += function(i + S::kLanes, S::kLanes);
  }
  for (; i < count; i += S::kLanes) {
    first += function(i, static_cast<int>(count - i < S::kLanes ? count - i : S::kLanes));
  }
  return S::sum(first + second);
}

// As reduce, for kSums sums at once: function(index, lanes, sums) adds to vectors.
template <int kSums, typename A, typename F>
void reduce_into(int64_t count, double* totals, const F& function) {
  using S = Simd<A>;
  typename S::Vec sums[kSums] = {};
  int64_t i = 0;
  for (; i + S::kLanes <= count; i += S::kLanes) function(i, S::kLanes, sums);
  if (i < count) function(i, static_cast<int>(count - i), sums);
  for (int j = 0; j < kSums; ++j) totals[j] += S::sum(sums[j]);
}

template <typename A>
A sum(const A* values, int64_t count) {
  return reduce<A>(count, [=](int64_t i, int lanes) { return load_some(values + i, lanes); });
}

struct Moments {
  double count = 0, mean = 0, squares = 0;

  template <typename A>
  static Moments of(const A* values, int64_t count) {
    const A mean = sum(values, count) / static_cast<A>(count);
    // Zero lanes of a padded vector must not count as -mean.
    const A squares = reduce<A>(count, [=](int64_t i, int lanes) {
      auto d = load_some(values + i, lanes) - mean;
      for (int j = lanes; j < Simd<A>::kLanes; ++j) d[j] = 0;
      return d * d;
    });
    return {static_cast<double>(count), static_cast<double>(mean), static_cast<double>(squares)};
  }

  void merge(const Moments& other) {
    if (other.count == 0) return;
    const double total = count + other.count, delta = other.mean - mean;
    mean += delta * other.count / total;
    squares += other.squares + delta * delta * count * other.count / total;
    count = total;
  }

  double variance() const { return count == 0 ? 0 : squares / count; }
};

}  // namespace skelops
