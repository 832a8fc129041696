// tree_solve: a factorisation per frame on the pattern of the tree, registers of frames together.
#include "math/tree_solve.h"

#include "cpu/rigid_body.h"

namespace skelops {
namespace {

constexpr const char* kOp = "tree_solve";

// The tree, and where the rows of a packed matrix begin.
struct Chains {
  Chains(const Tensor& force, const Ints& parents)
      : parent(parents.begin(), parents.end()), pattern(checked(parents), size()) {
    SKELOPS_CHECK(force.dim() == 2 && force.size(1) == size(), kOp, "forces (N, n)");
  }
  int size() const { return static_cast<int>(parent.size()); }
  const int* begin() const { return pattern.begin.data(); }

  std::vector<int> parent;
  Pattern pattern;

 private:
  const int* checked(const Ints& parents) const {
    for (int64_t i = 0; i < size(); ++i) {
      SKELOPS_CHECK(parents[i] >= -1 && parents[i] < i, kOp, "every parent before its body");
    }
    return parent.data();
  }
};

template <typename T>
Tensor forward(const Tensor& packed, const Tensor& force, const Ints& parents) {
  using A = Accumulate<T>;
  const Chains tree(force, parents);
  const int64_t n = tree.size(), frames = force.size(0), entries = tree.pattern.size();
  const FrameRows<T> matrix_rows(kOp, packed, frames, entries), force_rows(kOp, force, frames, n);
  Tensor x = new_tensor<T>(force, {frames, n});
  over_frames<A>(frames, Slices(registers<A>(frames)), entries + n, [&](const Block<A>& block) {
    Lanes<A>*const matrix = block.scratch, *const out = matrix + entries;
    const Memory<Lanes<A>, false> factor{matrix, 1};
    matrix_rows.load(block, matrix), force_rows.load(block, out);
    factor_tree<Lanes<A>>(tree.parent.data(), tree.begin(), tree.size(), factor);
    solve_tree(tree.parent.data(), tree.begin(), tree.size(), factor, out);
    store_rows<T>(block, out, n, x);
  });
  return x;
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& packed, const Tensor& force,
                                    const Ints& parents, int64_t needs) {
  using A = Accumulate<T>;
  const Chains tree(force, parents);
  const int64_t n = tree.size(), frames = force.size(0), entries = tree.pattern.size();
  const FrameRows<T> matrix_rows(kOp, packed, frames, entries), force_rows(kOp, force, frames, n);
  const FrameRows<T> grad_rows(kOp, grad, frames, n);
  const bool want_matrix = wants(needs, 0), want_force = wants(needs, 1);
  Tensor dmatrix = want_matrix ? new_tensor<T>(force, {frames, entries}) : no_gradient(force);
  Tensor dforce = want_force ? new_tensor<T>(force, {frames, n}) : no_gradient(force);
  over_frames<A>(frames, Slices(registers<A>(frames)), entries + 2 * n, [&](const Block<A>& block) {
    Lanes<A>*const matrix = block.scratch, *const x = matrix + entries, *const w = x + n;
    const Memory<Lanes<A>, false> factor{matrix, 1};
    matrix_rows.load(block, matrix), grad_rows.load(block, w);
    factor_tree<Lanes<A>>(tree.parent.data(), tree.begin(), tree.size(), factor);
    solve_tree(tree.parent.data(), tree.begin(), tree.size(), factor, w);
    if (want_force) store_rows<T>(block, w, n, dforce);
    if (!want_matrix) return;
    force_rows.load(block, x);
    solve_tree(tree.parent.data(), tree.begin(), tree.size(), factor, x);
    for (int64_t e = 0; e < entries; ++e) {
      matrix[e] = entry_grad(w, x, tree.pattern.row[e], tree.pattern.column[e]);
    }
    store_rows<T>(block, matrix, entries, dmatrix);
  });
  return {dmatrix, dforce};
}

Tensor tree_solve_cpu(Tensor packed, Tensor force, Ints parent) {
  return dispatch(force, kOp,
                  [&](auto type) { return forward<decltype(type)>(packed, force, parent); });
}

std::tuple<Tensor, Tensor> tree_solve_backward_cpu(Tensor grad, Tensor packed, Tensor force,
                                                   Ints parent, int64_t needs) {
  return dispatch(force, kOp, [&](auto type) {
    return backward<decltype(type)>(grad, packed, force, parent, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("tree_solve", TORCH_BOX(&tree_solve_cpu));
  m.impl("tree_solve_backward", TORCH_BOX(&tree_solve_backward_cpu));
}

}  // namespace skelops
