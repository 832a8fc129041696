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

template <typename A>
void search(const Cloud<A>& cloud, const Point<A>& query, int64_t size, int64_t k,
            Nearest<A> nearest) {
  using S = Simd<A>;
  const int64_t vectors = cloud.padded() / S::kLanes;
  // Four groups per neighbour, of whole lanes: the bound then lets few others through.
  const int64_t rows = std::min(vectors, (4 * k + S::kLanes - 1) / S::kLanes);
  const int64_t groups = rows * S::kLanes;
  const Scratch<A> distances(cloud.padded()), least(groups);
  std::fill_n(least.get(), groups, std::numeric_limits<A>::infinity());
  for (int64_t i = 0; i < vectors; i += rows) {
    for (int64_t row = 0; row < std::min(rows, vectors - i); ++row) {
      const auto distance = cloud.distance((i + row) * S::kLanes, query);
      S::store(distances.get() + (i + row) * S::kLanes, distance);
      const auto before = S::load(least.get() + row * S::kLanes);
      S::store(least.get() + row * S::kLanes, distance < before ? distance : before);
    }
  }
  std::nth_element(least.get(), least.get() + k - 1, least.get() + groups);
  const A bound = least[k - 1];
  for (int64_t i = 0; i < cloud.padded(); i += S::kLanes) {
    for (uint32_t near = S::bits(S::load(distances.get() + i) <= bound); near; near &= near - 1) {
      const int64_t j = i + __builtin_ctz(near);
      // Points behind the last are infinitely far, and so can the bound be.
      if (j < size && (!nearest.full() || distances[j] < nearest.last())) {
        nearest.insert(distances[j], j);
      }
    }
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
