// Tensors as the kernels see them: contiguous samples in the accumulation type.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <vector>

#include "common/check.h"
#include "common/simd.h"

namespace skelops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Half types are accumulated in float32.
template <typename T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
constexpr ScalarType kScalarType = torch::headeronly::CppTypeToScalarType<T>::value;

template <typename T, typename U>
void convert(const T* from, U* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<U>(from[i]);
}

#if defined(__F16C__)
// Compilers do not vectorise these two.
inline void convert(const float* from, c10::Half* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
  }
  for (; i < count; ++i) to[i] = from[i];
}

inline void convert(const c10::Half* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  for (; i < count; ++i) to[i] = from[i];
}
#endif

// t itself where it is contiguous: the dispatcher, which finds ops by name, takes a microsecond.
inline Tensor as_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// Results of a block in the type of `to`: past the caches where that is A itself (see `stream`).
template <typename A, typename T>
void stream_as(const A* from, T* to, int64_t count) {
  if constexpr (std::is_same_v<A, T>) {
    stream(from, to, count);
  } else {
    convert(from, to, count);
  }
}

// Uninitialised memory of one task, from the beginning of a cache line on.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(::operator new(count * sizeof(T), kLine))) {}
  T* get() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  static_assert(std::is_trivial_v<T>);
  std::unique_ptr<T, Free> data_;
};

// A batch tensor read sample by sample: in place, or converted into the caller's scratch.
template <typename T>
class Samples {
 public:
  explicit Samples(const Tensor& t)
      : tensor_(as_contiguous(t)),
        data_(static_cast<const T*>(tensor_.data_ptr())),
        size_(t.size(0) == 0 ? 0 : t.numel() / t.size(0)) {}

  static constexpr bool kInPlace = std::is_same_v<T, Accumulate<T>>;
  int64_t size() const { return size_; }
  int64_t scratch() const { return kInPlace ? 0 : size_; }
  const T* raw(int64_t n) const { return data_ + n * size_; }

  const Accumulate<T>* get(int64_t n, Accumulate<T>* scratch) const {
    return get(n, 0, size_, scratch);
  }

  const Accumulate<T>* get(int64_t n, int64_t begin, int64_t count, Accumulate<T>* scratch) const {
    if constexpr (kInPlace) {
      return data_ + n * size_ + begin;
    } else {
      convert(data_ + n * size_ + begin, scratch, count);
      return scratch;
    }
  }

 private:
  Tensor tensor_;
  const T* data_;
  int64_t size_;
};

template <typename T>
Tensor new_tensor(const Tensor& like, std::vector<int64_t> shape) {
  return torch::stable::new_empty(like, shape, kScalarType<T>);
}

template <typename T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

inline Tensor no_gradient(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

inline bool wants(int64_t needs, int index) { return needs >> index & 1; }

// function(T{}) with T the floating type.
template <typename F>
auto dispatch(ScalarType type, const char* op, F&& function) {
  switch (type) {
    case ScalarType::Double:
      return function(double{});
    case ScalarType::Float:
      return function(float{});
    case ScalarType::Half:
      return function(c10::Half{});
    case ScalarType::BFloat16:
      return function(c10::BFloat16{});
    default:
      SKELOPS_CHECK(false, op, "a floating tensor");
  }
  return function(float{});
}

template <typename F>
auto dispatch(const Tensor& t, const char* op, F&& function) {
  return dispatch(t.scalar_type(), op, std::forward<F>(function));
}

// A small tensor (parameters, statistics) copied to the accumulation type; absent ones are empty.
template <typename A>
std::vector<A> parameter(const OptionalTensor& maybe) {
  if (!maybe.has_value()) return {};
  const Tensor t = as_contiguous(*maybe);
  std::vector<A> values(t.numel());
  dispatch(t, "parameter", [&](auto type) {
    convert(static_cast<const decltype(type)*>(t.data_ptr()), values.data(), t.numel());
  });
  return values;
}

template <typename A>
std::vector<A> parameter(const Tensor& t) {
  return parameter<A>(OptionalTensor(t));
}

// A larger parameter, read in place where it has the accumulation type.
template <typename A>
class Parameter {
 public:
  explicit Parameter(const OptionalTensor& maybe) : present_(maybe.has_value()) {
    if (!present_) return;
    if (maybe->scalar_type() == kScalarType<A>) {
      tensor_ = as_contiguous(*maybe);
      data_ = static_cast<const A*>(tensor_->data_ptr());
    } else {
      converted_ = parameter<A>(maybe);
      data_ = converted_.data();
    }
  }
  Parameter(const Parameter&) = delete;

  bool present() const { return present_; }
  const A* data() const { return data_; }

 private:
  OptionalTensor tensor_;
  std::vector<A> converted_;
  const A* data_ = nullptr;
  bool present_;
};

// The gradient of a parameter, summed in the accumulation type: a tensor of its shape and dtype.
template <typename A>
Tensor gradient_of(const Tensor& parameter, const std::vector<A>& values) {
  const auto sizes = parameter.sizes();
  Tensor t = torch::stable::new_empty(parameter, sizes);
  dispatch(t, "gradient", [&](auto type) {
    convert(values.data(), static_cast<decltype(type)*>(t.data_ptr()), t.numel());
  });
  return t;
}

}  // namespace skelops
