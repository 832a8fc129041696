// nn_contrastive_loss: a running softmax of the neighbours over tiles of predictions. The backward
// computes the logits of a tile again and is then done with its predictions.
#include <cmath>
#include <limits>
#include <tuple>

#include "common/parallel.h"
#include "cpu/query_blocks.h"
#include "math/exp2.h"

namespace skelops {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr const char* kOp = "nn_contrastive_loss";

template <typename T>
struct Contrast {
  using A = Accumulate<T>;
  using S = Simd<A>;

  Contrast(const Tensor& pred, const Tensor& neighbour, double scale, int64_t offset)
      : width(pred.size(1)),
        predictions(pred.size(0)),
        offset(offset),
        scale(static_cast<A>(scale * kLog2E)),
        pred(pred),
        rows(neighbour),
        neighbours(rows.data(), neighbour.size(0), width) {}

  int64_t tiles() const { return (predictions + kTileKeys - 1) / kTileKeys; }
  int64_t size_of(int64_t tile) const {
    return std::min(kTileKeys, predictions - tile * kTileKeys);
  }
  Scratch<A> converted() const { return Scratch<A>(pred.kInPlace ? 0 : kTileKeys * width); }

  // to[prediction][neighbour], of which `scale` times are in units of log 2
  void similarities(int64_t block, int64_t tile, const Scratch<A>& converted, A* to) const {
    const int64_t count = size_of(tile);
    const A* keys = pred.get(tile * kTileKeys, 0, count * width, converted.get());
    neighbours.multiply_keys(block, keys, count, to);
  }

  // function(neighbour of the block, row in the tile of its own prediction)
  template <typename F>
  void for_each_own(int64_t block, int64_t tile, const F& function) const {
    const int64_t shift = offset + neighbours.begin(block) - tile * kTileKeys;
    const int64_t end = std::min(neighbours.size_of(block), size_of(tile) - shift);
    for (int64_t n = std::max<int64_t>(0, -shift); n < end; ++n) function(n, n + shift);
  }

  const int64_t width, predictions, offset;
  const A scale;
  const Samples<T> pred;
  const Parameter<A> rows;
  const QueryBlocks<A> neighbours;
};

template <typename T>
std::tuple<Tensor, Tensor> forward(const Tensor& pred, const Tensor& neighbour, double scale,
                                   int64_t offset) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  using Vec = typename S::Vec;
  const Contrast<T> c(pred, neighbour, scale, offset);
  const int64_t N = neighbour.size(0);
  Tensor out = new_tensor<A>(pred, {}), lse = new_tensor<A>(pred, {N});
  std::vector<A> loss(N);  // in units of log 2
  parallel(c.neighbours.count(), [&](int64_t block) {
    const auto converted = c.converted();
    const Scratch<A> tile(kTileKeys * kTileStride);
    A largest[kQueries], total[kQueries] = {}, own[kQueries];
    std::fill_n(largest, kQueries, -std::numeric_limits<A>::infinity());
    for (int64_t t = 0; t < c.tiles(); ++t) {
      c.similarities(block, t, converted, tile.get());
      c.for_each_own(block, t, [&](int64_t n, int64_t p) { own[n] = tile[p * kTileStride + n]; });
      for (int64_t n = 0; n < c.neighbours.lanes_of(block); n += S::kLanes) {
        const A* column = tile.get() + n;
        const Vec before = S::load(largest + n);
        Vec most = before;
        for (int64_t p = 0; p < c.size_of(t); ++p) {
          const Vec x = S::load(column + p * kTileStride);
          most = x > most ? x : most;
        }
        Vec sum = S::load(total + n) * exp2_nonpositive(c.scale * (before - most));
        for (int64_t p = 0; p < c.size_of(t); ++p) {
          sum += exp2_nonpositive(c.scale * (S::load(column + p * kTileStride) - most));
        }
        S::store(largest + n, most);
        S::store(total + n, sum);
      }
    }
    const int64_t n0 = c.neighbours.begin(block);
    for (int64_t n = 0; n < c.neighbours.size_of(block); ++n) {
      const A log = std::log2(total[n]);
      data<A>(lse)[n0 + n] = (c.scale * largest[n] + log) / static_cast<A>(kLog2E);
      loss[n0 + n] = c.scale * (largest[n] - own[n]) + log;
    }
  });
  A sum = 0;
  for (const A value : loss) sum += value;
  *data<A>(out) = sum / static_cast<A>(kLog2E * N);
  return {out, lse};
}

