// forward_dynamics: the articulated-body algorithm on registers of frames. Its backward is another
// one, on the output's gradient, and that of inverse dynamics: nothing of size n x n is made.
#include "math/forward_dynamics.h"

#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "forward_dynamics";

template <typename T>
Tensor forward(const Tensor& q, const OptionalTensor& qd, const Tensor& tau,
               const OptionalTensor& wrench, const Tensor& inertia, const Tensor& offset,
               const Tensor& axis, const OptionalTensor& gravity, const Ints& parent,
               const Ints& joint) {
  using A = Accumulate<T>;
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const Vec3<Lanes<A>> world = minus_gravity<A>(gravity);
  const FrameRows<T> q_rows(kOp, q, frames, n), qd_rows(kOp, qd, frames, n);
  const FrameRows<T> tau_rows(kOp, tau, frames, n), wrench_rows(kOp, wrench, frames, 6 * n);
  Tensor qdd = new_tensor<T>(q, {frames, n});
  const Slices slices(registers<A>(frames));
  over_frames<A>(frames, slices, (10 + articulated::kSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const qd_in = q_in + n, *const tau_in = qd_in + n;
    Lanes<A>*const out = tau_in + n, *const wrench_in = wrench ? out + n : nullptr;
    q_rows.load(block, q_in), qd_rows.load(block, qd_in), tau_rows.load(block, tau_in);
    if (wrench) wrench_rows.load(block, wrench_in);
    const Memory<Lanes<A>, false> memory{out + 7 * n, 1};
    forward_dynamics(tree, q_in, qd_in, tau_in, wrench_in, world, memory, out);
    store_rows<T>(block, out, n, qdd);
  });
  return qdd;
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& q, const OptionalTensor& qd, const Tensor& tau,
    const OptionalTensor& wrench, const Tensor& inertia, const Tensor& offset, const Tensor& axis,
    const OptionalTensor& gravity, const Ints& parent, const Ints& joint, const Tensor& qdd,
    int64_t needs) {
  using A = Accumulate<T>;
  const bool want_wrench = wants(needs, 3), want_inertia = wants(needs, 4);
  const TreeTables<A> tables(kOp, inertia, offset, axis, parent, joint, want_inertia);
  const TreeView<A> tree = tables.view();
  const int64_t n = tree.size, frames = q.size(0);
  const Vec3<Lanes<A>> world = minus_gravity<A>(gravity);
  const FrameRows<T> q_rows(kOp, q, frames, n), qd_rows(kOp, qd, frames, n);
  const FrameRows<T> qdd_rows(kOp, qdd, frames, n), wrench_rows(kOp, wrench, frames, 6 * n);
  const FrameRows<T> tau_rows(kOp, tau, frames, n), grad_rows(kOp, grad, frames, n);
  Tensor found[4];
  for (int i = 0; i < 3; ++i) {
    found[i] = wants(needs, i) ? new_tensor<T>(q, {frames, n}) : no_gradient(q);
  }
  found[3] = want_wrench ? new_tensor<T>(q, {frames, n, 6}) : no_gradient(q);
  const bool want_state = needs & ~int64_t{4};  // more than the gradient to tau
  const Slices slices(registers<A>(frames));
  LanePartials<A> partials(slices, want_inertia ? n * kInertiaSize : 0);
  constexpr int64_t kSlots = std::max(articulated::kSlots, inverse_backward::kSlots);
  over_frames<A>(frames, slices, (20 + kSlots) * n, [&](const Block<A>& block) {
    Lanes<A>*const q_in = block.scratch, *const qd_in = q_in + n, *const qdd_in = qd_in + n;
    Lanes<A>*const p = qdd_in + n, *const out = p + n;
    Lanes<A>* const dwrench = want_wrench ? out + 4 * n : nullptr;
    Lanes<A>* const wrench_in = wrench ? out + 10 * n : nullptr;
    const Memory<Lanes<A>, false> memory{out + 16 * n, 1};
    q_rows.load(block, q_in);
    // At rest and without gravity, accelerations are M^-1 times the forces.
    grad_rows.load(block, p, Spare::kZero);
    std::fill_n(qd_in, n, Lanes<A>{});
    Lanes<A>* const dtau = out + 3 * n;
    forward_dynamics(tree, q_in, qd_in, p, static_cast<const Lanes<A>*>(nullptr), Vec3<Lanes<A>>{},
                     memory, dtau);
    if (wants(needs, 2)) store_rows<T>(block, dtau, n, found[2]);
    if (!want_state) return;
    for (int64_t i = 0; i < n; ++i) p[i] = -dtau[i];
    qd_rows.load(block, qd_in);
    if (wrench) wrench_rows.load(block, wrench_in);
    if constexpr (std::is_same_v<T, A>) {
      qdd_rows.load(block, qdd_in);
    } else {  // the saved ones are rounded
      tau_rows.load(block, dtau);
      forward_dynamics(tree, q_in, qd_in, dtau, wrench_in, world, memory, qdd_in);
    }
    const Memory<Lanes<A>, false> dinertia{partials.slice(block.slice), 1};
    inverse_dynamics_backward(tree, p, q_in, qd_in, qdd_in, wrench_in, world, memory, out, out + n,
                              out + 2 * n, dwrench, want_inertia ? &dinertia : nullptr);
    for (int i = 0; i < 2; ++i) {
      if (wants(needs, i)) store_rows<T>(block, out + i * n, n, found[i]);
    }
    if (want_wrench) store_rows<T>(block, dwrench, 6 * n, found[3]);
  });
  return {found[0], found[1], found[2], found[3],
          want_inertia ? gradient_of(inertia, partials.total()) : no_gradient(q)};
}

Tensor forward_dynamics_cpu(Tensor q, OptionalTensor qd, Tensor tau, OptionalTensor wrench,
                            Tensor inertia, Tensor offset, Tensor axis, OptionalTensor gravity,
                            Ints parent, Ints joint) {
  return dispatch(q, kOp, [&](auto type) {
    return forward<decltype(type)>(q, qd, tau, wrench, inertia, offset, axis, gravity, parent,
                                   joint);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward_dynamics_backward_cpu(
    Tensor grad, Tensor q, OptionalTensor qd, Tensor tau, OptionalTensor wrench, Tensor inertia,
    Tensor offset, Tensor axis, OptionalTensor gravity, Ints parent, Ints joint, Tensor qdd,
    int64_t needs) {
  return dispatch(q, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, q, qd, tau, wrench, inertia, offset, axis, gravity,
                                    parent, joint, qdd, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("forward_dynamics", TORCH_BOX(&forward_dynamics_cpu));
  m.impl("forward_dynamics_backward", TORCH_BOX(&forward_dynamics_backward_cpu));
}

}  // namespace skelops
