// hyper_adjacency: all of one sample and head stays in cache, as planes of W rows by W vertices. A
// row of a plane is a hyper-edge (or neighbour), its lanes are the vertices, padded with zeros to
// whole vectors: selection, softmax and degrees of vertices then run down the rows without any
// exchange between lanes. The backward rebuilds the planes instead of reading saved ones.
#include <cmath>
#include <limits>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/moments.h"
#include "math/tanh.h"

namespace skelops {
namespace {

constexpr double kEps = 1e-8;
constexpr int kPublishedTopk = 9;

struct HyperTensors {
  const Tensor &embedding, &edge_weight, &adjacency, &alpha;
};

struct HyperShape {
  HyperShape(const char* op, const HyperTensors& t, int64_t topk, int64_t rows)
      : batch(t.embedding.size(0)),
        heads(t.embedding.size(1)),
        channels(t.embedding.size(2)),
        vertices(t.embedding.size(3)),
        topk(topk),
        rows(rows) {
    SKELOPS_CHECK(t.edge_weight.numel() == batch * heads * vertices, op,
                  "edge_weight of shape (N, K, W)");
    SKELOPS_CHECK(t.adjacency.numel() == heads * graph(), op, "adjacency of shape (K, W, W)");
    SKELOPS_CHECK(t.alpha.numel() == 1, op, "alpha with one element");
    SKELOPS_CHECK(topk >= 1 && topk <= vertices, op, "topk from 1 to W vertices");
    SKELOPS_CHECK(rows >= 1 && rows <= vertices, op, "rows from 1 to W vertices");
  }

  int64_t graph() const { return vertices * vertices; }
  int64_t embedding() const { return channels * vertices; }
  int64_t batch, heads, channels, vertices, topk, rows;
};

inline Simd<float>::Vec exp_of_negative(Simd<float>::Vec x) {
  constexpr float kSmallest = -87.0f;  // below, the exponent leaves the range of normal numbers
  return exp(x < kSmallest ? Simd<float>::Vec{} + kSmallest : x);
}

inline Simd<double>::Vec exp_of_negative(Simd<double>::Vec x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = std::exp(x[i]);
  return x;
}

// Rows that are worked on together, to have several chains of additions. Divides a plane's width.
template <typename A>
constexpr int kRows = std::min(4, Simd<A>::kLanes);

// The hyper-graph of one sample and head.
template <typename A>
class HyperGraph {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit HyperGraph(const HyperShape& shape)
      : s(shape),
        width((s.vertices + S::kLanes - 1) / S::kLanes * S::kLanes),
        features((s.channels + kRows<A>)*width),
        distance(width * width),
        member(s.vertices * width),
        weight(width),
        edge_degree(width),
        edge(width),
        vertex_scale(width),
        closeness_(width * width),
        nearest_(s.topk) {
    std::fill_n(features.get(), (s.channels + kRows<A>)*width, A(0));
  }

  // From embeddings (D, W) and edge weights (W).
  void build(const A* embedding, const A* edge_weight) {
    for (int64_t d = 0; d < s.channels; ++d) {
      std::copy_n(embedding + d * s.vertices, s.vertices, features.get() + d * width);
    }
    std::copy_n(edge_weight, s.vertices, weight.get());
    distances();
    for (int64_t i = 0; i < width; i += S::kLanes) memberships(i);
    for (int64_t e = 0; e < s.vertices; ++e) {
      const A* row = member.get() + e * width;
      edge_degree[e] = reduce<A>(width, [&](int64_t i, int) { return S::load(row + i); }) + A(kEps);
      edge[e] = weight[e] * weight[e] / edge_degree[e];
    }
  }

  const HyperShape& s;
  const int64_t width;            // vertices in whole vectors
  const Scratch<A> features;      // f, (D, width)
  const Scratch<A> distance;      // D[e, i]
  const Scratch<A> member;        // H[i, e] at [e, i]
  const Scratch<A> weight;        // w_e
  const Scratch<A> edge_degree;   // c_e
  const Scratch<A> edge;          // w_e^2 / c_e
  const Scratch<A> vertex_scale;  // 1 / r_i

