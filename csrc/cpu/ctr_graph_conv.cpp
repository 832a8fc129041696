// ctr_graph_conv: the refined graphs of a channel block are a product of the weights with the
// relations of the sample, rebuilt in cache wherever they are needed:
//   G[c] = 1 * A + sum_r (alpha W4[c, r]) S[r] + (alpha b4[c]) * 1.
// The rows [A, S, 1] ("basis") and the columns [1, alpha W4, alpha b4] ("mix") make every step,
// forward and backward, one small matrix product.
#include "cpu/frames.h"
#include "cpu/graph.h"
#include "cpu/unit.h"
#include "math/tanh.h"

namespace skelops {
namespace {

struct CtrTensors {
  const Tensor &x, &A, &p, &q, &alpha;
  const OptionalTensor &weight4, &bias4, &weight, &bias;
};

template <typename T>
class Refinement {
 public:
  using A = Accumulate<T>;

  Refinement(const GraphShape& shape, const CtrTensors& t)
      : s(shape),
        relations(t.p.size(2)),
        mixed(t.weight4.has_value()),
        p_(t.p),
        q_(t.q),
        graphs_(parameter<A>(t.A)),
        alpha_(parameter<A>(t.alpha)[0]) {
    const char* op = "ctr_graph_conv";
    for (const Tensor* e : {&t.p, &t.q}) {
      SKELOPS_CHECK(e->dim() == 4 && e->size(0) == s.batch && e->size(1) == s.subsets &&
                        e->size(2) == relations && e->size(3) == s.joints,
                    op, "p and q of shape (N, K, R, V)");
    }
    SKELOPS_CHECK(
        mixed ? t.weight4->numel() == s.subsets * s.channels * relations : relations == s.channels,
        op, "weight4 of shape (K, C', R)");
    SKELOPS_CHECK(!t.bias4.has_value() || t.bias4->numel() == s.subsets * s.channels, op,
                  "bias4 of shape (K, C')");
    if (!mixed) return;
    weight4_ = parameter<A>(t.weight4);
    bias4_ = parameter<A>(t.bias4);
    bias4_.resize(s.subsets * s.channels);
    const int64_t rows = s.subsets * s.channels;
    mix_.resize(rows * basis_rows());
    for (int64_t i = 0; i < rows; ++i) {
      A* m = mix_.data() + i * basis_rows();
      m[0] = A(1);
      for (int64_t r = 0; r < relations; ++r) m[1 + r] = alpha_ * weight4_[i * relations + r];
      m[1 + relations] = alpha_ * bias4_[i];
    }
  }

  int64_t basis_rows() const { return relations + 2; }
  int64_t basis_size() const { return mixed ? s.subsets * basis_rows() * s.graph() : 0; }
  int64_t embeddings_size() const { return 2 * s.subsets * relations * s.joints; }
  const A* mix(int64_t k, int64_t c) const {
    return mix_.data() + (k * s.channels + c) * basis_rows();
  }
  A alpha() const { return alpha_; }
  const std::vector<A>& weight4() const { return weight4_; }
  const std::vector<A>& bias4() const { return bias4_; }

  // p then q of sample n in the accumulation type.
  void embeddings(int64_t n, A* out) const {
    const int64_t size = s.subsets * relations * s.joints;
    convert(p_.raw(n), out, size);
    convert(q_.raw(n), out + size, size);
  }

  // S of one subset and relation, (V, V): rows are joints u of p, or of q if `by_q`.
  void relation(const A* embeddings, int64_t k, int64_t r, bool by_q, A* out) const {
    const int64_t offset = (k * relations + r) * s.joints;
    const A* p = embeddings + offset;
    const A* q = p + s.subsets * relations * s.joints;
    for (int64_t row = 0; row < s.joints; ++row, out += s.joints) {
      if (by_q) {
        tanh_of_difference(q[row], p, A(-1), out, s.joints);
      } else {
        tanh_of_difference(p[row], q, A(1), out, s.joints);
      }
    }
  }

  // A of sample n and subset k, transposed if `by_q`.
  void topology(int64_t n, int64_t k, bool by_q, A* out) const {
    const int64_t index = (s.per_sample ? n * s.subsets : 0) + k;
    const A* from = graphs_.data() + index * s.graph();
    if (by_q) {
      transpose(from, s.joints, s.joints, out);
    } else {
      std::copy_n(from, s.graph(), out);
    }
  }

