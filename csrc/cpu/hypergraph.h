// What hyper-graph convolutions share. A run of frames of one head at a time, in cache, the
// channels last and padded to whole vectors, so that the transform W and the aggregation A are
// dense products without tails. They commute: where the transform widens, the aggregation goes
// first. Bias and virtual joints come in through a table of Q + 1 columns:
//   y[c, t, u] = (A x[t] W^T)[u, c] + sum_j E[u, j] H[j, c],
//   E = [columns of A for virtual joints, row sums of A],  H = [virtual W^T, bias].
#pragma once

#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/moments.h"

namespace skelops {

struct HyperShape {
  HyperShape(const char* op, const Tensor& x, const Tensor& A, const Tensor& weight,
             const OptionalTensor& bias, const OptionalTensor& table) {
    SKELOPS_CHECK(x.dim() == 4 && (A.dim() == 3 || A.dim() == 4) && weight.dim() == 2, op,
                  "x (N, C, T, V), A ([N,] K, V, V+Q) and weight (C', C/K)");
    batch = x.size(0), frames = x.size(2), joints = x.size(3);
    per_sample = A.dim() == 4;
    heads = A.size(A.dim() - 3), inputs = weight.size(1);
    virtuals = table.has_value() ? table->size(0) : 0;
    SKELOPS_CHECK(heads > 0 && joints > 0 && x.size(1) == heads * inputs, op,
                  "x of K * C/K channels");
    SKELOPS_CHECK(A.size(A.dim() - 1) == columns() && A.size(A.dim() - 2) == joints &&
                      (!per_sample || A.size(0) == batch),
                  op, "A of shape ([N,] K, V, V+Q)");
    SKELOPS_CHECK(weight.size(0) % heads == 0, op, "weight of K * C'/K rows");
    outputs = weight.size(0) / heads;
    SKELOPS_CHECK(!bias.has_value() || bias->numel() == weight.size(0), op, "bias (C')");
    SKELOPS_CHECK(!table.has_value() || (table->dim() == 2 && table->size(1) == x.size(1)), op,
                  "virtual (Q, C)");
  }

  int64_t columns() const { return joints + virtuals; }
  int64_t row() const { return frames * joints; }
  int64_t graph() const { return joints * columns(); }

  int64_t batch, heads, inputs, outputs, frames, joints, virtuals;
  bool per_sample;
};

template <typename A>
int64_t whole_vectors(int64_t channels) {
  constexpr int64_t kLanes = Simd<A>::kLanes;
  return (channels + kLanes - 1) / kLanes * kLanes;
}

// A head of a sample: features as (channels, T, V), cut into runs of frames.
struct Tile {
  int64_t begin, frames;
};

template <typename T>
class Heads {
 public:
  using A = Accumulate<T>;

  Heads(const HyperShape& shape, const Tensor& graph, const Tensor& weight,
        const OptionalTensor& bias, const OptionalTensor& virtuals)
      : s(shape),
        in_lanes(whole_vectors<A>(s.inputs)),
        out_lanes(whole_vectors<A>(s.outputs)),
        has_table(bias.has_value() || s.virtuals > 0),
        graphs_(graph),
        rows_(s.heads * s.outputs * in_lanes),
        columns_(s.heads * s.inputs * out_lanes),
        virtuals_(parameter<A>(virtuals)),
        table_(has_table ? s.heads * table_size() : 0) {
    // Two tiles of features stay in the first-level cache.
    constexpr int64_t kTile = 13 * 1024 / sizeof(A);
    const int64_t fit = std::max<int64_t>(kTile / (s.joints * std::max(in_lanes, out_lanes)), 1);
    const int64_t tiles = std::max<int64_t>((s.frames + fit - 1) / fit, 1);
    frames_ = (s.frames + tiles - 1) / tiles;
    const std::vector<A> w = parameter<A>(weight), b = parameter<A>(bias);
    for (int64_t k = 0; k < s.heads; ++k) {
      for (int64_t c = 0; c < s.outputs; ++c) {
        const A* from = w.data() + (k * s.outputs + c) * s.inputs;
        std::copy_n(from, s.inputs, rows_.data() + (k * s.outputs + c) * in_lanes);
        for (int64_t i = 0; i < s.inputs; ++i) {
          columns_[(k * s.inputs + i) * out_lanes + c] = from[i];
        }
        if (!b.empty()) {
          table_[k * table_size() + s.virtuals * out_lanes + c] = b[k * s.outputs + c];
        }
      }
      if (s.virtuals == 0) continue;
      Product<A> p{};
      p.m = s.virtuals, p.n = out_lanes, p.k = s.inputs;
      p.a = virtual_joint(0, k), p.a_row = s.heads * s.inputs, p.a_col = 1;
      p.b = columns(k), p.b_row = out_lanes;
      p.c = table_.data() + k * table_size(), p.c_row = out_lanes;
      multiply(p);
    }
  }

