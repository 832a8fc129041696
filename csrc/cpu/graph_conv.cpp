// graph_conv: features of a channel block in cache, then one product per block contracts the joints
// of every channel, frame and subset. Nothing but the result is written to memory.
#include "cpu/frames.h"
#include "cpu/graph.h"
#include "cpu/unit.h"

namespace skelops {
namespace {

// The contraction matrices of sample n as rows of inputs by columns of outputs, or its transpose.
template <typename A>
class Graphs {
 public:
  Graphs(const GraphShape& shape, const Tensor& A_, bool rows_are_stored)
      : shape_(shape), values_(parameter<A>(A_)) {
    if (rows_are_stored) return;
    const int64_t size = shape.graph();
    std::vector<A> flipped(values_.size());
    for (size_t i = 0; i < values_.size(); i += size) {
      transpose(values_.data() + i, shape.joints, shape.joints, flipped.data() + i);
    }
    values_.swap(flipped);
  }

  const A* get(int64_t n) const {
    return values_.data() + (shape_.per_sample ? n * shape_.subsets * shape_.graph() : 0);
  }

 private:
  const GraphShape& shape_;
  std::vector<A> values_;
};

// Non-zero entries of shared graphs by output joint, where that is less work than the dense
// product.
template <typename A>
class SparseGraphs {
 public:
  SparseGraphs(const GraphShape& shape, const A* graphs) : shape_(shape) {
    if (shape.per_sample) return;
    for (int64_t u = 0; u < shape.joints; ++u) {
      for (int64_t k = 0; k < shape.subsets; ++k) {
        for (int64_t v = 0; v < shape.joints; ++v) {
          const A value = graphs[(k * shape.joints + v) * shape.joints + u];
          if (value != A(0)) entries_.push_back({k, v, value});
        }
      }
      ends_.push_back(static_cast<int64_t>(entries_.size()));
    }
  }

  // A dense step does a vector of outputs for one input; a sparse one, scalar and in order, takes
  // as long as six.
  bool pays() const {
    if (shape_.per_sample) return false;
    const int64_t vectors = (shape_.joints + Simd<A>::kLanes - 1) / Simd<A>::kLanes;
    return 6 * static_cast<int64_t>(entries_.size()) < vectors * shape_.subsets * shape_.joints;
  }

  void apply(const Features<A>& f, int64_t rows, A* z) const {
    const int64_t V = shape_.joints;
    for (int64_t row = 0; row < rows; ++row) {
      int64_t entry = 0;
      for (int64_t u = 0; u < V; ++u) {
        A total = 0;
        for (; entry < ends_[u]; ++entry) {
          const Entry& e = entries_[entry];
          total += e.value * f.data[e.subset * f.part + row * V + e.joint];
        }
        z[row * V + u] = total;
      }
    }
  }

