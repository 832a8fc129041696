// Host side of every CUDA op: dtype switch, device and stream of the caller, launch errors.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

#include "common/check.h"
#include "common/device.cuh"

namespace skelops {

// Calls fn with a value of the device type that stores the tensor's elements.
template <typename Fn>
void dispatch_device_type(const char* op, const torch::stable::Tensor& x, Fn&& fn) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return fn(double{});
    case ScalarType::Float:
      return fn(float{});
    case ScalarType::Half:
      return fn(__half{});
    case ScalarType::BFloat16:
      return fn(__nv_bfloat16{});
    default:
      SKELOPS_CHECK(false, op, "float64, float32, float16 or bfloat16");
  }
}

template <typename T>
const T* input(const torch::stable::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <typename T>
T* output(const torch::stable::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Makes the tensor's device current and names its current stream, for the lifetime of the object.
class LaunchOn {
 public:
  explicit LaunchOn(const torch::stable::Tensor& x) : guard_(x.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream_));
  }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

}  // namespace skelops