  int64_t tile_size() const { return frames_ * s.joints * std::max(in_lanes, out_lanes); }
  int64_t table_size() const { return (s.virtuals + 1) * out_lanes; }
  const A* rows(int64_t k) const { return rows_.data() + k * s.outputs * in_lanes; }
  const A* columns(int64_t k) const { return columns_.data() + k * s.inputs * out_lanes; }
  const A* table(int64_t k) const { return table_.data() + k * table_size(); }
  const A* virtual_joint(int64_t q, int64_t k) const {
    return virtuals_.data() + (q * s.heads + k) * s.inputs;
  }

  const A* graph(int64_t n, int64_t k, A* scratch) const {
    return s.per_sample ? graphs_.get(n, k * s.graph(), s.graph(), scratch)
                        : graphs_.get(k, scratch);
  }
  int64_t graph_scratch() const { return graphs_.kInPlace ? 0 : s.graph(); }

  // E (V, Q + 1).
  void edges(const A* graph, A* out) const {
    for (int64_t u = 0; u < s.joints; ++u, graph += s.columns()) {
      A total = 0;
      for (int64_t v = 0; v < s.columns(); ++v) total += graph[v];
      out = std::copy_n(graph + s.joints, s.virtuals, out);
      *out++ = total;
    }
  }

  template <typename F>
  void for_each_tile(const F& function) const {
    for (int64_t t = 0; t < s.frames; t += frames_) {
      function(Tile{t * s.joints, std::min(frames_, s.frames - t)});
    }
  }

  // Rows (t, v) of `to` from channels (T, V) of `from`: their transform by `matrix`.
  void transform(const A* from, int64_t channels, const Tile& tile, const A* matrix, int64_t lanes,
                 A* to) const {
    Product<A> p{};
    p.m = tile.frames * s.joints, p.n = lanes, p.k = channels;
    p.a = from + tile.begin, p.a_row = 1, p.a_col = s.row();
    p.b = matrix, p.b_row = lanes;
    p.c = to, p.c_row = lanes;
    multiply(p);
  }

  // Rows of joints of every frame of `to`: those of `from` mixed by a graph or its transpose.
  void aggregate(const A* graph, bool transposed, const A* from, const Tile& tile, int64_t lanes,
                 const A* shift, A* to) const {
    Product<A> p{};
    p.m = p.k = s.joints, p.n = lanes;
    p.a = graph, p.a_row = transposed ? 1 : s.columns(), p.a_col = transposed ? s.columns() : 1;
    p.b_row = p.c_row = p.init_row = lanes;
    p.init = shift;
    if (lanes == Simd<A>::kLanes) {
      p.n = tile.frames * lanes, p.b = from, p.c = to;
      p.b_vector = p.c_vector = s.joints * lanes, p.init_vector = 0;
      return multiply(p);
    }
    for (int64_t t = 0; t < tile.frames; ++t) {
      p.b = from + t * s.joints * lanes, p.c = to + t * s.joints * lanes;
      multiply(p);
    }
  }