  // Rows [A, S, 1] of all subsets.
  void basis(int64_t n, const A* embeddings, bool by_q, A* out) const {
    for (int64_t k = 0; k < s.subsets && mixed; ++k) {
      A* rows = out + k * basis_rows() * s.graph();
      topology(n, k, by_q, rows);
      for (int64_t r = 0; r < relations; ++r) {
        relation(embeddings, k, r, by_q, rows + (1 + r) * s.graph());
      }
      std::fill_n(rows + (1 + relations) * s.graph(), s.graph(), A(1));
    }
  }

  // Refined graphs of a channel block and subset: (size, V, V). `plain` is scratch of one graph.
  void refine(int64_t n, const A* embeddings, const A* basis, int64_t k, int64_t begin,
              int64_t size, bool by_q, A* plain, A* out) const {
    if (mixed) {
      Product<A> p{};
      p.m = size, p.n = s.graph(), p.k = basis_rows();
      p.a = mix(k, begin), p.a_row = basis_rows(), p.a_col = 1;
      p.b = basis + k * basis_rows() * s.graph(), p.b_row = s.graph();
      p.c = out, p.c_row = s.graph();
      multiply(p);
      return;
    }
    topology(n, k, by_q, plain);
    for (int64_t c = 0; c < size; ++c) {
      A* to = out + c * s.graph();
      relation(embeddings, k, begin + c, by_q, to);
      for (int64_t i = 0; i < s.graph(); ++i) to[i] = alpha_ * to[i] + plain[i];
    }
  }

  const GraphShape& s;
  const int64_t relations;
  const bool mixed;