 private:
  struct Entry {
    int64_t subset, joint;
    A value;
  };
  const GraphShape& shape_;
  std::vector<Entry> entries_;
  std::vector<int64_t> ends_;
};

template <typename A>
void contract(const GraphShape& s, int64_t subsets, const Features<A>& f, const A* graphs,
              int64_t size, A* z) {
  Product<A> p{};
  p.m = size * s.frames, p.n = s.joints, p.k = s.joints, p.parts = subsets;
  p.a = f.data, p.a_row = s.joints, p.a_col = 1, p.a_part = f.part;
  p.b = graphs, p.b_row = s.joints, p.b_part = s.graph();
  p.c = z, p.c_row = s.joints;
  multiply(p);
}

template <typename T>
Tensor forward(const Tensor& x, const Tensor& A_, const OptionalTensor& weight,
               const OptionalTensor& bias, bool transposed, const Tail<T>* tail = nullptr) {
  using A = Accumulate<T>;
  const GraphShape s("graph_conv", x, A_, weight);
  const Transform<A> transform(s, weight, bias);
  const Graphs<A> graphs(s, A_, transposed);
  const SparseGraphs<A> sparse(s, graphs.get(0));
  const bool use_sparse = sparse.pays();
  const std::vector<A> shift =
      bias.has_value() && bias->dim() == 1 ? parameter<A>(bias) : std::vector<A>();
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {s.batch, s.channels, s.frames, s.joints});
  const int64_t row = s.frame(), groups = s.groups();
  parallel(s.batch * groups, [&](int64_t task) {
    const int64_t n = task / groups, group = task % groups;
    const Scratch<A> converted(samples.scratch()), features(transform.scratch());
    const Scratch<A> result(samples.kInPlace ? 0 : s.block * row);
    const A* in = samples.get(n, converted.get());
    const int64_t last = (group + 1) * s.blocks / groups;
    for (int64_t b = group * s.blocks / groups; b < last; ++b) {
      const int64_t begin = s.block_begin(b), size = s.block_size(b);
      const Features<A> f = transform.forward(in, begin, size, features.get());
      T* to = data<T>(out) + (n * s.channels + begin) * row;
      A* z = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
      if (use_sparse) {
        sparse.apply(f, size * s.frames, z);
      } else {
        contract(s, s.subsets, f, graphs.get(n), size, z);
      }
      for (int64_t c = 0; c < size && !shift.empty(); ++c) {
        for (int64_t i = 0; i < row; ++i) z[c * row + i] += shift[begin + c];
      }
      if (tail != nullptr) tail->apply(n, begin, size, z);
      if (!samples.kInPlace) convert(z, to, size * row);
    }
  });
  return out;
}

// dA (V, V) += the products of `inputs` and `outputs`, (rows, V) each, as A is stored.
template <typename A>
void graph_gradient(const GraphShape& s, bool transposed, int64_t rows, const A* inputs,
                    const A* outputs, A* to) {
  Product<A> p{};
  p.m = p.n = s.joints, p.k = rows;
  p.a = transposed ? inputs : outputs, p.a_row = 1, p.a_col = s.joints;
  p.b = transposed ? outputs : inputs, p.b_row = s.joints;
  p.c = to, p.c_row = s.joints;
  p.accumulate = true;
  multiply(p);
}

// A bias of the features (K, C') is the same for all joints and frames: its gradient, and what it
// adds to that of the graphs, need the gradient's sums over frames alone.
template <typename A>
void bias_gradients(const GraphShape& s, bool transposed, const A* grad, const A* graphs,
                    const A* bias, A* dbias, A* dgraph) {
  const int64_t V = s.joints;
  const Scratch<A> sums(V);
  std::vector<A> reached(s.subsets * V), weighted(s.subsets * V);
  for (int64_t i = 0; i < s.subsets * s.graph(); ++i) {
    reached[i / s.graph() * V + i % V] += graphs[i];
  }
  for (int64_t c = 0; c < s.channels; ++c, grad += s.frame()) {
    vectors<A>(V, [&](int64_t v, int lanes) {
      store_some(sums.get() + v, sum_of_frames(grad + v, s.frames, V, lanes), lanes);
    });
    for (int64_t k = 0; k < s.subsets; ++k) {
      const int64_t at = k * s.channels + c;
      A total = 0;
      for (int64_t v = 0; v < V; ++v) {
        total += reached[k * V + v] * sums[v];
        weighted[k * V + v] += bias[at] * sums[v];
      }
      if (dbias != nullptr) dbias[at] += total;
    }
  }
  for (int64_t i = 0; i < s.subsets * s.graph() && dgraph != nullptr; ++i) {
    dgraph[i] += weighted[i / s.graph() * V + (transposed ? i : i / V) % V];
  }
}

// With h = W^T dy: dx = sum h A^T and dA = x^T h, a block of the channels of x at a time while h
// is in cache; dW = dy (x A)^T.
template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& x,
                                                    const Tensor& A_, const OptionalTensor& weight,
                                                    const OptionalTensor& bias, bool transposed,
                                                    int64_t needs) {
  using A = Accumulate<T>;
  const GraphShape s("graph_conv_backward", x, A_, weight);
  const Graphs<A> forth(s, A_, transposed), back(s, A_, !transposed);
  const Samples<T> inputs(x), grads(grad);
  const bool want_x = wants(needs, 0), want_graph = wants(needs, 1), want_weight = wants(needs, 2);
  const bool want_bias = wants(needs, 3), bias_inside = bias.has_value() && bias->dim() == 2;
  const int64_t row = s.frame(), graph = s.graph(), blocks = (s.inputs + s.block - 1) / s.block;
  const std::vector<A> shift = bias_inside ? parameter<A>(bias) : std::vector<A>();
  std::vector<A> weights(weight.has_value() ? weight->numel() : 0);  // (K, C, C')
  if (weight.has_value()) {
    const std::vector<A> stored = parameter<A>(weight);
    for (int64_t k = 0; k < s.subsets; ++k) {
      const int64_t at = k * s.inputs * s.channels;
      transpose(stored.data() + at, s.channels, s.inputs, weights.data() + at);
    }
  }

  Tensor dx = want_x ? new_tensor<T>(x, {s.batch, s.inputs, s.frames, s.joints}) : no_gradient(x);
  const Slices slices(s.batch);
  Partials<A> dgraph(slices, want_graph && !s.per_sample ? s.subsets * graph : 0);
  Partials<A> dweight(slices, want_weight ? s.subsets * s.inputs * s.channels : 0);  // (K, C, C')
  Partials<A> dbias(slices, want_bias ? (bias_inside ? s.subsets : 1) * s.channels : 0);
  std::vector<A> dgraphs(want_graph && s.per_sample ? s.batch * s.subsets * graph : 0);

  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> x_converted(inputs.scratch()), g_converted(grads.scratch());
    const Scratch<A> of_block(weight.has_value() ? s.subsets * s.block * row : 0);
    const Scratch<A> g_columns(want_weight ? s.channels * row : 0);
    const Scratch<A> dx_sample(want_x && !inputs.kInPlace ? s.inputs * row : 0);
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* in = inputs.get(n, x_converted.get());
      const A* g = grads.get(n, g_converted.get());
      T* dx_to = want_x ? data<T>(dx) + n * s.inputs * row : nullptr;
      A* dx_n = inputs.kInPlace ? reinterpret_cast<A*>(dx_to) : dx_sample.get();
      A* dgraph_n = !want_graph    ? nullptr
                    : s.per_sample ? dgraphs.data() + n * s.subsets * graph
                                   : dgraph.slice(slice);
      if (!weight.has_value()) {
        for (int64_t k = 0; k < s.subsets; ++k) {
          const int64_t at = k * s.channels * row;
          if (want_graph) {
            graph_gradient(s, transposed, s.channels * s.frames, in + at, g, dgraph_n + k * graph);
          }
          if (want_x) contract<A>(s, 1, {g, 0}, back.get(n) + k * graph, s.channels, dx_n + at);
        }
      }
      if (want_weight) transpose(g, s.channels, row, g_columns.get());
      for (int64_t b = 0; b < blocks && weight.has_value(); ++b) {
        const int64_t begin = b * s.inputs / blocks, size = (b + 1) * s.inputs / blocks - begin;
        const A* x_block = in + begin * row;
        if (want_x || want_graph) {
          Product<A> p{};
          p.m = size, p.n = row, p.k = s.channels;
          p.a = weights.data() + begin * s.channels, p.a_row = s.channels, p.a_col = 1;
          p.b = g, p.b_row = row;
          p.c = of_block.get(), p.c_row = row;
          p.groups = s.subsets, p.a_group = s.inputs * s.channels, p.c_group = size * row;
          multiply(p);
        }
        for (int64_t k = 0; k < s.subsets && want_graph; ++k) {
          graph_gradient(s, transposed, size * s.frames, x_block, of_block.get() + k * size * row,
                         dgraph_n + k * graph);
        }
        if (want_x) {
          contract<A>(s, s.subsets, {of_block.get(), size * row}, back.get(n), size,
                      dx_n + begin * row);
        }
        if (want_weight) {
          for (int64_t k = 0; k < s.subsets; ++k) {
            contract<A>(s, 1, {x_block, 0}, forth.get(n) + k * graph, size,
                        of_block.get() + k * size * row);
          }
          Product<A> p{};
          p.m = size, p.n = s.channels, p.k = row;
          p.a = of_block.get(), p.a_row = row, p.a_col = 1;
          p.b = g_columns.get(), p.b_row = s.channels;
          p.c = dweight.slice(slice) + begin * s.channels, p.c_row = s.channels;
          p.accumulate = true;
          p.groups = s.subsets, p.a_group = size * row, p.c_group = s.inputs * s.channels;
          multiply(p);
        }
      }
      if (bias_inside && (want_bias || want_graph)) {
        bias_gradients(s, transposed, g, forth.get(n), shift.data(),
                       want_bias ? dbias.slice(slice) : nullptr, dgraph_n);
      } else if (want_bias) {
        for (int64_t c = 0; c < s.channels; ++c) dbias.slice(slice)[c] += sum(g + c * row, row);
      }
      if (want_x && !inputs.kInPlace) convert(dx_n, dx_to, s.inputs * row);
    }
  });

  Tensor dA = no_gradient(x), dw = no_gradient(x), db = no_gradient(x);
  if (want_graph && s.per_sample) {
    dA = gradient_of(A_, dgraphs);
  } else if (want_graph) {
    dA = gradient_of(A_, dgraph.total());
  }
  if (want_weight) {
    const std::vector<A> total = dweight.total();
    for (int64_t k = 0; k < s.subsets; ++k) {
      const int64_t at = k * s.inputs * s.channels;
      transpose(total.data() + at, s.inputs, s.channels, weights.data() + at);
    }
    dw = gradient_of(*weight, weights);
  }
  if (want_bias) db = gradient_of(*bias, dbias.total());
  return {dx, dA, dw, db};
}

