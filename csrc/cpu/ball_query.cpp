// ball_query: points in order, a vector at a time, until the slots of a query are filled.
#include <tuple>

#include "cpu/points.h"

namespace skelops {
namespace {

// Indices of the first k points nearer than the root of `square`; returns how many there are.
template <typename A>
int64_t search(const Cloud<A>& cloud, const Point<A>& query, int64_t size, A square, int64_t k,
               int64_t* out) {
  using S = Simd<A>;
  const auto limit = typename S::Vec{} + square;
  int64_t found = 0;
  for (int64_t i = 0; i < size && found < k; i += S::kLanes) {
    uint32_t inside = S::less(cloud.distance(i, query), limit);
    for (; inside && found < k; inside &= inside - 1) out[found++] = i + __builtin_ctz(inside);
  }
  std::fill(out + found, out + k, found ? out[0] : 0);
  return found;
}

std::tuple<Tensor, Tensor> ball_query(Tensor query, Tensor points, double radius, int64_t k) {
  check_clouds("ball_query", query, points);
  check_count("ball_query", k, points);
  return dispatch(query, "ball_query", [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const A r = static_cast<A>(radius);
    const int64_t queries = query.size(1);
    Tensor indices = new_tensor<int64_t>(query, {query.size(0), queries, k});
    Tensor count = new_tensor<int64_t>(query, {query.size(0), queries});
    for_each_query<T>(query, points, [&](int64_t n, int64_t i, const Point<A>& q, const auto& in) {
      const int64_t at = n * queries + i;
      int64_t* to = data<int64_t>(indices) + at * k;
      data<int64_t>(count)[at] = search(in, q, points.size(1), r * r, k, to);
    });
    return std::tuple<Tensor, Tensor>(indices, count);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("ball_query", TORCH_BOX(&ball_query)); }

}  // namespace skelops
