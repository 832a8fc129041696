// nn_lookup: a running maximum over tiles of the queue, a vector of queries at a time.
#include <limits>

#include "common/parallel.h"
#include "cpu/query_blocks.h"

namespace skelops {
namespace {

constexpr int64_t kSlices = 8;
constexpr const char* kOp = "nn_lookup";

template <typename A>
constexpr A kNone = -std::numeric_limits<A>::infinity();

// function(query, its largest similarity in the tile, the first key that has it)
template <typename A, typename F>
void for_each_largest(const A* tile, int64_t keys, int64_t queries, const F& function) {
  using S = Simd<A>;
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  typedef Index Indices __attribute__((vector_size(kVectorBytes)));
  for (int64_t n = 0; n < queries; n += S::kLanes) {
    typename S::Vec most = typename S::Vec{} + kNone<A>;
    Indices at = {};
    for (int64_t j = 0; j < keys; ++j) {
      const auto x = S::load(tile + j * kTileStride + n);
      const auto better = x > most;
      most = better ? x : most;
      at = better ? Indices{} + static_cast<Index>(j) : at;
    }
    for (int64_t l = 0; l < std::min<int64_t>(S::kLanes, queries - n); ++l) {
      function(n + l, most[l], at[l]);
    }
  }
}

template <typename T>
Tensor search(const Tensor& z, const Tensor& queue, const Tensor& queue_id_, const Tensor& ids_) {
  using A = Accumulate<T>;
  const int64_t N = z.size(0), D = z.size(1), K = queue.size(0);
  const Tensor queue_id = as_contiguous(queue_id_), ids = as_contiguous(ids_);
  const int64_t *owner = data<int64_t>(queue_id), *own = data<int64_t>(ids);
  const Parameter<A> rows(z);
  const Samples<T> keys(queue);
  const QueryBlocks<A> queries(rows.data(), N, D);
  const int64_t slices = std::min(kSlices, (K + kTileKeys - 1) / kTileKeys);
  std::vector<A> most(slices * N, kNone<A>);
  std::vector<int64_t> at(slices * N);
  parallel(queries.count() * slices, [&](int64_t task) {
    const int64_t block = task / slices, slice = task % slices;
    const int64_t n0 = queries.begin(block), count = queries.size_of(block);
    const int64_t end = (slice + 1) * K / slices;
    const Scratch<A> converted(keys.kInPlace ? 0 : kTileKeys * D), tile(kTileKeys * kTileStride);
    for (int64_t k0 = slice * K / slices; k0 < end; k0 += kTileKeys) {
      const int64_t here = std::min(kTileKeys, end - k0);
      queries.multiply_keys(block, keys.get(k0, 0, here * D, converted.get()), here, tile.get());
      for (int64_t j = 0; j < here; ++j) {
        A* row = tile.get() + j * kTileStride;
        for (int64_t n = 0; n < count; ++n) row[n] = owner[k0 + j] == own[n0 + n] ? A(-1) : row[n];
      }
      for_each_largest(tile.get(), here, count, [&](int64_t n, A value, int64_t j) {
        const int64_t i = slice * N + n0 + n;
        if (value > most[i]) most[i] = value, at[i] = k0 + j;
      });
    }
  });
  Tensor found = new_tensor<int64_t>(z, {N});
  for (int64_t n = 0; n < N; ++n) {
    int64_t best = n;
    for (int64_t i = n; i < slices * N; i += N) best = most[i] > most[best] ? i : best;
    data<int64_t>(found)[n] = at[best];
  }
  return found;
}

Tensor nn_lookup(Tensor z, Tensor queue, Tensor queue_id, Tensor ids) {
  SKELOPS_CHECK(z.dim() == 2, kOp, "z (N, D)");
  SKELOPS_CHECK(queue.dim() == 2 && queue.size(0) > 0 && queue.size(1) == z.size(1) &&
                    queue.scalar_type() == z.scalar_type(),
                kOp, "queue (K, D) of z's dtype");
  SKELOPS_CHECK(queue_id.scalar_type() == ScalarType::Long && queue_id.numel() == queue.size(0) &&
                    ids.scalar_type() == ScalarType::Long && ids.numel() == z.size(0),
                kOp, "queue_id (K,) and ids (N,) of int64");
  return dispatch(z, kOp,
                  [&](auto type) { return search<decltype(type)>(z, queue, queue_id, ids); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("nn_lookup", TORCH_BOX(&nn_lookup)); }

}  // namespace skelops