 private:
  // On and above the diagonal, tile by tile; the tiles below are mirror images.
  void distances() {
    for (int64_t row = 0; row < width; row += S::kLanes) {
      const int64_t end = std::min<int64_t>(row + S::kLanes, s.vertices);
      for (int64_t i = row; i < width; i += S::kLanes) {
        for (int64_t e = row; e < end; e += kRows<A>) distances(e, i);
        for (A* plane : {distance.get(), closeness_.get()}) {
          if (i > row) {
            transpose_tile<false>(plane + row * width + i, width, plane + i * width + row, width,
                                  S::kLanes, S::kLanes);
          }
        }
      }
    }
  }

  // Of a vector of vertices from kRows others.
  void distances(int64_t e, int64_t i) {
    const A* f = features.get();
    Vec squares[kRows<A>] = {};
    for (int64_t d = 0; d < s.channels; ++d, f += width) {
      const Vec own = S::load(f + i);
#pragma GCC unroll 4
      for (int j = 0; j < kRows<A>; ++j) {
        const Vec difference = own - f[e + j];
        squares[j] += difference * difference;
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kRows<A>; ++j) {
      Vec root = squares[j];
      for (int lane = 0; lane < S::kLanes; ++lane) root[lane] = std::sqrt(root[lane]);
      S::store(distance.get() + (e + j) * width + i, root);
      S::store(closeness_.get() + (e + j) * width + i, exp_of_negative(-root));
    }
  }

  // The largest of the topk smallest distances, and how many of the topk equal it.
  struct Limit {
    Vec distance, ties;
  };

  // By insertion into an ascending list, all lanes at once; of kTopk in registers, or else of any
  // length. NaN counts as the largest.
  template <int kTopk>
  Limit limit(const A* column) const {
    const int64_t topk = kTopk > 0 ? kTopk : s.topk;
    Vec registers[kTopk > 0 ? kTopk : 1];
    Vec* best = kTopk > 0 ? registers : nearest_.get();
    std::fill_n(best, topk, Vec{} + std::numeric_limits<A>::infinity());
    for (int64_t e = 0; e < s.vertices; ++e, column += width) {
      Vec x = S::load(column);
#pragma GCC unroll 16
      for (int64_t k = 0; k < topk; ++k) {
        const Vec smaller = x < best[k] ? x : best[k];
        x = x < best[k] ? best[k] : x;
        best[k] = smaller;
      }
    }
    Limit found{best[topk - 1], Vec{}};
    for (int64_t k = 0; k < topk; ++k) {
      found.ties += best[k] == found.distance ? Vec{} + A(1) : Vec{};
    }
    return found;
  }

  // H and 1 / r of a vector of vertices.
  void memberships(int64_t i) {
    const A* d = distance.get() + i;
    const A* closeness = closeness_.get() + i;
    A* h = member.get() + i;
    Limit limit = s.topk == kPublishedTopk ? this->template limit<kPublishedTopk>(d)
                                           : this->template limit<0>(d);
    Vec sum = {};
    for (int64_t at = 0; at < s.vertices * width; at += width) {
      const Vec x = S::load(d + at);
      const auto tied = x == limit.distance;
      const auto selected = (x < limit.distance) | (tied & (limit.ties > A(0)));
      limit.ties -= tied ? Vec{} + A(1) : Vec{};  // the first ones are selected
      const Vec near = selected ? S::load(closeness + at) : Vec{};
      sum += near;
      S::store(h + at, near);
    }
    // Nothing is selected next to NaN: 0 * inf tells.
    Vec scale = A(1) / sum;
    for (int64_t pad = s.vertices; pad < i + S::kLanes; ++pad) {
      if (pad >= i) scale[pad - i] = 0;
    }
    Vec degree = Vec{} + A(kEps);
    for (int64_t e = 0; e < s.vertices; ++e) {
      const Vec x = S::load(h + e * width) * scale;
      degree += x * std::abs(weight[e]);
      S::store(h + e * width, x);
    }
    S::store(vertex_scale.get() + i, A(1) / degree);
  }

  const Scratch<A> closeness_;  // exp(-D[e, i])
  const Scratch<Vec> nearest_;
};

template <typename T>
Tensor forward(const HyperTensors& t, int64_t topk, int64_t rows) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const HyperShape s("hyper_adjacency", t, topk, rows);
  const Samples<T> embeddings(t.embedding), weights(t.edge_weight);
  const Parameter<A> adjacency(t.adjacency);
  const A strength = std::max(parameter<A>(t.alpha)[0], A(0));
  Tensor out = new_tensor<T>(t.embedding, {s.batch, s.heads, s.rows, s.vertices});
  parallel(s.batch, [&](int64_t n) {
    const Scratch<A> f(embeddings.scratch()), w(weights.scratch());
    const Scratch<A> row(embeddings.kInPlace ? 0 : s.vertices);
    const A* f_n = embeddings.get(n, f.get());
    const A* w_n = weights.get(n, w.get());
    HyperGraph<A> graph(s);
    const int64_t width = graph.width;
    const Scratch<A> scaled(s.vertices * width), product(s.rows * width);
    for (int64_t k = 0; k < s.heads; ++k) {
      graph.build(f_n + k * s.embedding(), w_n + k * s.vertices);
      for (int64_t e = 0; e < s.vertices; ++e) {
        const A edge = strength * graph.edge[e];
        for (int64_t i = 0; i < width; i += S::kLanes) {
          const auto h = S::load(graph.member.get() + e * width + i);
          S::store(scaled.get() + e * width + i, h * edge * S::load(graph.vertex_scale.get() + i));
        }
      }
      Product<A> p{};
      p.m = s.rows, p.n = width, p.k = s.vertices;
      p.a = scaled.get(), p.a_row = 1, p.a_col = width;
      p.b = graph.member.get(), p.b_row = width;
      p.c = product.get(), p.c_row = width;
      multiply(p);
      for (int64_t i = 0; i < s.rows; ++i) {
        const A* of_graph = product.get() + i * width;
        const A* fixed = adjacency.data() + k * s.graph() + i * s.vertices;
        T* to = data<T>(out) + ((n * s.heads + k) * s.rows + i) * s.vertices;
        A* y = embeddings.kInPlace ? reinterpret_cast<A*>(to) : row.get();
        for (int64_t j = 0; j < s.vertices; ++j) y[j] = fixed[j] + of_graph[j];
        if (!embeddings.kInPlace) convert(y, to, s.vertices);
      }
    }
  });
  return out;
}

// Gradients in the order of the schema.
enum Gradient { kEmbedding, kEdgeWeight, kAdjacency, kAlpha };
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// From the gradient of G, those of embeddings, edge weights and strength, for one sample and head.
template <typename A>
class HyperGradient {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit HyperGradient(const HyperShape& shape)
      : s(shape),
        graph(s),
        embedding(s.embedding()),
        edge_weight(s.vertices),
        width_(graph.width),
        by_row_(width_ * width_),
        by_column_(width_ * width_),
        joint_(width_ * width_),
        degree_(width_) {
    std::fill_n(by_row_.get(), width_ * width_, A(0));
  }

