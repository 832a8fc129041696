// mass_matrix: composite bodies on registers of frames; the dense form is scattered from the
// packed.
#include "math/mass_matrix.h"

#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "mass_matrix";

template <typename T>
Tensor forward(const Tensor& q, const Tensor& inertia, const Tensor& offset, const Tensor& axis,
               const Ints& parent, const Ints& joint, bool packed) {
  using A = Accumulate<T>;
  constexpr int kLanes = Simd<A>::kLanes;
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint);
  const TreeView<A> tree = tables.view();
  const Pattern pattern(tree.parent, tree.size);
  const int64_t n = tree.size, frames = q.size(0), entries = pattern.size();
  const FrameRows<T> q_rows(kOp, q, frames, n);
  Tensor M = packed ? new_tensor<T>(q, {frames, entries}) : new_tensor<T>(q, {frames, n, n});
  const Slices slices(registers<A>(frames));
  // Where each value of the dense form is among the packed ones, which a zero follows.
  std::vector<int> source(packed ? 0 : n * n, static_cast<int>(entries));
  for (int64_t e = 0; e < entries && !packed; ++e) {
    const int i = pattern.row[e], j = pattern.column[e];
    source[i * n + j] = source[j * n + i] = static_cast<int>(e);
  }
  const int64_t scratch = (1 + composite::kSlots) * n + 2 * (entries + 1);
  over_frames<A>(frames, slices, scratch, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const out = q_in + n;
    Lanes<A>* const turned = out + entries + 1;
    const Memory<Lanes<A>, false> memory{turned + entries + 1, 1};
    q_rows.load(block, q_in);
    mass_matrix(tree, pattern.begin.data(), q_in, memory,
                [&](int at, int, int, const Lanes<A>& value) { out[at] = value; });
    if (packed) {
      store_rows<T>(block, out, entries, M);
      return;
    }
    out[entries] = Lanes<A>{};
    A* row = reinterpret_cast<A*>(turned);
    transpose(reinterpret_cast<const A*>(out), entries + 1, kLanes, row);
    for (int64_t k = 0; k < block.count; ++k, row += entries + 1) {
      T* const to = data<T>(M) + (block.begin + k) * n * n;
      for (int64_t i = 0; i < n * n; ++i) to[i] = static_cast<T>(row[source[i]]);
    }
  });
  return M;
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& inertia,
                                    const Tensor& offset, const Tensor& axis, const Ints& parent,
                                    const Ints& joint, bool packed, int64_t needs) {
  using A = Accumulate<T>;
  constexpr int kLanes = Simd<A>::kLanes;
  const bool want_inertia = wants(needs, 1);
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint, want_inertia);
  const TreeView<A> tree = tables.view();
  const Pattern pattern(tree.parent, tree.size);
  const int64_t n = tree.size, frames = q.size(0), entries = pattern.size();
  const FrameRows<T> q_rows(kOp, q, frames, n);
  const Tensor dense = as_contiguous(grad);
  const FrameRows<T> grad_rows(kOp, grad, frames, packed ? entries : n * n);
  Tensor dq = wants(needs, 0) ? new_tensor<T>(q, {frames, n}) : no_gradient(q);
  const Slices slices(registers<A>(frames));
  LanePartials<A> partials(slices, want_inertia ? n * kInertiaSize : 0);
  const int64_t scratch = (2 + composite::kBackwardSlots) * n + entries;
  over_frames<A>(frames, slices, scratch, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const out = q_in + n, *const g = out + n;
    const Memory<Lanes<A>, false> memory{g + entries, 1};
    q_rows.load(block, q_in);
    if (packed) {
      grad_rows.load(block, g, Spare::kZero);
    } else {
      for (int64_t k = 0; k < kLanes; ++k) {
        const T* const from = data<T>(dense) + (block.begin + k) * n * n;
        for (int64_t e = 0; e < entries; ++e) {
          const int i = pattern.row[e], j = pattern.column[e];
          A value = 0;
          if (k < block.count) value = static_cast<A>(from[i * n + j]);
          if (k < block.count && i != j) value += static_cast<A>(from[j * n + i]);
          g[e][k] = value;
        }
      }
    }
    const Memory<Lanes<A>, false> dinertia{partials.slice(block.slice), 1};
    const auto weight = [&](int at, int, int) { return g[at]; };
    mass_matrix_backward(tree, pattern.begin.data(), weight, q_in, memory, out,
                         want_inertia ? &dinertia : nullptr);
    if (wants(needs, 0)) store_rows<T>(block, out, n, dq);
  });
  return {dq, want_inertia ? gradient_of(inertia, partials.total()) : no_gradient(q)};
}

Tensor mass_matrix_cpu(Tensor q, Tensor inertia, Tensor offset, Tensor axis, Ints parent,
                       Ints joint, bool packed) {
  return dispatch(q, kOp, [&](auto type) {
    return forward<decltype(type)>(q, inertia, offset, axis, parent, joint, packed);
  });
}

std::tuple<Tensor, Tensor> mass_matrix_backward_cpu(Tensor grad, Tensor q, Tensor inertia,
                                                    Tensor offset, Tensor axis, Ints parent,
                                                    Ints joint, bool packed, int64_t needs) {
  return dispatch(q, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, q, inertia, offset, axis, parent, joint, packed, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("mass_matrix", TORCH_BOX(&mass_matrix_cpu));
  m.impl("mass_matrix_backward", TORCH_BOX(&mass_matrix_backward_cpu));
}

}  // namespace skelops
