// The diagonal of the learned factor L: softplus(x) + 1e-5; beyond the threshold softplus is the
// identity.
#pragma once

#include <cmath>

#include "math/host_device.h"

namespace skelops {

constexpr double kSoftplusShift = 1e-5, kSoftplusThreshold = 20;

template <typename A>
SKELOPS_HOST_DEVICE inline A softplus(A x) {
  return x > A(kSoftplusThreshold) ? x : std::log1p(std::exp(x));
}
template <typename A>
SKELOPS_HOST_DEVICE inline A softplus_slope(A x) {
  return x > A(kSoftplusThreshold) ? A(1) : A(1) / (A(1) + std::exp(-x));
}

}  // namespace skelops
