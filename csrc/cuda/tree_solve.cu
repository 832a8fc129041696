// CUDA kernels of skelops::tree_solve.
#define SKELOPS_HALF
#include "cuda/rigid_body_launch.cuh"
#include "cuda/tree_solve.cuh"

namespace skelops {
namespace {

template <typename T>
SolveBatch<T> solve_batch(const char* op, const Tensor& packed, const Tensor& force,
                          const Ints& parent) {
  SolveBatch<T> batch = {};
  batch.tree = tree_pattern(op, force, parent);
  batch.frames = force.size(0), batch.entries = batch.tree.entries();
  batch.packed = rows<T>(op, packed, batch.entries, force), batch.force = input<T>(force);
  return batch;
}

Tensor tree_solve_cuda(Tensor packed, Tensor force, Ints parent) {
  constexpr const char* kOp = "_tree_solve_cuda";
  Tensor x = torch::stable::empty_like(force);
  dispatch_device_type(kOp, force, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = solve_batch<T>(kOp, packed, force, parent);
    const FrameLaunch run(tree_solve_kernel<T>, force, batch.tree.pattern_bytes(),
                          {batch.tree.size, kPieceColumns}, batch.entries);
    run(batch, output<T>(x));
  });
  return x;
}

std::tuple<Tensor, Tensor> tree_solve_backward_cuda(Tensor grad, Tensor packed, Tensor force,
                                                    Ints parent, int64_t needs) {
  constexpr const char* kOp = "_tree_solve_backward_cuda";
  const int64_t frames = force.size(0), n = static_cast<int64_t>(parent.size());
  const Wanted dpacked(force, wants(needs, 0), {frames, packed.size(1)});
  const Wanted dforce(force, wants(needs, 1), {frames, n});
  dispatch_device_type(kOp, force, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = solve_batch<T>(kOp, packed, force, parent);
    const FrameLaunch run(tree_solve_backward_kernel<T>, force, batch.tree.pattern_bytes(),
                          {n, n, kPieceColumns}, batch.entries);
    run(batch, rows<T>(kOp, grad, n, force), dpacked.get<T>(), dforce.get<T>());
  });
  return {dpacked.tensor, dforce.tensor};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def("_tree_solve_cuda(Tensor packed, Tensor force, int[] parent) -> Tensor");
  m.def(
      "_tree_solve_backward_cuda(Tensor grad, Tensor packed, Tensor force, int[] parent, "
      "int needs) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_tree_solve_cuda", TORCH_BOX(&tree_solve_cuda));
  m.impl("_tree_solve_backward_cuda", TORCH_BOX(&tree_solve_backward_cuda));
}

}  // namespace skelops