  // Rows of `to` from rows of `from`, each transformed by `matrix` and shifted by its joint.
  void transform_rows(const A* from, int64_t channels, int64_t from_lanes, const Tile& tile,
                      const A* matrix, int64_t lanes, const A* shift, A* to) const {
    Product<A> p{};
    p.m = s.joints, p.n = lanes, p.k = channels;
    p.a_row = from_lanes, p.a_col = 1;
    p.b = matrix, p.b_row = p.c_row = p.init_row = lanes;
    p.init = shift;
    for (int64_t t = 0; t < tile.frames; ++t) {
      p.a = from + t * s.joints * from_lanes, p.c = to + t * s.joints * lanes;
      multiply(p);
    }
  }

  void load(const A* from, int64_t channels, const Tile& tile, A* to, int64_t lanes) const {
    transpose(from + tile.begin, channels, tile.frames * s.joints, s.row(), to, lanes);
  }

  void store(const A* from, int64_t lanes, const Tile& tile, A* to, int64_t channels) const {
    transpose(from, tile.frames * s.joints, channels, lanes, to + tile.begin, s.row());
  }

  // y (C'/K, T, V) of a head of a sample.
  void forward(const A* in, const A* graph, int64_t k, A* y) const {
    const Scratch<A> first(tile_size()), second(tile_size());
    const Scratch<A> edge(has_table ? s.joints * (s.virtuals + 1) : 0);
    const Scratch<A> shift(has_table ? s.joints * out_lanes : 0);
    if (has_table) {
      edges(graph, edge.get());
      Product<A> p{};
      p.m = s.joints, p.n = out_lanes, p.k = s.virtuals + 1;
      p.a = edge.get(), p.a_row = s.virtuals + 1, p.a_col = 1;
      p.b = table(k), p.b_row = out_lanes;
      p.c = shift.get(), p.c_row = out_lanes;
      multiply(p);
    }
    const A* added = has_table ? shift.get() : nullptr;
    for_each_tile([&](const Tile& tile) {
      if (s.outputs > s.inputs) {
        load(in, s.inputs, tile, second.get(), in_lanes);
        aggregate(graph, false, second.get(), tile, in_lanes, nullptr, first.get());
        transform_rows(first.get(), s.inputs, in_lanes, tile, columns(k), out_lanes, added,
                       second.get());
      } else {
        transform(in, s.inputs, tile, columns(k), out_lanes, first.get());
        aggregate(graph, false, first.get(), tile, out_lanes, added, second.get());
      }
      store(second.get(), out_lanes, tile, y, s.outputs);
    });
  }

  const HyperShape& s;
  const int64_t in_lanes, out_lanes;
  const bool has_table;

 private:
  int64_t frames_;
  Samples<T> graphs_;
  std::vector<A> rows_, columns_, virtuals_, table_;
};

// Gradients in the order of the schemas.
enum HyperGradient { kX, kGraph, kWeight, kBias, kVirtual };

// Those of the heads, a head of a sample at a time.
template <typename T>
class HeadGradients {
 public:
  using A = Accumulate<T>;

  HeadGradients(const Heads<T>& heads, const Slices& slices, bool has_bias, int64_t needs)
      : heads_(heads),
        s_(heads.s),
        needs_(needs),
        want_table_((has_bias && wants(needs, kBias)) ||
                    (s_.virtuals > 0 && (wants(needs, kWeight) || wants(needs, kVirtual)))),
        dgraphs_(want(kGraph) && s_.per_sample ? s_.batch * s_.heads * s_.graph() : 0),
        dgraph_(slices, want(kGraph) && !s_.per_sample ? s_.heads * s_.graph() : 0),
        dweight_(slices, want(kWeight) ? s_.heads * s_.outputs * heads.in_lanes : 0),
        dtable_(slices, want_table_ ? s_.heads * s_.outputs * entries() : 0) {}

  bool want(int i) const { return wants(needs_, i); }