  // grad (rows, W), the gradient of A + strength G. Returns the gradient of strength.
  A build(const A* grad, A strength, bool want_embedding) {
    const int64_t W = s.vertices;
    std::fill_n(by_row_.get(), W * width_, A(0));
    for (int64_t u = 0; u < s.rows; ++u) {
      const A scale = graph.vertex_scale[u];
      for (int64_t j = 0; j < W; ++j) by_row_[u * width_ + j] = grad[u * W + j] * scale;
    }
    transpose(by_row_.get(), width_, width_, by_column_.get());
    // joint[e, i] = sum_j H[j, e] (P[i, j] + P[j, i]) with P = grad / r: the first term before
    // the second is added gives the sum of a vertex over grad * G.
    const auto contract = [&](const A* side, int64_t depth, bool accumulate) {
      Product<A> p{};
      p.m = W, p.n = width_, p.k = depth;
      p.a = graph.member.get(), p.a_row = width_, p.a_col = 1;
      p.b = side, p.b_row = width_;
      p.c = joint_.get(), p.c_row = width_;
      p.accumulate = accumulate;
      multiply(p);
    };
    contract(by_column_.get(), W, false);
    A dstrength = 0;
    for (int64_t i = 0; i < width_; i += S::kLanes) {
      Vec sum = {};
      for (int64_t e = 0; e < W; ++e) {
        sum += at(graph.member, e, i) * at(joint_, e, i) * graph.edge[e];
      }
      dstrength += S::sum(sum);
      S::store(degree_.get() + i, -strength * sum * S::load(graph.vertex_scale.get() + i));
    }
    contract(by_row_.get(), s.rows, true);
    edges(strength);
    if (want_embedding) {
      for (int64_t i = 0; i < width_; i += S::kLanes) distances(i);
      points();
    }
    return dstrength;
  }

