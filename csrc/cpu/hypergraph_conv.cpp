// hypergraph_conv: a run of frames of one head at a time, in cache, the channels last and padded to
// whole vectors, so that the transform W and the aggregation A are dense products without tails.
// They commute: where the transform widens, the aggregation goes first. Bias and virtual joints
// come in through a table of Q + 1 columns:
//   y[c, t, u] = (A x[t] W^T)[u, c] + sum_j E[u, j] H[j, c],
//   E = [columns of A for virtual joints, row sums of A],  H = [virtual W^T, bias].
#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/moments.h"

namespace skelops {
namespace {

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
    // Two tiles of features stay in a second-level cache; shorter runs of frames would read and
    // write memory in pieces too short for its streams.
    constexpr int64_t kTile = 128 * 1024 / sizeof(A);
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

  const HyperShape& s;
  const int64_t in_lanes, out_lanes;
  const bool has_table;

 private:
  int64_t frames_;
  Samples<T> graphs_;
  std::vector<A> rows_, columns_, virtuals_, table_;
};

// sums (C'/K, V) += the frames of a tile.
template <typename A>
void add_frames(const A* g, const HyperShape& s, const Tile& tile, A* sums) {
  using S = Simd<A>;
  for (int64_t c = 0; c < s.outputs; ++c, sums += s.joints) {
    for (int64_t u = 0; u < s.joints; u += S::kLanes) {
      const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, s.joints - u));
      const A* from = g + c * s.row() + tile.begin + u;
      auto total = load_some(sums + u, lanes);
      for (int64_t t = 0; t < tile.frames; ++t) total += load_some(from + t * s.joints, lanes);
      S::store(sums + u, total, lanes);
    }
  }
}

template <typename T>
Tensor forward(const Tensor& x, const Tensor& A_, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& virtuals) {
  using A = Accumulate<T>;
  const HyperShape s("hypergraph_conv", x, A_, weight, bias, virtuals);
  const Heads<T> heads(s, A_, weight, bias, virtuals);
  const Samples<T> samples(x);
  const int64_t in_lanes = heads.in_lanes, out_lanes = heads.out_lanes;
  Tensor out = new_tensor<T>(x, {s.batch, s.heads * s.outputs, s.frames, s.joints});
  parallel(s.batch * s.heads, [&](int64_t task) {
    const int64_t n = task / s.heads, k = task % s.heads;
    const Scratch<A> x_converted(samples.kInPlace ? 0 : s.inputs * s.row());
    const Scratch<A> y_converted(samples.kInPlace ? 0 : s.outputs * s.row());
    const Scratch<A> graph_converted(heads.graph_scratch());
    const Scratch<A> edges(s.joints * (s.virtuals + 1)), shift(s.joints * out_lanes);
    const Scratch<A> first(heads.tile_size()), second(heads.tile_size());
    const A* in = samples.get(n, k * s.inputs * s.row(), s.inputs * s.row(), x_converted.get());
    const A* graph = heads.graph(n, k, graph_converted.get());
    T* to = data<T>(out) + task * s.outputs * s.row();
    A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : y_converted.get();
    if (heads.has_table) {
      heads.edges(graph, edges.get());
      Product<A> p{};
      p.m = s.joints, p.n = out_lanes, p.k = s.virtuals + 1;
      p.a = edges.get(), p.a_row = s.virtuals + 1, p.a_col = 1;
      p.b = heads.table(k), p.b_row = out_lanes;
      p.c = shift.get(), p.c_row = out_lanes;
      multiply(p);
    }
    const A* added = heads.has_table ? shift.get() : nullptr;
    heads.for_each_tile([&](const Tile& tile) {
      if (s.outputs > s.inputs) {
        heads.load(in, s.inputs, tile, second.get(), in_lanes);
        heads.aggregate(graph, false, second.get(), tile, in_lanes, nullptr, first.get());
        heads.transform_rows(first.get(), s.inputs, in_lanes, tile, heads.columns(k), out_lanes,
                             added, second.get());
      } else {
        heads.transform(in, s.inputs, tile, heads.columns(k), out_lanes, first.get());
        heads.aggregate(graph, false, first.get(), tile, out_lanes, added, second.get());
      }
      heads.store(second.get(), out_lanes, tile, y, s.outputs);
    });
    if (!samples.kInPlace) convert(y, to, s.outputs * s.row());
  });
  return out;
}

