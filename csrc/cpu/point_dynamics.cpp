// point_dynamics: point masses on rigid bones; a register holds one value of several frames.
#include "math/point_dynamics.h"

#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "point_dynamics";

// Joints with parents first, and where the multipliers of a frame come from.
class Skeleton {
 public:
  Skeleton(const Ints& parents, int64_t root) : parent_(parents.begin(), parents.end()) {
    const int n = static_cast<int>(parents.size());
    SKELOPS_CHECK(root >= 0 && root < n, kOp, "root among the joints");
    std::vector<std::vector<int>> children(n);
    for (int j = 0; j < n; ++j) {
      SKELOPS_CHECK(parent_[j] >= 0 && parent_[j] < n, kOp, "parents among the joints");
      if (j != root) children[parent_[j]].push_back(j), bones_.push_back(j);
    }
    order_.push_back(static_cast<int>(root));
    for (size_t at = 0; at < order_.size(); ++at) {
      for (const int child : children[order_[at]]) order_.push_back(child);
    }
    SKELOPS_CHECK(static_cast<int>(order_.size()) == n, kOp, "a tree");
  }
  PointTree view() const {
    return {static_cast<int>(order_.size()), order_.data(), parent_.data()};
  }
  const std::vector<int>& bones() const { return bones_; }

 private:
  std::vector<int> parent_, order_, bones_;
};

template <typename T, int D>
std::tuple<Tensor, Tensor> forward(const Tensor& x, const Tensor& v, const Tensor& force,
                                   const Tensor& mass, const Ints& parents, int64_t root) {
  using A = Accumulate<T>;
  const Skeleton skeleton(parents, root);
  const PointTree tree = skeleton.view();
  const std::vector<A> masses = parameter<A>(mass);
  const int64_t n = tree.size, frames = x.size(0), values = D * n;
  SKELOPS_CHECK(static_cast<int64_t>(masses.size()) == n, kOp, "a mass per joint");
  const FrameRows<T> x_rows(kOp, x, frames, values), v_rows(kOp, v, frames, values);
  const FrameRows<T> force_rows(kOp, force, frames, values);
  Tensor acc = new_tensor<T>(x, {frames, n, D}), multiplier = new_tensor<T>(x, {frames, n - 1});
  const Slices slices(registers<A>(frames));
  const int64_t scratch = 4 * values + (2 + points::kSlots) * n;
  over_frames<A>(frames, slices, scratch, [&](const Block<A>& block) {
    Lanes<A>*const x_in = block.scratch, *const v_in = x_in + values, *const f_in = v_in + values;
    Lanes<A>*const a = f_in + values, *const lam = a + values, *const bones = lam + n;
    x_rows.load(block, x_in), v_rows.load(block, v_in), force_rows.load(block, f_in);
    const Memory<Lanes<A>, false> memory{bones + n, 1};
    point_dynamics<D>(tree, masses.data(), x_in, v_in, f_in, memory, a, lam);
    for (int64_t b = 0; b + 1 < n; ++b) bones[b] = lam[skeleton.bones()[b]];
    store_rows<T>(block, a, values, acc);
    store_rows<T>(block, bones, n - 1, multiplier);
  });
  return {acc, multiplier};
}

template <typename T, int D>
std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_acc,
                                                    const Tensor& grad_multiplier, const Tensor& x,
                                                    const Tensor& v, const Tensor& force,
                                                    const Tensor& mass, const Ints& parents,
                                                    int64_t root, int64_t needs) {
  using A = Accumulate<T>;
  const Skeleton skeleton(parents, root);
  const PointTree tree = skeleton.view();
  const std::vector<A> masses = parameter<A>(mass);
  const int64_t n = tree.size, frames = x.size(0), values = D * n;
  const FrameRows<T> x_rows(kOp, x, frames, values), v_rows(kOp, v, frames, values);
  const FrameRows<T> force_rows(kOp, force, frames, values);
  const FrameRows<T> acc_rows(kOp, grad_acc, frames, values);
  const FrameRows<T> multiplier_rows(kOp, grad_multiplier, frames, n - 1);
  Tensor found[3];
  for (int i = 0; i < 3; ++i) {
    found[i] = wants(needs, i) ? new_tensor<T>(x, {frames, n, D}) : no_gradient(x);
  }
  const bool want_mass = wants(needs, 3);
  const Slices slices(registers<A>(frames));
  LanePartials<A> partials(slices, want_mass ? n : 0);
  const int64_t scratch = 8 * values + (4 + points::kSlots) * n;
  over_frames<A>(frames, slices, scratch, [&](const Block<A>& block) {
    Lanes<A>*const x_in = block.scratch, *const v_in = x_in + values, *const f_in = v_in + values;
    Lanes<A>*const ga = f_in + values, *const a = ga + values, *const out = a + values;
    Lanes<A>*const lam = out + 3 * values, *const mu = lam + n, *const bones = mu + n;
    Lanes<A>* const glam = bones + n;
    x_rows.load(block, x_in), v_rows.load(block, v_in), force_rows.load(block, f_in);
    acc_rows.load(block, ga, Spare::kZero), multiplier_rows.load(block, bones, Spare::kZero);
    for (int64_t b = 0; b + 1 < n; ++b) glam[skeleton.bones()[b]] = bones[b];
    const Memory<Lanes<A>, false> memory{glam + n, 1}, dmass{partials.slice(block.slice), 1};
    point_dynamics_backward<D>(tree, masses.data(), ga, glam, x_in, v_in, f_in, memory, a, lam, mu,
                               out, out + values, out + 2 * values, want_mass ? &dmass : nullptr);
    for (int i = 0; i < 3; ++i) {
      if (wants(needs, i)) store_rows<T>(block, out + i * values, values, found[i]);
    }
  });
  return {found[0], found[1], found[2],
          want_mass ? gradient_of(mass, partials.total()) : no_gradient(x)};
}

std::tuple<Tensor, Tensor> point_dynamics_cpu(Tensor x, Tensor v, Tensor force, Tensor mass,
                                              Ints parents, int64_t root) {
  SKELOPS_CHECK(x.dim() == 3 && (x.size(2) == 2 || x.size(2) == 3), kOp, "x (N, V, 2 or 3)");
  return dispatch(x, kOp, [&](auto type) {
    using T = decltype(type);
    return x.size(2) == 3 ? forward<T, 3>(x, v, force, mass, parents, root)
                          : forward<T, 2>(x, v, force, mass, parents, root);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> point_dynamics_backward_cpu(
    Tensor grad_acc, Tensor grad_multiplier, Tensor x, Tensor v, Tensor force, Tensor mass,
    Ints parents, int64_t root, int64_t needs) {
  SKELOPS_CHECK(x.dim() == 3 && (x.size(2) == 2 || x.size(2) == 3), kOp, "x (N, V, 2 or 3)");
  return dispatch(x, kOp, [&](auto type) {
    using T = decltype(type);
    return x.size(2) == 3
               ? backward<T, 3>(grad_acc, grad_multiplier, x, v, force, mass, parents, root, needs)
               : backward<T, 2>(grad_acc, grad_multiplier, x, v, force, mass, parents, root, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("point_dynamics", TORCH_BOX(&point_dynamics_cpu));
  m.impl("point_dynamics_backward", TORCH_BOX(&point_dynamics_backward_cpu));
}

}  // namespace skelops
