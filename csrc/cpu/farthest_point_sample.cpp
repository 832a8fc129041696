// farthest_point_sample: one read of the cloud per chosen point, which moves the distances to the
// set and finds the largest of them.
#include <array>

#include "cpu/points.h"

namespace skelops {
namespace {

constexpr const char* kOp = "farthest_point_sample";
constexpr double kOrigin = 1e-3;

// The largest of many values, of equal ones the first, a vector at a time.
template <typename A>
struct Farthest {
  using Vec = typename Simd<A>::Vec;
  using Int = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  typedef Int Index __attribute__((vector_size(kVectorBytes)));

  Vec value = Vec{} - 2;  // below that of points which are not to be chosen
  Index index = {};

  void see(Vec other, Index at) {
    const auto farther = other > value;
    value = farther ? other : value;
    index = farther ? at : index;
  }

  void lane(int i, A& most, int64_t& first) const {
    const bool better = value[i] > most || (value[i] == most && index[i] < first);
    first = better ? index[i] : first;
    most = better ? value[i] : most;
  }
};

template <typename A>
void sample(const Cloud<A>& cloud, const A* points, A* distance, int64_t count, int64_t start,
            int64_t* out) {
  using S = Simd<A>;
  using Best = Farthest<A>;
  constexpr int kChains = 4;
  typename Best::Index lanes = {};
  for (int i = 0; i < S::kLanes; ++i) lanes[i] = i;
  int64_t chosen = start;
  for (int64_t k = 0; k < count; ++k) {
    out[k] = chosen;
    const Point<A> center(points + 3 * chosen);
    std::array<Best, kChains> best = {};
    const auto visit = [&](int64_t i, Best& chain) {
      const auto before = S::load(distance + i), now = cloud.distance(i, center);
      const auto nearer = now < before ? now : before;
      S::store(distance + i, nearer);
      chain.see(nearer, lanes + static_cast<typename Best::Int>(i));
    };
    int64_t i = 0;
    for (; i + kChains * S::kLanes <= cloud.padded(); i += kChains * S::kLanes) {
#pragma GCC unroll 4
      for (int j = 0; j < kChains; ++j) visit(i + j * S::kLanes, best[j]);
    }
    for (; i < cloud.padded(); i += S::kLanes) visit(i, best[0]);
    A most = -2;
    for (const Best& chain : best) {
      for (int j = 0; j < S::kLanes; ++j) chain.lane(j, most, chosen);
    }
  }
}

template <typename T>
Tensor forward(const Tensor& points, int64_t count, int64_t start, bool skip_origin) {
  using A = Accumulate<T>;
  const int64_t size = points.size(1);
  const Samples<T> clouds(points);
  Tensor out = new_tensor<int64_t>(points, {points.size(0), count});
  parallel(points.size(0), [&](int64_t n) {
    const Scratch<A> scratch(clouds.scratch());
    const A* p = clouds.get(n, scratch.get());
    const Cloud<A> cloud(p, size);
    const Scratch<A> distance(cloud.padded());
    for (int64_t i = 0; i < size; ++i) {
      const A x = p[3 * i], y = p[3 * i + 1], z = p[3 * i + 2];
      const bool finite = std::isfinite(x) && std::isfinite(y) && std::isfinite(z);
      const bool skipped = skip_origin && x * x + y * y + z * z <= static_cast<A>(kOrigin);
      distance[i] = finite && !skipped ? std::numeric_limits<A>::infinity() : A(-1);
    }
    // Behind a point that may always be taken instead.
    std::fill(distance.get() + size, distance.get() + cloud.padded(), A(-1));
    sample(cloud, p, distance.get(), count, start, data<int64_t>(out) + n * count);
  });
  return out;
}

Tensor farthest_point_sample(Tensor points, int64_t count, int64_t start, bool skip_origin) {
  check_clouds(kOp, points, points);
  check_count(kOp, count, points);
  SKELOPS_CHECK(start >= 0 && start < points.size(1), kOp, "start among the points");
  return dispatch(points, kOp, [&](auto type) {
    return forward<decltype(type)>(points, count, start, skip_origin);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("farthest_point_sample", TORCH_BOX(&farthest_point_sample));
}

}  // namespace skelops