 private:
  Samples<T> p_, q_;
  std::vector<A> graphs_, weight4_, bias4_, mix_;
  A alpha_;
};

template <typename T>
Tensor forward(const CtrTensors& t, bool transposed, const Tail<T>* tail = nullptr) {
  using A = Accumulate<T>;
  const GraphShape s("ctr_graph_conv", t.x, t.A, t.weight);
  const Transform<A> transform(s, t.weight, t.bias);
  const Refinement<T> refinement(s, t);
  const Samples<T> samples(t.x);
  Tensor out = new_tensor<T>(t.x, {s.batch, s.channels, s.frames, s.joints});
  const int64_t row = s.frame(), graph = s.graph(), groups = s.groups();
  // The contraction runs over rows: those of q, unless the graph is used transposed.
  const bool by_q = !transposed;
  parallel(s.batch * groups, [&](int64_t task) {
    const int64_t n = task / groups, group = task % groups;
    const Scratch<A> converted(samples.scratch()), features(transform.scratch());
    const Scratch<A> result(samples.kInPlace ? 0 : s.block * row);
    const Scratch<A> embeddings(refinement.embeddings_size()), basis(refinement.basis_size());
    const Scratch<A> graphs(s.subsets * s.block * graph), plain(graph);
    const A* in = samples.get(n, converted.get());
    refinement.embeddings(n, embeddings.get());
    refinement.basis(n, embeddings.get(), by_q, basis.get());
    const int64_t last = (group + 1) * s.blocks / groups;
    for (int64_t b = group * s.blocks / groups; b < last; ++b) {
      const int64_t begin = s.block_begin(b), size = s.block_size(b);
      const Features<A> f = transform.forward(in, begin, size, features.get());
      for (int64_t k = 0; k < s.subsets; ++k) {
        refinement.refine(n, embeddings.get(), basis.get(), k, begin, size, by_q, plain.get(),
                          graphs.get() + k * size * graph);
      }
      T* to = data<T>(out) + (n * s.channels + begin) * row;
      A* z = samples.kInPlace ? reinterpret_cast<A*>(to) : result.get();
      for (int64_t c = 0; c < size; ++c) {
        for (int64_t k = 0; k < s.subsets && begin + c + 1 < s.channels; ++k) {
          prefetch(f.data + k * f.part + (c + 1) * row, row);
        }
        if (begin + c + 1 < s.channels) prefetch<true>(z + (c + 1) * row, row);
        Product<A> p{};
        p.m = s.frames, p.n = p.k = s.joints, p.parts = s.subsets;
        p.a = f.data + c * row, p.a_row = s.joints, p.a_col = 1, p.a_part = f.part;
        p.b = graphs.get() + c * graph, p.b_row = s.joints, p.b_part = size * graph;
        p.c = z + c * row, p.c_row = s.joints;
        multiply(p);
      }
      if (tail != nullptr) tail->apply(n, begin, size, z);
      if (!samples.kInPlace) convert(z, to, size * row);
    }
  });
  return out;
}

// p and q (N, K, R, V): two 1x1 transforms (2, K, R, C) of the mean over frames.
template <typename T>
std::pair<Tensor, Tensor> joint_embeddings(const Tensor& x, const Tensor& weight,
                                           const Tensor& bias) {
  using A = Accumulate<T>;
  const int64_t batch = x.size(0), inputs = x.size(1), frames = x.size(2), joints = x.size(3);
  const int64_t subsets = weight.size(1), rows = subsets * weight.size(2);
  const Parameter<A> transform{OptionalTensor(weight)};
  const std::vector<A> shift = parameter<A>(bias);
  const Samples<T> samples(x);
  const auto empty = [&] { return new_tensor<T>(x, {batch, subsets, weight.size(2), joints}); };
  const std::pair<Tensor, Tensor> embeddings{empty(), empty()};
  parallel(batch, [&](int64_t n) {
    const Scratch<A> converted(samples.scratch()), mean(inputs * joints), both(2 * rows * joints);
    mean_of_frames(samples.get(n, converted.get()), inputs, frames, joints, mean.get());
    Product<A> p{};
    p.m = 2 * rows, p.n = joints, p.k = inputs;
    p.a = transform.data(), p.a_row = inputs, p.a_col = 1;
    p.b = mean.get(), p.b_row = joints;
    p.c = both.get(), p.c_row = joints;
    p.row_init = shift.data();
    multiply(p);
    const int64_t size = rows * joints;
    convert(both.get(), data<T>(embeddings.first) + n * size, size);
    convert(both.get() + size, data<T>(embeddings.second) + n * size, size);
  });
  return embeddings;
}

// Gradients in the order of the schema.
enum Gradient { kX, kGraph, kP, kQ, kAlpha, kWeight4, kBias4, kWeight, kBias, kCount };
using Gradients =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const CtrTensors& t, bool transposed, int64_t needs) {
  using A = Accumulate<T>;
  const GraphShape s("ctr_graph_conv_backward", t.x, t.A, t.weight);
  const Transform<A> transform(s, t.weight, t.bias);
  const Refinement<T> refinement(s, t);
  const Samples<T> inputs(t.x), grads(grad);
  const auto want = [needs](int i) { return wants(needs, i); };
  const bool want_features = want(kX) || want(kWeight) || want(kBias);
  const bool want_embeddings = want(kP) || want(kQ);
  const bool want_mix = refinement.mixed && (want(kAlpha) || want(kWeight4) || want(kBias4));
  const bool want_strength = !refinement.mixed && want(kAlpha);
  const bool want_refined = want_embeddings || want_mix || want_strength || want(kGraph);
  const int64_t row = s.frame(), graph = s.graph(), R = refinement.relations;
  const int64_t basis_rows = refinement.basis_rows();
  // Here rows of a graph are output joints: those of p, unless the graph is used transposed.
  const bool by_q = transposed;

  Tensor dx =
      want(kX) ? new_tensor<T>(t.x, {s.batch, s.inputs, s.frames, s.joints}) : no_gradient(t.x);
  const std::vector<int64_t> embedding_shape{s.batch, s.subsets, R, s.joints};
  Tensor dp = want(kP) ? new_tensor<T>(t.x, embedding_shape) : no_gradient(t.x);
  Tensor dq = want(kQ) ? new_tensor<T>(t.x, embedding_shape) : no_gradient(t.x);
  const int64_t channel_rows = s.subsets * s.channels;
  const Slices slices(s.batch);
  Partials<A> dgraph(slices, want(kGraph) && !s.per_sample ? s.subsets * graph : 0);
  // <dG, S_r> and <dG, 1>: the gradients of alpha W4 and of alpha b4.
  Partials<A> dmix(slices, want_mix ? channel_rows * R : 0);
  Partials<A> dshift(slices, want_mix ? channel_rows : 0);
  Partials<A> dalpha(slices, 1);
  Partials<A> dweight(slices, want(kWeight) ? channel_rows * s.inputs : 0);
  Partials<A> dbias(slices, want(kBias) ? channel_rows : 0);
  std::vector<A> dgraphs(want(kGraph) && s.per_sample ? s.batch * s.subsets * graph : 0);

  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> x_converted(inputs.scratch()), g_converted(grads.scratch());
    const Scratch<A> features(transform.scratch());
    const Scratch<A> x_columns(want(kWeight) ? s.inputs * row : 0);
    const Scratch<A> df(want_features ? s.subsets * s.block * row : 0);
    const Scratch<A> dx_sample(want(kX) && !inputs.kInPlace ? s.inputs * row : 0);
    const Scratch<A> embeddings(refinement.embeddings_size()), basis(refinement.basis_size());
    const Scratch<A> columns(want_mix ? s.subsets * graph * R : 0);
    const Scratch<A> graphs(s.block * graph), plain(graph), refined(s.block * graph);
    // Gradient of [A, S] per subset; without weight4 of A and of one S at a time.
    const int64_t basis_grad_rows = refinement.mixed ? R + 1 : 1;
    const Scratch<A> dbasis(want_refined ? s.subsets * basis_grad_rows * graph : 0);
    const Scratch<A> dembeddings(want_embeddings ? refinement.embeddings_size() : 0);

    // dp, dq of one relation from dS (V, V), S itself recomputed or given.
    const auto backward_relation = [&](const A* S, const A* dS, A scale, int64_t k, int64_t r) {
      A* dp_row = dembeddings.get() + (k * R + r) * s.joints;
      A* dq_row = dp_row + s.subsets * R * s.joints;
      A* by_row = by_q ? dq_row : dp_row;
      A* by_column = by_q ? dp_row : dq_row;
      const A sign = by_q ? A(-1) : A(1);
      for (int64_t i = 0; i < s.joints; ++i) {
        A total = 0;
        for (int64_t j = 0; j < s.joints; ++j) {
          const A tanh = S[i * s.joints + j];
          const A d = sign * scale * dS[i * s.joints + j] * (A(1) - tanh * tanh);
          total += d;
          by_column[j] -= d;
        }
        by_row[i] += total;
      }
    };

    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* in = inputs.get(n, x_converted.get());
      const A* g = grads.get(n, g_converted.get());
      T* dx_to = want(kX) ? data<T>(dx) + n * s.inputs * row : nullptr;
      A* dx_n = inputs.kInPlace ? reinterpret_cast<A*>(dx_to) : dx_sample.get();
      refinement.embeddings(n, embeddings.get());
      refinement.basis(n, embeddings.get(), by_q, basis.get());
      if (want(kWeight)) transpose(in, s.inputs, row, x_columns.get());
      for (int64_t k = 0; k < s.subsets && want_mix; ++k) {
        transpose(basis.get() + (k * basis_rows + 1) * graph, R, graph,
                  columns.get() + k * graph * R);
      }
      if (want_refined) std::fill_n(dbasis.get(), s.subsets * basis_grad_rows * graph, A(0));
      if (want_embeddings) std::fill_n(dembeddings.get(), refinement.embeddings_size(), A(0));

      for (int64_t b = 0; b < s.blocks; ++b) {
        const int64_t begin = s.block_begin(b), size = s.block_size(b);
        const A* g_block = g + begin * row;
        Features<A> f{nullptr, 0};
        if (want_refined) f = transform.forward(in, begin, size, features.get());
        const bool direct = want(kX) && !transform.has_weight();
        A* df_block = direct ? dx_n + begin * row : df.get();
        const int64_t df_part = direct ? s.channels * row : size * row;
        for (int64_t k = 0; k < s.subsets; ++k) {
          if (want_features) {
            refinement.refine(n, embeddings.get(), basis.get(), k, begin, size, by_q, plain.get(),
                              graphs.get());
          }
          for (int64_t c = 0; c < size; ++c) {
            if (begin + c + 1 < s.channels) {
              prefetch(g_block + (c + 1) * row, row);
              if (want_refined) prefetch(f.data + k * f.part + (c + 1) * row, row);
              if (want_features) prefetch<true>(df_block + k * df_part + (c + 1) * row, row);
            }
            if (want_features) {
              Product<A> p{};
              p.m = s.frames, p.n = p.k = s.joints;
              p.a = g_block + c * row, p.a_row = s.joints, p.a_col = 1;
              p.b = graphs.get() + c * graph, p.b_row = s.joints;
              p.c = df_block + k * df_part + c * row, p.c_row = s.joints;
              multiply(p);
            }
            if (want_refined) {
              Product<A> p{};
              p.m = p.n = s.joints, p.k = s.frames;
              p.a = g_block + c * row, p.a_row = 1, p.a_col = s.joints;
              p.b = f.data + k * f.part + c * row, p.b_row = s.joints;
              p.c = refined.get() + c * graph, p.c_row = s.joints;
              multiply(p);
            }
          }
          if (!want_refined) continue;
          A* dbasis_k = dbasis.get() + k * basis_grad_rows * graph;
          if (refinement.mixed) {
            Product<A> p{};
            p.m = basis_grad_rows, p.n = graph, p.k = size;
            p.a = refinement.mix(k, begin), p.a_row = 1, p.a_col = basis_rows;
            p.b = refined.get(), p.b_row = graph;
            p.c = dbasis_k, p.c_row = graph;
            p.accumulate = true;
            multiply(p);
            if (want_mix) {
              Product<A> w{};
              w.m = size, w.n = R, w.k = graph;
              w.a = refined.get(), w.a_row = graph, w.a_col = 1;
              w.b = columns.get() + k * graph * R, w.b_row = R;
              w.c = dmix.slice(slice) + (k * s.channels + begin) * R, w.c_row = R;
              w.accumulate = true;
              multiply(w);
              A* shifts = dshift.slice(slice) + k * s.channels + begin;
              for (int64_t c = 0; c < size; ++c) shifts[c] += sum(refined.get() + c * graph, graph);
            }
            continue;
          }
          for (int64_t c = 0; c < size; ++c) {
            const A* dG = refined.get() + c * graph;
            for (int64_t i = 0; i < graph; ++i) dbasis_k[i] += dG[i];
            if (!want_embeddings && !want_strength) continue;
            refinement.relation(embeddings.get(), k, begin + c, by_q, plain.get());
            if (want_embeddings) {
              backward_relation(plain.get(), dG, refinement.alpha(), k, begin + c);
            }
            if (want_strength) {
              A total = 0;
              for (int64_t i = 0; i < graph; ++i) total += dG[i] * plain[i];
              *dalpha.slice(slice) += total;
            }
          }
        }
        if (want(kBias)) {
          for (int64_t k = 0; k < s.subsets; ++k) {
            for (int64_t c = 0; c < size; ++c) {
              dbias.slice(slice)[k * s.channels + begin + c] +=
                  sum(df_block + k * df_part + c * row, row);
            }
          }
        }
        if (want(kX) && transform.has_weight()) {
          transform.backward_input(df_block, begin, size, dx_n);
        }
        if (want(kWeight)) {
          transform.backward_weight(df_block, x_columns.get(), begin, size, dweight.slice(slice));
        }
      }

      for (int64_t k = 0; k < s.subsets && refinement.mixed && want_embeddings; ++k) {
        for (int64_t r = 0; r < R; ++r) {
          backward_relation(basis.get() + (k * basis_rows + 1 + r) * graph,
                            dbasis.get() + (k * basis_grad_rows + 1 + r) * graph, A(1), k, r);
        }
      }
      const int64_t embedding_size = s.subsets * R * s.joints;
      if (want(kP)) {
        convert(dembeddings.get(), data<T>(dp) + n * embedding_size, embedding_size);
      }
      if (want(kQ)) {
        convert(dembeddings.get() + embedding_size, data<T>(dq) + n * embedding_size,
                embedding_size);
      }
      for (int64_t k = 0; k < s.subsets && want(kGraph); ++k) {
        A* to = s.per_sample ? dgraphs.data() + (n * s.subsets + k) * graph
                             : dgraph.slice(slice) + k * graph;
        const A* from = dbasis.get() + k * basis_grad_rows * graph;
        for (int64_t i = 0; i < s.joints; ++i) {
          for (int64_t j = 0; j < s.joints; ++j) {
            to[by_q ? j * s.joints + i : i * s.joints + j] += from[i * s.joints + j];
          }
        }
      }
      if (want(kX) && !inputs.kInPlace) convert(dx_n, dx_to, s.inputs * row);
    }
  });

  Tensor dA = no_gradient(t.x), da = no_gradient(t.x), dw4 = no_gradient(t.x);
  Tensor db4 = no_gradient(t.x), dw = no_gradient(t.x), db = no_gradient(t.x);
  if (want(kGraph) && s.per_sample) {
    dA = gradient_of(t.A, dgraphs);
  } else if (want(kGraph)) {
    dA = gradient_of(t.A, dgraph.total());
  }
  std::vector<A> strength = dalpha.total();
  if (want_mix) {
    std::vector<A> weights = dmix.total(), shifts = dshift.total();
    for (int64_t i = 0; i < channel_rows * R; ++i) {
      strength[0] += refinement.weight4()[i] * weights[i];
      weights[i] *= refinement.alpha();
    }
    for (int64_t i = 0; i < channel_rows; ++i) {
      strength[0] += refinement.bias4()[i] * shifts[i];
      shifts[i] *= refinement.alpha();
    }
    if (want(kWeight4)) dw4 = gradient_of(*t.weight4, weights);
    if (want(kBias4)) db4 = gradient_of(*t.bias4, shifts);
  }
  if (want(kAlpha)) da = gradient_of(t.alpha, strength);
  if (want(kWeight)) dw = gradient_of(*t.weight, dweight.total());
  if (want(kBias)) db = gradient_of(*t.bias, dbias.total());
  return {dx, dA, dp, dq, da, dw4, db4, dw, db};
}

