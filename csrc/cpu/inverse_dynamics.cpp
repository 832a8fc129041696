// inverse_dynamics: a register holds one value of several frames, which go through the tree
// together.
#include "math/inverse_dynamics.h"

#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "inverse_dynamics";

template <typename T>
Tensor forward(const Tensor& q, const OptionalTensor& qd, const OptionalTensor& qdd,
               const OptionalTensor& wrench, const Tensor& inertia, const Tensor& offset,
               const Tensor& axis, const OptionalTensor& gravity, const Ints& parent,
               const Ints& joint) {
  using A = Accumulate<T>;
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const Vec3<Lanes<A>> world = minus_gravity<A>(gravity);
  const FrameRows<T> q_rows(kOp, q, frames, n), qd_rows(kOp, qd, frames, n);
  const FrameRows<T> qdd_rows(kOp, qdd, frames, n), wrench_rows(kOp, wrench, frames, 6 * n);
  Tensor tau = new_tensor<T>(q, {frames, n});
  const Slices slices(registers<A>(frames));
  over_frames<A>(frames, slices, (10 + inverse::kSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const qd_in = q_in + n, *const qdd_in = qd_in + n;
    Lanes<A>*const out = qdd_in + n, *const wrench_in = wrench ? out + n : nullptr;
    q_rows.load(block, q_in), qd_rows.load(block, qd_in), qdd_rows.load(block, qdd_in);
    if (wrench) wrench_rows.load(block, wrench_in);
    const Memory<Lanes<A>, false> memory{out + 7 * n, 1};
    inverse_dynamics(tree, q_in, qd_in, qdd_in, wrench_in, world, memory, out);
    store_rows<T>(block, out, n, tau);
  });
  return tau;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& q, const OptionalTensor& qd, const OptionalTensor& qdd,
    const OptionalTensor& wrench, const Tensor& inertia, const Tensor& offset, const Tensor& axis,
    const OptionalTensor& gravity, const Ints& parent, const Ints& joint, int64_t needs) {
  using A = Accumulate<T>;
  const bool want_wrench = wants(needs, 3), want_inertia = wants(needs, 4);
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint, want_inertia);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const Vec3<Lanes<A>> world = minus_gravity<A>(gravity);
  const FrameRows<T> q_rows(kOp, q, frames, n), qd_rows(kOp, qd, frames, n);
  const FrameRows<T> qdd_rows(kOp, qdd, frames, n), wrench_rows(kOp, wrench, frames, 6 * n);
  const FrameRows<T> grad_rows(kOp, grad, frames, n);
  Tensor found[4];
  for (int i = 0; i < 3; ++i) {
    found[i] = wants(needs, i) ? new_tensor<T>(q, {frames, n}) : no_gradient(q);
  }
  found[3] = want_wrench ? new_tensor<T>(q, {frames, n, 6}) : no_gradient(q);
  const Slices slices(registers<A>(frames));
  LanePartials<A> partials(slices, want_inertia ? n * kInertiaSize : 0);
  over_frames<A>(frames, slices, (19 + inverse_backward::kSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const qd_in = q_in + n, *const qdd_in = qd_in + n;
    Lanes<A>*const p_in = qdd_in + n, *const out = p_in + n;
    Lanes<A>* const dwrench = want_wrench ? out + 3 * n : nullptr;
    Lanes<A>* const wrench_in = wrench ? out + 9 * n : nullptr;
    q_rows.load(block, q_in), qd_rows.load(block, qd_in), qdd_rows.load(block, qdd_in);
    grad_rows.load(block, p_in, Spare::kZero);
    if (wrench) wrench_rows.load(block, wrench_in);
    const Memory<Lanes<A>, false> memory{out + 15 * n, 1};
    const Memory<Lanes<A>, false> dinertia{partials.slice(block.slice), 1};
    inverse_dynamics_backward(tree, p_in, q_in, qd_in, qdd_in, wrench_in, world, memory, out,
                              out + n, out + 2 * n, dwrench, want_inertia ? &dinertia : nullptr);
    for (int i = 0; i < 3; ++i) {
      if (wants(needs, i)) store_rows<T>(block, out + i * n, n, found[i]);
    }
    if (want_wrench) store_rows<T>(block, dwrench, 6 * n, found[3]);
  });
  return {found[0], found[1], found[2], found[3],
          want_inertia ? gradient_of(inertia, partials.total()) : no_gradient(q)};
}

Tensor inverse_dynamics_cpu(Tensor q, OptionalTensor qd, OptionalTensor qdd, OptionalTensor wrench,
                            Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity,
                            Ints parent, Ints joint) {
  return dispatch(q, kOp, [&](auto type) {
    return forward<decltype(type)>(q, qd, qdd, wrench, inertia, offset, axis, gravity, parent,
                                   joint);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> inverse_dynamics_backward_cpu(
    Tensor grad, Tensor q, OptionalTensor qd, OptionalTensor qdd, OptionalTensor wrench,
    Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity, Ints parent, Ints joint,
    int64_t needs) {
  return dispatch(q, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, q, qd, qdd, wrench, inertia, offset, axis, gravity,
                                    parent, joint, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("inverse_dynamics", TORCH_BOX(&inverse_dynamics_cpu));
  m.impl("inverse_dynamics_backward", TORCH_BOX(&inverse_dynamics_backward_cpu));
}

}  // namespace skelops