template <typename T>
Tensor backward(const Tensor& grad, const Tensor& pred, const Tensor& neighbour, double scale,
                int64_t offset, const Tensor& lse_) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const Contrast<T> c(pred, neighbour, scale, offset);
  const int64_t D = c.width, N = neighbour.size(0);
  const std::vector<A> lse = parameter<A>(lse_);
  SKELOPS_CHECK(grad.numel() == 1 && lse_.numel() == N, "nn_contrastive_loss_backward",
                "a scalar gradient and lse (N,)");
  const A weight = parameter<A>(grad)[0] * static_cast<A>(scale / std::max<int64_t>(N, 1));
  Tensor d_pred = new_tensor<T>(pred, {c.predictions, D});
  parallel(c.tiles(), [&](int64_t t) {
    const auto converted = c.converted();
    const Scratch<A> tile(kTileKeys * kTileStride), sum(c.size_of(t) * D);
    std::fill_n(sum.get(), c.size_of(t) * D, A(0));
    for (int64_t block = 0; block < c.neighbours.count(); ++block) {
      const int64_t n0 = c.neighbours.begin(block), count = c.neighbours.size_of(block);
      A shift[kQueries] = {};
      for (int64_t n = 0; n < count; ++n) shift[n] = lse[n0 + n] * static_cast<A>(kLog2E);
      c.similarities(block, t, converted, tile.get());
      for (int64_t p = 0; p < c.size_of(t); ++p) {
        A* row = tile.get() + p * kTileStride;
        for (int64_t n = 0; n < c.neighbours.lanes_of(block); n += S::kLanes) {
          const auto x = c.scale * S::load(row + n) - S::load(shift + n);
          S::store(row + n, weight * exp2_nonpositive(x));
        }
      }
      c.for_each_own(block, t, [&](int64_t n, int64_t p) { tile[p * kTileStride + n] -= weight; });
      multiply(Product<A>{c.size_of(t), D, count, tile.get(), kTileStride, 1,
                          c.rows.data() + n0 * D, D, sum.get(), D, /*accumulate=*/true});
    }
    convert(sum.get(), data<T>(d_pred) + t * kTileKeys * D, c.size_of(t) * D);
  });
  return d_pred;
}

void check(const Tensor& pred, const Tensor& neighbour, int64_t offset) {
  SKELOPS_CHECK(pred.dim() == 2, kOp, "pred (P, D)");
  SKELOPS_CHECK(neighbour.dim() == 2 && neighbour.size(1) == pred.size(1), kOp, "neighbour (N, D)");
  SKELOPS_CHECK(offset >= 0 && offset <= pred.size(0) - neighbour.size(0), kOp,
                "offset in 0..P - N");
}

std::tuple<Tensor, Tensor> nn_contrastive_loss(Tensor pred, Tensor neighbour, double scale,
                                               int64_t offset) {
  check(pred, neighbour, offset);
  return dispatch(pred, kOp, [&](auto type) {
    return forward<decltype(type)>(pred, neighbour, scale, offset);
  });
}

Tensor nn_contrastive_loss_backward(Tensor grad, Tensor pred, Tensor neighbour, double scale,
                                    int64_t offset, Tensor lse, int64_t) {
  check(pred, neighbour, offset);
  return dispatch(pred, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, pred, neighbour, scale, offset, lse);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("nn_contrastive_loss", TORCH_BOX(&nn_contrastive_loss));
  m.impl("nn_contrastive_loss_backward", TORCH_BOX(&nn_contrastive_loss_backward));
}

}  // namespace skelops
