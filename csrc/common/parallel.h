// Work is cut by the problem, never by the number of threads: results do not depend on it.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

namespace skelops {

template <typename F>
void parallel(int64_t tasks, const F& function) {
  torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) function(i);
  });
}

// Gradients of parameters are summed over a fixed number of batch slices, then in slice order.
constexpr int64_t kMaxSlices = 16;

struct Slices {
  explicit Slices(int64_t batch) : batch(batch), count(std::min(batch, kMaxSlices)) {}
  int64_t begin(int64_t i) const { return i * batch / count; }
  int64_t end(int64_t i) const { return (i + 1) * batch / count; }
  int64_t batch, count;
};

// One zeroed accumulator per slice.
template <typename A>
class Partials {
 public:
  Partials(const Slices& slices, int64_t size)
      : size_(size), count_(slices.count), data_(size * slices.count) {}

  A* slice(int64_t i) { return data_.data() + i * size_; }

  std::vector<A> total() const {
    std::vector<A> sum(size_);
    for (int64_t s = 0; s < count_; ++s) {
      const A* from = data_.data() + s * size_;
      for (int64_t i = 0; i < size_; ++i) sum[i] += from[i];
    }
    return sum;
  }

 private:
  int64_t size_, count_;
  std::vector<A> data_;
};

}  // namespace skelops
