// What the graph convolutions share: the 1x1 feature transform of a block of output channels, and
// its gradients. Samples are (C, T, V); V = joints; a row of T * V is contiguous.
#pragma once

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/moments.h"

namespace skelops {

struct GraphShape {
  // x (N, C, T, V); A (K, V, V) or (N, K, V, V); `channels` of the result.
  GraphShape(const char* op, const Tensor& x, const Tensor& A, const OptionalTensor& weight) {
    SKELOPS_CHECK(x.dim() == 4 && (A.dim() == 3 || A.dim() == 4), op, "x (N, C, T, V) and A");
    batch = x.size(0), inputs = x.size(1), frames = x.size(2), joints = x.size(3);
    per_sample = A.dim() == 4;
    subsets = A.size(A.dim() - 3);
    SKELOPS_CHECK(A.size(A.dim() - 1) == joints && A.size(A.dim() - 2) == joints && subsets > 0 &&
                      joints > 0 && (!per_sample || A.size(0) == batch),
                  op, "A of shape ([N,] K, V, V)");
    if (weight.has_value()) {
      SKELOPS_CHECK(weight->dim() == 3 && weight->size(0) == subsets && weight->size(2) == inputs,
                    op, "weight of shape (K, C', C)");
      channels = weight->size(1);
    } else {
      SKELOPS_CHECK(inputs % subsets == 0, op, "x of K * C' channels");
      channels = inputs / subsets;
    }
    // Three operands of a block (features, their gradients, the result) stay in a 1 MB L2 cache. A
    // block of few frames is as many channels as make whole tiles of the products.
    constexpr int64_t kBlockElements = 64 * 1024;
    constexpr int64_t kMostChannels = 26 / kAccumulatorRows * kAccumulatorRows;
    const int64_t fit = kBlockElements / std::max<int64_t>(subsets * frame(), 1);
    block = std::clamp<int64_t>(fit, 4, kMostChannels);
    blocks = (channels + block - 1) / block;
  }

  int64_t frame() const { return frames * joints; }
  int64_t graph() const { return joints * joints; }
  int64_t block_begin(int64_t b) const { return b * channels / blocks; }
  int64_t block_size(int64_t b) const { return block_begin(b + 1) - block_begin(b); }

  // Samples that are fewer than the threads are shared out by channel blocks.
  int64_t groups() const {
    const int64_t threads = torch::stable::get_num_threads();
    if (batch == 0 || batch >= threads) return 1;
    return std::max<int64_t>(1, std::min(blocks, (threads + batch - 1) / batch));
  }

  int64_t batch, inputs, channels, subsets, frames, joints, block, blocks;
  bool per_sample;
};

// Features of a channel block, all subsets: rows of T * V, `part` elements between subsets.
template <typename A>
struct Features {
  const A* data;
  int64_t part;
};

template <typename A>
class Transform {
 public:
  Transform(const GraphShape& shape, const OptionalTensor& weight, const OptionalTensor& bias)
      : shape_(shape), weight_(weight) {
    if (bias.has_value() && bias->dim() == 2) bias_ = parameter<A>(bias);
  }

  bool has_weight() const { return weight_.present(); }

  int64_t scratch() const {
    const bool needed = has_weight() || !bias_.empty();
    return needed ? shape_.subsets * shape_.block * shape_.frame() : 0;
  }

  Features<A> forward(const A* x, int64_t begin, int64_t size, A* scratch) const {
    const int64_t row = shape_.frame(), all = shape_.channels;
    if (!has_weight() && bias_.empty()) return {x + begin * row, all * row};
    if (has_weight()) {
      Product<A> p{};
      p.m = size, p.n = row, p.k = shape_.inputs;
      p.a = weight_.data() + begin * shape_.inputs, p.a_row = shape_.inputs, p.a_col = 1;
      p.b = x, p.b_row = row;
      p.c = scratch, p.c_row = row;
      p.row_init = bias_.empty() ? nullptr : bias_.data() + begin;
      p.groups = shape_.subsets, p.a_group = all * shape_.inputs, p.c_group = size * row;
      p.row_init_group = all;
      multiply(p);
      return {scratch, size * row};
    }
    for (int64_t k = 0; k < shape_.subsets; ++k) {
      for (int64_t c = 0; c < size; ++c) {
        A* out = scratch + (k * size + c) * row;
        const A* in = x + (k * all + begin + c) * row;
        const A shift = bias_[k * all + begin + c];
        for (int64_t i = 0; i < row; ++i) out[i] = in[i] + shift;
      }
    }
    return {scratch, size * row};
  }

  // dx (C, T, V) += weight^T df for a channel block; df (K, size, T * V).
  void backward_input(const A* df, int64_t begin, int64_t size, A* dx) const {
    const int64_t row = shape_.frame();
    Product<A> p{};
    p.m = shape_.inputs, p.n = row, p.k = size, p.parts = shape_.subsets;
    p.a = weight_.data() + begin * shape_.inputs, p.a_row = 1, p.a_col = shape_.inputs;
    p.a_part = shape_.channels * shape_.inputs;
    p.b = df, p.b_row = row, p.b_part = size * row;
    p.c = dx, p.c_row = row;
    p.accumulate = begin > 0;
    multiply(p);
  }

  // dweight (K, C', C) += df x^T; `x_columns` is the sample as (T * V, C).
  void backward_weight(const A* df, const A* x_columns, int64_t begin, int64_t size,
                       A* dweight) const {
    const int64_t row = shape_.frame();
    Product<A> p{};
    p.m = size, p.n = shape_.inputs, p.k = row;
    p.a = df, p.a_row = row, p.a_col = 1;
    p.b = x_columns, p.b_row = shape_.inputs;
    p.c = dweight + begin * shape_.inputs, p.c_row = shape_.inputs;
    p.accumulate = true;
    p.groups = shape_.subsets, p.a_group = size * row, p.c_group = shape_.channels * shape_.inputs;
    multiply(p);
  }

 private:
  const GraphShape& shape_;
  Parameter<A> weight_;
  std::vector<A> bias_;
};

}  // namespace skelops