  const HyperShape& s;
  HyperGraph<A> graph;
  const Scratch<A> embedding;    // (D, W)
  const Scratch<A> edge_weight;  // (W)

 private:
  Vec at(const Scratch<A>& plane, int64_t e, int64_t i) const {
    return S::load(plane.get() + e * width_ + i);
  }

  // Gradients of the edges' parts; joint becomes that of H.
  void edges(A strength) {
    for (int64_t e = 0; e < s.vertices; ++e) {
      const A w = graph.weight[e], degree = graph.edge_degree[e], edge = graph.edge[e];
      Vec by_edge = {}, by_vertex = {};
      for (int64_t i = 0; i < width_; i += S::kLanes) {
        const Vec h = at(graph.member, e, i);
        by_edge += h * at(joint_, e, i);
        by_vertex += h * S::load(degree_.get() + i);
      }
      const A dedge = strength / 2 * S::sum(by_edge);
      const A sign = w > 0 ? A(1) : w < 0 ? A(-1) : A(0);
      edge_weight[e] = dedge * 2 * w / degree + sign * S::sum(by_vertex);
      const A shift = -dedge * edge / degree;
      for (int64_t i = 0; i < width_; i += S::kLanes) {
        const Vec dh =
            at(joint_, e, i) * (strength * edge) + S::load(degree_.get() + i) * std::abs(w) + shift;
        S::store(joint_.get() + e * width_ + i, dh);
      }
    }
  }

  // by_row becomes the gradient of D over D, through the softmax of a vector of vertices.
  void distances(int64_t i) {
    Vec mean = {};
    for (int64_t e = 0; e < s.vertices; ++e) mean += at(graph.member, e, i) * at(joint_, e, i);
    for (int64_t e = 0; e < s.vertices; ++e) {
      const Vec d = at(graph.distance, e, i);
      const Vec pull = at(graph.member, e, i) * (mean - at(joint_, e, i)) / d;
      S::store(by_row_.get() + e * width_ + i, d == A(0) ? Vec{} : pull);
    }
  }

  // df[d, i] = sum_e (pull of e on i and of i on e) (f[d, i] - f[d, e]).
  void points() {
    const int64_t W = s.vertices;
    transpose(by_row_.get(), width_, width_, by_column_.get());
    for (int64_t at = 0; at < W * width_; at += S::kLanes) {
      S::store(by_row_.get() + at, S::load(by_row_.get() + at) + S::load(by_column_.get() + at));
    }
    for (int64_t d = 0; d < s.channels; d += kRows<A>) {
      const A* f = graph.features.get() + d * width_;
      for (int64_t i = 0; i < W; i += S::kLanes) {
        Vec sums[kRows<A>] = {};
        for (int64_t e = 0; e < W; ++e) {
          const Vec pull = at(by_row_, e, i);
#pragma GCC unroll 4
          for (int j = 0; j < kRows<A>; ++j) {
            sums[j] += pull * (S::load(f + j * width_ + i) - f[j * width_ + e]);
          }
        }
        const int lanes = static_cast<int>(std::min<int64_t>(W - i, S::kLanes));
#pragma GCC unroll 4
        for (int j = 0; j < kRows<A>; ++j) {
          if (d + j < s.channels) S::store(embedding.get() + (d + j) * W + i, sums[j], lanes);
        }
      }
    }
  }