// Gradients in the order of the schema.
enum Gradient { kX, kGraph, kWeight, kBias, kVirtual };
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& x, const Tensor& A_, const Tensor& weight,
                   const OptionalTensor& bias, const OptionalTensor& virtuals, int64_t needs) {
  using A = Accumulate<T>;
  const HyperShape s("hypergraph_conv_backward", x, A_, weight, bias, virtuals);
  const Heads<T> heads(s, A_, weight, bias, virtuals);
  const Samples<T> inputs(x), grads(grad);
  const auto want = [needs](int i) { return wants(needs, i); };
  const bool want_table = want(kBias) || (s.virtuals > 0 && (want(kWeight) || want(kVirtual)));
  const bool want_sums = want_table || (want(kGraph) && heads.has_table);
  const int64_t in_lanes = heads.in_lanes, out_lanes = heads.out_lanes, row = s.row();
  const int64_t in_size = s.inputs * row, out_size = s.outputs * row, entries = s.virtuals + 1;

  Tensor dx = want(kX) ? new_tensor<T>(x, {s.batch, s.heads * s.inputs, s.frames, s.joints})
                       : no_gradient(x);
  const Slices slices(s.batch);
  std::vector<A> dgraphs(want(kGraph) && s.per_sample ? s.batch * s.heads * s.graph() : 0);
  Partials<A> dgraph(slices, want(kGraph) && !s.per_sample ? s.heads * s.graph() : 0);
  Partials<A> dweight(slices, want(kWeight) ? s.heads * s.outputs * in_lanes : 0);
  Partials<A> dtable(slices, want_table ? s.heads * s.outputs * entries : 0);

  parallel(slices.count * s.heads, [&](int64_t task) {
    const int64_t slice = task / s.heads, k = task % s.heads;
    const Scratch<A> x_converted(inputs.kInPlace ? 0 : in_size);
    const Scratch<A> g_converted(grads.kInPlace ? 0 : out_size);
    const Scratch<A> dx_converted(want(kX) && !inputs.kInPlace ? in_size : 0);
    const Scratch<A> graph_converted(heads.graph_scratch()), edges(s.joints * entries);
    const Scratch<A> first(heads.tile_size()), second(heads.tile_size());
    const Scratch<A> sums(want_sums ? s.outputs * s.joints : 0), dedges(s.joints * entries);
    if (in_lanes > s.inputs) std::fill_n(first.get(), heads.tile_size(), A(0));
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* in = inputs.get(n, k * in_size, in_size, x_converted.get());
      const A* g = grads.get(n, k * out_size, out_size, g_converted.get());
      const A* graph = heads.graph(n, k, graph_converted.get());
      T* dx_to = want(kX) ? data<T>(dx) + (n * s.heads + k) * in_size : nullptr;
      A* dx_head = inputs.kInPlace ? reinterpret_cast<A*>(dx_to) : dx_converted.get();
      A* dgraph_head = !want(kGraph)  ? nullptr
                       : s.per_sample ? dgraphs.data() + (n * s.heads + k) * s.graph()
                                      : dgraph.slice(slice) + k * s.graph();
      if (want_sums) std::fill_n(sums.get(), s.outputs * s.joints, A(0));
      heads.for_each_tile([&](const Tile& tile) {
        if (want_sums) add_frames(g, s, tile, sums.get());
        if (want(kWeight)) {
          heads.load(in, s.inputs, tile, first.get(), in_lanes);
          heads.aggregate(graph, false, first.get(), tile, in_lanes, nullptr, second.get());
          Product<A> p{};
          p.m = s.outputs, p.n = in_lanes, p.k = tile.frames * s.joints;
          p.a = g + tile.begin, p.a_row = row, p.a_col = 1;
          p.b = second.get(), p.b_row = in_lanes;
          p.c = dweight.slice(slice) + k * s.outputs * in_lanes, p.c_row = in_lanes;
          p.accumulate = true;
          multiply(p);
        }
        if (!want(kX) && !want(kGraph)) return;
        heads.transform(g, s.outputs, tile, heads.rows(k), in_lanes, first.get());
        if (want(kGraph)) {
          Product<A> p{};
          p.m = p.n = s.joints, p.k = s.inputs, p.parts = tile.frames;
          p.a = first.get(), p.a_row = in_lanes, p.a_col = 1, p.a_part = s.joints * in_lanes;
          p.b = in + tile.begin, p.b_row = row, p.b_part = s.joints;
          p.c = dgraph_head, p.c_row = s.columns();
          p.accumulate = true;
          multiply(p);
        }
        if (want(kX)) {
          heads.aggregate(graph, true, first.get(), tile, in_lanes, nullptr, second.get());
          heads.store(second.get(), in_lanes, tile, dx_head, s.inputs);
        }
      });
      if (want(kX) && !inputs.kInPlace) convert(dx_head, dx_to, in_size);
      if (want_sums) heads.edges(graph, edges.get());
      if (want_table) {
        Product<A> p{};
        p.m = s.outputs, p.n = entries, p.k = s.joints;
        p.a = sums.get(), p.a_row = s.joints, p.a_col = 1;
        p.b = edges.get(), p.b_row = entries;
        p.c = dtable.slice(slice) + k * s.outputs * entries, p.c_row = entries;
        p.accumulate = true;
        multiply(p);
      }
      if (want(kGraph) && heads.has_table) {
        Product<A> p{};
        p.m = entries, p.n = s.joints, p.k = s.outputs;
        p.a = heads.table(k), p.a_row = out_lanes, p.a_col = 1;
        p.b = sums.get(), p.b_row = s.joints;
        p.c = dedges.get(), p.c_row = s.joints;
        multiply(p);
        for (int64_t u = 0; u < s.joints; ++u) {
          A* to = dgraph_head + u * s.columns();
          const A every = dedges[s.virtuals * s.joints + u];
          for (int64_t v = 0; v < s.columns(); ++v) to[v] += every;
          for (int64_t q = 0; q < s.virtuals; ++q) to[s.joints + q] += dedges[q * s.joints + u];
        }
      }
    }
  });

  const std::vector<A> table = dtable.total();
  Tensor dA = no_gradient(x), dw = no_gradient(x), db = no_gradient(x), dv = no_gradient(x);
  if (want(kGraph)) dA = gradient_of(A_, s.per_sample ? dgraphs : dgraph.total());
  if (want(kWeight)) {
    const std::vector<A> padded = dweight.total();
    std::vector<A> values(s.heads * s.outputs * s.inputs);
    for (int64_t k = 0; k < s.heads; ++k) {
      for (int64_t c = k * s.outputs; c < (k + 1) * s.outputs; ++c) {
        A* to = values.data() + c * s.inputs;
        std::copy_n(padded.data() + c * in_lanes, s.inputs, to);
        for (int64_t q = 0; q < s.virtuals; ++q) {
          const A* joint = heads.virtual_joint(q, k);
          for (int64_t i = 0; i < s.inputs; ++i) to[i] += table[c * entries + q] * joint[i];
        }
      }
    }
    dw = gradient_of(weight, values);
  }
  if (want(kBias)) {
    std::vector<A> values(s.heads * s.outputs);
    for (size_t c = 0; c < values.size(); ++c) values[c] = table[c * entries + s.virtuals];
    db = gradient_of(*bias, values);
  }
  if (want(kVirtual)) {
    std::vector<A> values(s.virtuals * s.heads * s.inputs);
    for (int64_t k = 0; k < s.heads; ++k) {
      for (int64_t q = 0; q < s.virtuals; ++q) {
        A* to = values.data() + (q * s.heads + k) * s.inputs;
        for (int64_t c = 0; c < s.outputs; ++c) {
          const A* row = heads.rows(k) + c * in_lanes;
          const A value = table[(k * s.outputs + c) * entries + q];
          for (int64_t i = 0; i < s.inputs; ++i) to[i] += value * row[i];
        }
      }
    }
    dv = gradient_of(*virtuals, values);
  }
  return {dx, dA, dw, db, dv};
}

Tensor hypergraph_conv(Tensor x, Tensor A, Tensor weight, OptionalTensor bias,
                       OptionalTensor virtuals) {
  return dispatch(x, "hypergraph_conv",
                  [&](auto type) { return forward<decltype(type)>(x, A, weight, bias, virtuals); });
}

Gradients hypergraph_conv_backward(Tensor grad, Tensor x, Tensor A, Tensor weight,
                                   OptionalTensor bias, OptionalTensor virtuals, int64_t needs) {
  return dispatch(x, "hypergraph_conv_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, A, weight, bias, virtuals, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("hypergraph_conv", TORCH_BOX(&hypergraph_conv));
  m.impl("hypergraph_conv_backward", TORCH_BOX(&hypergraph_conv_backward));
}

}  // namespace skelops
