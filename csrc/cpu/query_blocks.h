// Similarities with the queries across: a vector of lanes is a vector of queries, so that softmax
// and maximum over the keys compare and add whole vectors.
#pragma once

#include <algorithm>

#include "common/gemm.h"
#include "common/tensor.h"
#include "common/transpose.h"

namespace skelops {

constexpr int64_t kQueries = 128;               // of a block
constexpr int64_t kTileKeys = 128;              // of a tile
constexpr int64_t kTileStride = kQueries + 16;  // not a power of two: columns spread over the sets

template <typename A>
class QueryBlocks {
 public:
  using S = Simd<A>;

  // rows (size, width)
  QueryBlocks(const A* rows, int64_t size, int64_t width)
      : size_(size), width_(width), across_(count() * width * kTileStride) {
    for (int64_t b = 0; b < count(); ++b) {
      std::fill_n(across(b), width * kTileStride, A(0));
      transpose(rows + begin(b) * width, size_of(b), width, width, across(b), kTileStride);
    }
  }

  int64_t count() const { return (size_ + kQueries - 1) / kQueries; }
  int64_t begin(int64_t block) const { return block * kQueries; }
  int64_t size_of(int64_t block) const { return std::min(kQueries, size_ - begin(block)); }
  // with lanes behind the last query, which are zero
  int64_t lanes_of(int64_t block) const {
    return (size_of(block) + S::kLanes - 1) / S::kLanes * S::kLanes;
  }

  // tile[key][query] = keys[key] . query
  void multiply_keys(int64_t block, const A* keys, int64_t count, A* tile) const {
    multiply(Product<A>{count, lanes_of(block), width_, keys, width_, 1, across(block), kTileStride,
                        tile, kTileStride});
  }

 private:
  A* across(int64_t block) const { return across_.get() + block * width_ * kTileStride; }

  int64_t size_, width_;
  Scratch<A> across_;
};

}  // namespace skelops