  const int64_t width_;
  const Scratch<A> by_row_, by_column_, joint_, degree_;
};

template <typename T>
Gradients backward(const Tensor& grad, const HyperTensors& t, int64_t topk, int64_t rows,
                   int64_t needs) {
  using A = Accumulate<T>;
  const HyperShape s("hyper_adjacency_backward", t, topk, rows);
  const Samples<T> embeddings(t.embedding), weights(t.edge_weight), grads(grad);
  const A alpha = parameter<A>(t.alpha)[0], strength = std::max(alpha, A(0));
  const auto want = [needs](int i) { return wants(needs, i); };
  const bool want_graph = want(kEmbedding) || want(kEdgeWeight) || want(kAlpha);
  const int64_t result = s.rows * s.vertices;
  Tensor df = want(kEmbedding)
                  ? new_tensor<T>(t.embedding, {s.batch, s.heads, s.channels, s.vertices})
                  : no_gradient(t.embedding);
  Tensor dw = want(kEdgeWeight) ? new_tensor<T>(t.embedding, {s.batch, s.heads, s.vertices})
                                : no_gradient(t.embedding);
  const Slices slices(s.batch);
  Partials<A> dadjacency(slices, want(kAdjacency) ? s.heads * s.graph() : 0);
  Partials<A> dalpha(slices, s.heads);

  parallel(slices.count * s.heads, [&](int64_t task) {
    const int64_t slice = task / s.heads, k = task % s.heads;
    const auto head = [&](const Samples<T>& samples, int64_t n, int64_t size, A* scratch) {
      return samples.get(n, k * size, size, scratch);
    };
    const bool copies = !grads.kInPlace;
    const Scratch<A> f(copies ? s.embedding() : 0), w(copies ? s.vertices : 0);
    const Scratch<A> g(copies ? result : 0);
    HyperGradient<A> gradient(s);
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* g_n = head(grads, n, result, g.get());
      if (want(kAdjacency)) {
        A* to = dadjacency.slice(slice) + k * s.graph();
        for (int64_t i = 0; i < result; ++i) to[i] += g_n[i];
      }
      if (!want_graph) continue;
      gradient.graph.build(head(embeddings, n, s.embedding(), f.get()),
                           head(weights, n, s.vertices, w.get()));
      dalpha.slice(slice)[k] += gradient.build(g_n, strength, want(kEmbedding));
      const int64_t place = n * s.heads + k;
      if (want(kEmbedding)) {
        convert(gradient.embedding.get(), data<T>(df) + place * s.embedding(), s.embedding());
      }
      if (want(kEdgeWeight)) {
        convert(gradient.edge_weight.get(), data<T>(dw) + place * s.vertices, s.vertices);
      }
    }
  });

  Tensor dA = no_gradient(t.embedding), da = no_gradient(t.embedding);
  if (want(kAdjacency)) dA = gradient_of(t.adjacency, dadjacency.total());
  if (want(kAlpha)) {
    std::vector<A> total{0};
    const std::vector<A> heads = dalpha.total();
    for (const A of_head : heads) total[0] += of_head;
    if (alpha <= A(0)) total[0] = 0;
    da = gradient_of(t.alpha, total);
  }
  return {df, dw, dA, da};
}

Tensor hyper_adjacency(Tensor embedding, Tensor edge_weight, Tensor adjacency, Tensor alpha,
                       int64_t topk, int64_t rows) {
  const HyperTensors t{embedding, edge_weight, adjacency, alpha};
  return dispatch(embedding, "hyper_adjacency",
                  [&](auto type) { return forward<decltype(type)>(t, topk, rows); });
}

Gradients hyper_adjacency_backward(Tensor grad, Tensor embedding, Tensor edge_weight,
                                   Tensor adjacency, Tensor alpha, int64_t topk, int64_t rows,
                                   int64_t needs) {
  const HyperTensors t{embedding, edge_weight, adjacency, alpha};
  return dispatch(embedding, "hyper_adjacency_backward",
                  [&](auto type) { return backward<decltype(type)>(grad, t, topk, rows, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("hyper_adjacency", TORCH_BOX(&hyper_adjacency));
  m.impl("hyper_adjacency_backward", TORCH_BOX(&hyper_adjacency_backward));
}

}  // namespace skelops