Tensor ctr_graph_conv(Tensor x, Tensor A, Tensor p, Tensor q, Tensor alpha, OptionalTensor weight4,
                      OptionalTensor bias4, OptionalTensor weight, OptionalTensor bias,
                      bool transposed) {
  const CtrTensors t{x, A, p, q, alpha, weight4, bias4, weight, bias};
  return dispatch(x, "ctr_graph_conv",
                  [&](auto type) { return forward<decltype(type)>(t, transposed); });
}

Tensor ctr_graph_unit(Tensor x, Tensor A, Tensor alpha, TensorList embed_weight,
                      TensorList embed_bias, TensorList weight4, TensorList bias4,
                      TensorList weight, TensorList bias, bool transposed, TensorList norm,
                      OptionalTensor residual, bool relu, double eps) {
  constexpr const char* op = "ctr_graph_unit";
  SKELOPS_CHECK(x.dim() == 4 && x.size(2) > 0 && (A.dim() == 3 || A.dim() == 4), op,
                "x (N, C, T, V), T >= 1, and A");
  const int64_t K = A.size(A.dim() - 3), C = x.size(1), relations = numel(embed_bias) / (2 * K);
  SKELOPS_CHECK(K > 0 && C > 0 && numel(weight) % (K * C) == 0, op, "weight of shape (K, C', C)");
  const int64_t channels = numel(weight) / (K * C);
  const Tensor w12 = joined(op, embed_weight, {2, K, relations, C});
  const Tensor b12 = joined(op, embed_bias, {2, K, relations});
  const OptionalTensor w4 = joined(op, weight4, {K, channels, relations});
  const OptionalTensor b4 = joined(op, bias4, {K, channels});
  const OptionalTensor w = joined(op, weight, {K, channels, C});
  const OptionalTensor b = joined(op, bias, {K, channels});
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    const auto [p, q] = joint_embeddings<T>(x, w12, b12);
    const CtrTensors t{x, A, p, q, alpha, w4, b4, w, b};
    const TailTensors end{norm, residual, relu, eps};
    const Tail<T> tail(op, x, end, x.size(0), channels, x.size(2) * x.size(3));
    return forward<T>(t, transposed, &tail);
  });
}

Gradients ctr_graph_conv_backward(Tensor grad, Tensor x, Tensor A, Tensor p, Tensor q, Tensor alpha,
                                  OptionalTensor weight4, OptionalTensor bias4,
                                  OptionalTensor weight, OptionalTensor bias, bool transposed,
                                  int64_t needs) {
  const CtrTensors t{x, A, p, q, alpha, weight4, bias4, weight, bias};
  return dispatch(x, "ctr_graph_conv_backward",
                  [&](auto type) { return backward<decltype(type)>(grad, t, transposed, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("ctr_graph_conv", TORCH_BOX(&ctr_graph_conv));
  m.impl("ctr_graph_conv_backward", TORCH_BOX(&ctr_graph_conv_backward));
  m.impl("ctr_graph_unit", TORCH_BOX(&ctr_graph_unit));
}

}  // namespace skelops
