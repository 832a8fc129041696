// Masks of joints: (V,) for the batch or (N, V), true = kept.
#pragma once

#include "common/tensor.h"

namespace skelops {

class JointMask {
 public:
  explicit JointMask(const Tensor& mask)
      : tensor_(as_contiguous(mask)),
        stride_(mask.dim() == 2 ? mask.size(1) : 0),
        data_(skelops::data<bool>(tensor_)) {}
  const bool* row(int64_t n) const { return data_ + n * stride_; }

 private:
  Tensor tensor_;
  int64_t stride_;
  const bool* data_;
};

inline void check_joint_mask(const char* op, const Tensor& mask, int64_t batch, int64_t joints) {
  SKELOPS_CHECK(mask.scalar_type() == ScalarType::Bool &&
                    mask.numel() == (mask.dim() == 2 ? batch : 1) * joints,
                op, "mask (V,) or (N, V) of bool");
}

}  // namespace skelops