Tensor graph_conv(Tensor x, Tensor A, OptionalTensor weight, OptionalTensor bias, bool transposed) {
  return dispatch(x, "graph_conv", [&](auto type) {
    return forward<decltype(type)>(x, A, weight, bias, transposed);
  });
}

Tensor graph_unit(Tensor x, Tensor A, TensorList weight, TensorList bias, bool bias_after,
                  bool transposed, TensorList norm, OptionalTensor residual, bool relu,
                  double eps) {
  constexpr const char* op = "graph_unit";
  SKELOPS_CHECK(x.dim() == 4 && (A.dim() == 3 || A.dim() == 4), op, "x (N, C, T, V) and A");
  const int64_t K = A.size(A.dim() - 3), C = x.size(1);
  SKELOPS_CHECK(K > 0 && C > 0 && numel(weight) % (K * C) == 0, op, "weight of shape (K, C', C)");
  const int64_t channels = numel(weight) / (K * C);
  const Tensor all = joined(op, weight, {K, channels, C});
  OptionalTensor shift;
  if (!bias.empty()) {
    const int64_t rows = bias_after && channels > 0 ? numel(bias) / channels : K;
    shift = joined(op, bias, {rows, channels});
    if (bias_after) shift = torch::stable::sum(*shift, std::vector<int64_t>{0});
  }
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    const TailTensors t{norm, residual, relu, eps};
    const Tail<T> tail(op, x, t, x.size(0), channels, x.size(2) * x.size(3));
    return forward<T>(x, A, all, shift, transposed, &tail);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_conv_backward(Tensor grad, Tensor x, Tensor A,
                                                               OptionalTensor weight,
                                                               OptionalTensor bias, bool transposed,
                                                               int64_t needs) {
  return dispatch(x, "graph_conv_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, A, weight, bias, transposed, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
  m.impl("graph_unit", TORCH_BOX(&graph_unit));
}

}  // namespace skelops
