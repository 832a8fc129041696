// hypergraph_conv: see hypergraph.h for how a head is computed.
#include "cpu/hypergraph.h"

namespace skelops {
namespace {

template <typename T>
Tensor forward(const Tensor& x, const Tensor& A_, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& virtuals) {
  using A = Accumulate<T>;
  const HyperShape s("hypergraph_conv", x, A_, weight, bias, virtuals);
  const Heads<T> heads(s, A_, weight, bias, virtuals);
  const Samples<T> samples(x);
  Tensor out = new_tensor<T>(x, {s.batch, s.heads * s.outputs, s.frames, s.joints});
  parallel(s.batch * s.heads, [&](int64_t task) {
    const int64_t n = task / s.heads, k = task % s.heads;
    const Scratch<A> x_converted(samples.kInPlace ? 0 : s.inputs * s.row());
    const Scratch<A> y_converted(samples.kInPlace ? 0 : s.outputs * s.row());
    const Scratch<A> graph_converted(heads.graph_scratch());
    const A* in = samples.get(n, k * s.inputs * s.row(), s.inputs * s.row(), x_converted.get());
    T* to = data<T>(out) + task * s.outputs * s.row();
    A* y = samples.kInPlace ? reinterpret_cast<A*>(to) : y_converted.get();
    heads.forward(in, heads.graph(n, k, graph_converted.get()), k, y);
    if (!samples.kInPlace) convert(y, to, s.outputs * s.row());
  });
  return out;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& x, const Tensor& A_, const Tensor& weight,
                   const OptionalTensor& bias, const OptionalTensor& virtuals, int64_t needs) {
  using A = Accumulate<T>;
  const HyperShape s("hypergraph_conv_backward", x, A_, weight, bias, virtuals);
  const Heads<T> heads(s, A_, weight, bias, virtuals);
  const Samples<T> inputs(x), grads(grad);
  const int64_t in_size = s.inputs * s.row(), out_size = s.outputs * s.row();
  const bool want_x = wants(needs, kX);
  Tensor dx =
      want_x ? new_tensor<T>(x, {s.batch, s.heads * s.inputs, s.frames, s.joints}) : no_gradient(x);
  const Slices slices(s.batch);
  HeadGradients<T> gradients(heads, slices, bias.has_value(), needs);
  parallel(slices.count * s.heads, [&](int64_t task) {
    const int64_t slice = task / s.heads, k = task % s.heads;
    const Scratch<A> x_converted(inputs.kInPlace ? 0 : in_size);
    const Scratch<A> g_converted(grads.kInPlace ? 0 : out_size);
    const Scratch<A> dx_converted(want_x && !inputs.kInPlace ? in_size : 0);
    const Scratch<A> graph_converted(heads.graph_scratch());
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* in = inputs.get(n, k * in_size, in_size, x_converted.get());
      const A* g = grads.get(n, k * out_size, out_size, g_converted.get());
      T* to = want_x ? data<T>(dx) + (n * s.heads + k) * in_size : nullptr;
      A* dx_head = inputs.kInPlace ? reinterpret_cast<A*>(to) : dx_converted.get();
      const A* graph = heads.graph(n, k, graph_converted.get());
      gradients.add(slice, n, k, in, graph, g, nullptr, dx_head);
      if (want_x && !inputs.kInPlace) convert(dx_head, to, in_size);
    }
  });
  return std::tuple_cat(std::make_tuple(dx), gradients.finish(x, A_, weight, bias, virtuals));
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