  // From g (C'/K, T, V) and the features of head k of sample n, its slice's next; dx (C/K, T, V)
  // gets `further` ones added, unless these are null.
  void add(int64_t slice, int64_t n, int64_t k, const A* in, const A* graph, const A* g,
           const A* further, A* dx) {
    const int64_t in_lanes = heads_.in_lanes, row = s_.row();
    const bool want_sums = want_table_ || (want(kGraph) && heads_.has_table);
    const Scratch<A> first(heads_.tile_size()), second(heads_.tile_size());
    const Scratch<A> sums(want_sums ? s_.outputs * s_.joints : 0);
    A* const dgraph = !want(kGraph)   ? nullptr
                      : s_.per_sample ? dgraphs_.data() + (n * s_.heads + k) * s_.graph()
                                      : dgraph_.slice(slice) + k * s_.graph();
    if (want_sums) add_frames(g, sums.get());
    if (in_lanes > s_.inputs) std::fill_n(first.get(), heads_.tile_size(), A(0));
    heads_.for_each_tile([&](const Tile& tile) {
      for (int64_t i = 0; i < s_.inputs && want(kX); ++i) {
        prefetch<true>(dx + i * row + tile.begin, tile.frames * s_.joints);
      }
      if (want(kWeight)) {
        heads_.load(in, s_.inputs, tile, first.get(), in_lanes);
        heads_.aggregate(graph, false, first.get(), tile, in_lanes, nullptr, second.get());
        Product<A> p{};
        p.m = s_.outputs, p.n = in_lanes, p.k = tile.frames * s_.joints;
        p.a = g + tile.begin, p.a_row = row, p.a_col = 1;
        p.b = second.get(), p.b_row = in_lanes;
        p.c = dweight_.slice(slice) + k * s_.outputs * in_lanes, p.c_row = in_lanes;
        p.accumulate = true;
        multiply(p);
      }
      if (!want(kX) && !want(kGraph)) return;
      heads_.transform(g, s_.outputs, tile, heads_.rows(k), in_lanes, first.get());
      if (want(kGraph)) {
        Product<A> p{};
        p.m = p.n = s_.joints, p.k = s_.inputs, p.parts = tile.frames;
        p.a = first.get(), p.a_row = in_lanes, p.a_col = 1, p.a_part = s_.joints * in_lanes;
        p.b = in + tile.begin, p.b_row = row, p.b_part = s_.joints;
        p.c = dgraph, p.c_row = s_.columns();
        p.accumulate = true;
        multiply(p);
      }
      if (!want(kX)) return;
      heads_.aggregate(graph, true, first.get(), tile, in_lanes, nullptr, second.get());
      if (further == nullptr) {
        return heads_.store(second.get(), in_lanes, tile, dx, s_.inputs);
      }
      const int64_t size = tile.frames * s_.joints;
      transpose(second.get(), size, s_.inputs, in_lanes, first.get(), size);
      for (int64_t i = 0; i < s_.inputs; ++i) {
        const A *from = first.get() + i * size, *other = further + i * row + tile.begin;
        A* to = dx + i * row + tile.begin;
        for (int64_t j = 0; j < size; ++j) to[j] = from[j] + other[j];
      }
    });
    if (want_sums) add_table(slice, k, graph, sums.get(), dgraph);
  }

