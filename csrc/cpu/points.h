// Points in space: squared distances, a vector of points at a time. Compiled without contraction,
// so that they are those of every other backend to the last bit.
#pragma once

#include <cmath>
#include <limits>

#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {

template <typename A>
struct Point {
  A x, y, z;

  explicit Point(const A* p) : x(p[0]), y(p[1]), z(p[2]) {}
};

// The coordinates of a cloud as rows, filled up to whole blocks by points that are nowhere.
template <typename A>
class Cloud {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;
  static constexpr int64_t kBlock = 64;

  Cloud(const A* points, int64_t count)
      : padded_((count + kBlock - 1) / kBlock * kBlock), rows_(3 * padded_) {
    for (int c = 0; c < 3; ++c) {
      A* to = rows_.get() + c * padded_;
      for (int64_t i = 0; i < count; ++i) to[i] = points[3 * i + c];
      std::fill(to + count, to + padded_, std::numeric_limits<A>::quiet_NaN());
    }
  }

  int64_t padded() const { return padded_; }

  // Squared distances of `p` to the points from i on; not a number for those that are nowhere.
  Vec distance(int64_t i, const Point<A>& p) const {
    const A* row = rows_.get() + i;
    const Vec x = S::load(row) - p.x, y = S::load(row + padded_) - p.y;
    const Vec z = S::load(row + 2 * padded_) - p.z;
    return x * x + y * y + z * z;
  }

 private:
  int64_t padded_;
  Scratch<A> rows_;
};

inline void check_clouds(const char* op, const Tensor& query, const Tensor& points) {
  SKELOPS_CHECK(query.dim() == 3 && points.dim() == 3 && query.size(2) == 3 &&
                    points.size(2) == 3 && query.size(0) == points.size(0) &&
                    query.scalar_type() == points.scalar_type(),
                op, "query (N, Q, 3) and points (N, L, 3)");
}

inline void check_count(const char* op, int64_t count, const Tensor& points) {
  SKELOPS_CHECK(count >= 1 && count <= points.size(1) && points.size(1) <= INT32_MAX, op,
                "no more than all points");
}

// function(n, query's index, query, cloud) for all queries, in blocks that share a cloud.
template <typename T, typename F>
void for_each_query(const Tensor& query, const Tensor& points, const F& function) {
  using A = Accumulate<T>;
  constexpr int64_t kBlock = 256;
  const int64_t queries = query.size(1), blocks = (queries + kBlock - 1) / kBlock;
  const Samples<T> from(query), to(points);
  parallel(query.size(0) * blocks, [&](int64_t task) {
    const int64_t n = task / blocks, begin = task % blocks * kBlock;
    const int64_t count = std::min(kBlock, queries - begin);
    const Scratch<A> q_scratch(from.kInPlace ? 0 : 3 * count), scratch(to.scratch());
    const Cloud<A> cloud(to.get(n, scratch.get()), points.size(1));
    const A* q = from.get(n, 3 * begin, 3 * count, q_scratch.get());
    for (int64_t i = 0; i < count; ++i) function(n, begin + i, Point<A>(q + 3 * i), cloud);
  });
}

}  // namespace skelops
