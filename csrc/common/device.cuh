// What every device file shares. Includes nothing unless SKELOPS_HALF asks for the half types, so
// that nvcc, NVRTC and, for tests without a GPU, a C++ compiler accept the same source.
#pragma once

#ifdef SKELOPS_HALF
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace skelops {

template <typename T>
struct Accumulator {
  using type = T;
};

#ifdef SKELOPS_HALF
template <>
struct Accumulator<__half> {
  using type = float;
};
template <>
struct Accumulator<__nv_bfloat16> {
  using type = float;
};
#endif

// Half types are summed in float.
template <typename T>
using acc_t = typename Accumulator<T>::type;

constexpr int kSharedBytes = 48 * 1024;  // what every GPU grants without opting in

template <typename T>
__host__ __device__ constexpr T least(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
__host__ __device__ constexpr T most(T a, T b) {
  return a < b ? b : a;
}

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Four values that move in one access.
template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T value[4];
};

template <typename T>
__device__ Quad<T> load_quad(const T* aligned) {
  return *reinterpret_cast<const Quad<T>*>(aligned);
}

// sum[i][j] += left[i] * right[j]
template <typename T>
__device__ void add_outer(T (&sum)[4][4], const Quad<T>& left, const Quad<T>& right) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] += left.value[i] * right.value[j];
  }
}

}  // namespace skelops