  // The gradients but that of x; `like` gives the device.
  auto finish(const Tensor& like, const Tensor& graph, const Tensor& weight,
              const OptionalTensor& bias, const OptionalTensor& virtuals) const {
    const std::vector<A> table = dtable_.total();
    Tensor dA = no_gradient(like), dw = no_gradient(like), db = no_gradient(like),
           dv = no_gradient(like);
    if (want(kGraph)) dA = gradient_of(graph, s_.per_sample ? dgraphs_ : dgraph_.total());
    if (want(kWeight)) {
      const std::vector<A> padded = dweight_.total();
      std::vector<A> values(s_.heads * s_.outputs * s_.inputs);
      for (int64_t k = 0; k < s_.heads; ++k) {
        for (int64_t c = k * s_.outputs; c < (k + 1) * s_.outputs; ++c) {
          A* to = values.data() + c * s_.inputs;
          std::copy_n(padded.data() + c * heads_.in_lanes, s_.inputs, to);
          for (int64_t q = 0; q < s_.virtuals; ++q) {
            const A* joint = heads_.virtual_joint(q, k);
            for (int64_t i = 0; i < s_.inputs; ++i) to[i] += table[c * entries() + q] * joint[i];
          }
        }
      }
      dw = gradient_of(weight, values);
    }
    if (want(kBias)) {
      std::vector<A> values(s_.heads * s_.outputs);
      for (size_t c = 0; c < values.size(); ++c) values[c] = table[c * entries() + s_.virtuals];
      db = gradient_of(*bias, values);
    }
    if (want(kVirtual)) {
      std::vector<A> values(s_.virtuals * s_.heads * s_.inputs);
      for (int64_t k = 0; k < s_.heads; ++k) {
        for (int64_t q = 0; q < s_.virtuals; ++q) {
          A* to = values.data() + (q * s_.heads + k) * s_.inputs;
          for (int64_t c = 0; c < s_.outputs; ++c) {
            const A* row = heads_.rows(k) + c * heads_.in_lanes;
            const A value = table[(k * s_.outputs + c) * entries() + q];
            for (int64_t i = 0; i < s_.inputs; ++i) to[i] += value * row[i];
          }
        }
      }
      dv = gradient_of(*virtuals, values);
    }
    return std::make_tuple(dA, dw, db, dv);
  }

 private:
  int64_t entries() const { return s_.virtuals + 1; }

  // sums (C'/K, V) of the frames.
  void add_frames(const A* g, A* sums) const {
    using S = Simd<A>;
    for (int64_t c = 0; c < s_.outputs; ++c, g += s_.row(), sums += s_.joints) {
      for (int64_t u = 0; u < s_.joints; u += S::kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, s_.joints - u));
        typename S::Vec total = {};
        for (int64_t t = 0; t < s_.frames; ++t) {
          total += load_some(g + t * s_.joints + u, lanes);
        }
        S::store(sums + u, total, lanes);
      }
    }
  }

  // What comes through the table and the edges.
  void add_table(int64_t slice, int64_t k, const A* graph, const A* sums, A* dgraph) {
    const Scratch<A> edges(s_.joints * entries()), dedges(s_.joints * entries());
    heads_.edges(graph, edges.get());
    if (want_table_) {
      Product<A> p{};
      p.m = s_.outputs, p.n = entries(), p.k = s_.joints;
      p.a = sums, p.a_row = s_.joints, p.a_col = 1;
      p.b = edges.get(), p.b_row = entries();
      p.c = dtable_.slice(slice) + k * s_.outputs * entries(), p.c_row = entries();
      p.accumulate = true;
      multiply(p);
    }
    if (!want(kGraph) || !heads_.has_table) return;
    Product<A> p{};
    p.m = entries(), p.n = s_.joints, p.k = s_.outputs;
    p.a = heads_.table(k), p.a_row = heads_.out_lanes, p.a_col = 1;
    p.b = sums, p.b_row = s_.joints;
    p.c = dedges.get(), p.c_row = s_.joints;
    multiply(p);
    for (int64_t u = 0; u < s_.joints; ++u) {
      A* to = dgraph + u * s_.columns();
      const A every = dedges[s_.virtuals * s_.joints + u];
      for (int64_t v = 0; v < s_.columns(); ++v) to[v] += every;
      for (int64_t q = 0; q < s_.virtuals; ++q) to[s_.joints + q] += dedges[q * s_.joints + u];
    }
  }

  const Heads<T>& heads_;
  const HyperShape& s_;
  const int64_t needs_;
  const bool want_table_;
  std::vector<A> dgraphs_;
  Partials<A> dgraph_, dweight_, dtable_;
};

}  // namespace skelops
