// knn: all distances first, with the least of each of many groups. The k-th of those least ones
// bounds the k-th distance, so that hardly more than k points are sorted in.
#include <algorithm>
#include <tuple>

#include "cpu/points.h"

namespace skelops {
namespace {

// The k least distances so far, ascending, of equal ones the first. Points come in order of index.
template <typename A>
class Nearest {
 public:
  Nearest(int64_t k, int64_t* index, A* distance) : k_(k), index_(index), distance_(distance) {}

  bool full() const { return found_ == k_; }
  A last() const { return distance_[k_ - 1]; }

  void insert(A distance, int64_t index) {
    if (full() && distance >= last()) return;
    int64_t i = full() ? k_ - 1 : found_++;
    for (; i > 0 && distance_[i - 1] > distance; --i) {
      distance_[i] = distance_[i - 1];
      index_[i] = index_[i - 1];
    }
    distance_[i] = distance;
    index_[i] = index;
  }

 private:
  int64_t k_, found_ = 0;
  int64_t* index_;
  A* distance_;
};

// Above the k-th least of `count` vectors of distances, hardly or infinitely: bisects the bits of
// a number, whose order is that of distances.
template <typename A>
A bound_of(const A* distances, int64_t count, int64_t k) {
  using S = Simd<A>;
  using Bits = std::conditional_t<sizeof(A) == 8, uint64_t, uint32_t>;
  constexpr int kRounds = 12;
  A bound = std::numeric_limits<A>::infinity();
  Bits low = 0, high;
  std::memcpy(&high, &bound, sizeof(A));
  for (int round = 0; round < kRounds; ++round) {
    const Bits middle = low + (high - low) / 2;
    A limit;
    std::memcpy(&limit, &middle, sizeof(A));
    int64_t below = 0;
    for (int64_t i = 0; i < count; ++i) {
      const auto distance = S::load(distances + i * S::kLanes);
      below += __builtin_popcount(S::less(distance, typename S::Vec{} + limit));
    }
    (below < k ? low : high) = middle;
    bound = below < k ? bound : limit;
  }
  return bound;
}

template <typename A>
void search(const Cloud<A>& cloud, const Point<A>& query, int64_t size, int64_t k,
            Nearest<A> nearest) {
  using S = Simd<A>;
  using Vec = typename S::Vec;
  constexpr A kInfinity = std::numeric_limits<A>::infinity();
  constexpr int kVectors = Cloud<A>::kBlock / S::kLanes;
  const int64_t blocks = cloud.padded() / Cloud<A>::kBlock;
  // The least distances of a block, lane by lane, and of groups of blocks.
  const Scratch<A> least(blocks * S::kLanes), groups(blocks * S::kLanes);
  for (int64_t block = 0; block < blocks; ++block) {
    Vec nearer = Vec{} + kInfinity;
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const Vec distance = cloud.distance(block * Cloud<A>::kBlock + i * S::kLanes, query);
      nearer = distance < nearer ? distance : nearer;
    }
    S::store(least.get() + block * S::kLanes, nearer);
  }
  // Four groups per neighbour: the bound then lets few others through.
  const int64_t rows = std::min(blocks, (4 * k + S::kLanes - 1) / S::kLanes);
  std::copy_n(least.get(), rows * S::kLanes, groups.get());
  for (int64_t row = 0, block = rows; block < blocks; ++block) {
    const Vec a = S::load(groups.get() + row * S::kLanes);
    const Vec b = S::load(least.get() + block * S::kLanes);
    S::store(groups.get() + row * S::kLanes, a < b ? a : b);
    row = row + 1 == rows ? 0 : row + 1;
  }
  const Vec limit = Vec{} + bound_of(groups.get(), rows, k);
  for (int64_t block = 0; block < blocks; ++block) {
    if (!S::less(S::load(least.get() + block * S::kLanes), limit)) continue;
    const int64_t first = block * Cloud<A>::kBlock;
    A distances[Cloud<A>::kBlock];
    uint64_t near = 0;
#pragma GCC unroll 4
    for (int i = 0; i < Cloud<A>::kBlock; i += S::kLanes) {
      const Vec distance = cloud.distance(first + i, query);
      S::store(distances + i, distance);
      near |= static_cast<uint64_t>(S::less(distance, limit)) << i;
    }
    for (; near; near &= near - 1) {
      const int i = __builtin_ctzll(near);
      nearest.insert(distances[i], first + i);
    }
  }
  // Points that are infinitely far or nowhere come last.
  for (int64_t i = 0; i < size && !nearest.full(); ++i) {
    const A distance = cloud.distance(i - i % S::kLanes, query)[i % S::kLanes];
    if (!(distance < kInfinity)) nearest.insert(kInfinity, i);
  }
}

std::tuple<Tensor, Tensor> knn(Tensor query, Tensor points, int64_t k) {
  check_clouds("knn", query, points);
  check_count("knn", k, points);
  return dispatch(query, "knn", [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const int64_t queries = query.size(1);
    Tensor indices = new_tensor<int64_t>(query, {query.size(0), queries, k});
    Tensor distances = new_tensor<A>(query, {query.size(0), queries, k});
    for_each_query<T>(query, points, [&](int64_t n, int64_t i, const Point<A>& q, const auto& in) {
      const int64_t at = (n * queries + i) * k;
      search(in, q, points.size(1), k,
             Nearest<A>(k, data<int64_t>(indices) + at, data<A>(distances) + at));
    });
    return std::tuple<Tensor, Tensor>(indices, distances);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("knn", TORCH_BOX(&knn)); }

}  // namespace skelops
