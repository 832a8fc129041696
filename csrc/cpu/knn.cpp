// knn: distances a vector at a time; the few that are less than the k-th so far are sorted in.
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
void search(const Cloud<A>& cloud, const Point<A>& query, int64_t size, Nearest<A> nearest) {
  using S = Simd<A>;
  const auto lanes_of = [&](int64_t i) { return std::min<int64_t>(S::kLanes, size - i); };
  int64_t i = 0;
  for (; i < size && !nearest.full(); i += S::kLanes) {
    const auto distance = cloud.distance(i, query);
    for (int64_t j = 0; j < lanes_of(i); ++j) {
      if (!nearest.full() || distance[j] < nearest.last()) nearest.insert(distance[j], i + j);
    }
  }
  for (; i < size; i += S::kLanes) {
    const auto distance = cloud.distance(i, query);
    // Points behind the last are infinitely far, and no distance is more than that.
    for (uint32_t nearer = S::bits(distance < nearest.last()); nearer; nearer &= nearer - 1) {
      const int j = __builtin_ctz(nearer);
      if (distance[j] < nearest.last()) nearest.insert(distance[j], i + j);
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
      search(in, q, points.size(1),
             Nearest<A>(k, data<int64_t>(indices) + at, data<A>(distances) + at));
    });
    return std::tuple<Tensor, Tensor>(indices, distances);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("knn", TORCH_BOX(&knn)); }

}  // namespace skelops
