// CUDA kernels of skelops::point_dynamics.
#define SKELOPS_HALF
#include "cuda/point_dynamics.cuh"
#include "cuda/rigid_body_launch.cuh"

namespace skelops {
namespace {

template <typename T>
PointBatch<T> point_batch(const char* op, const Tensor& x, const Tensor& v, const Tensor& force,
                          const Tensor& mass, const Ints& parents, int64_t root) {
  const int64_t n = static_cast<int64_t>(parents.size());
  SKELOPS_CHECK(x.is_cuda() && x.dim() == 3 && x.is_contiguous() && x.size(1) == n &&
                    (x.size(2) == 2 || x.size(2) == 3),
                op, "x (N, V, 2 or 3) contiguous on a CUDA device");
  SKELOPS_CHECK(n > 0 && n <= kMaxBodies && root >= 0 && root < n, op,
                "1 to 128 joints, the root among them");
  PointBatch<T> batch = {};
  batch.joints = static_cast<int>(n), batch.root = static_cast<int>(root);
  batch.frames = x.size(0), batch.x = input<T>(x);
  batch.v = rows<T>(op, v, x.size(2) * n, x), batch.force = rows<T>(op, force, x.size(2) * n, x);
  batch.mass = values<acc_t<T>>(op, mass, kAccumulated<acc_t<T>>, n, x);
  std::vector<std::vector<int64_t>> children(n);
  for (int64_t j = 0; j < n; ++j) {
    SKELOPS_CHECK(parents[j] >= 0 && parents[j] < n, op, "parents among the joints");
    batch.parent[j] = static_cast<unsigned char>(parents[j]);
    if (j != root) children[parents[j]].push_back(j);
  }
  Ints order{root};
  for (size_t at = 0; at < order.size(); ++at) {
    batch.order[at] = static_cast<unsigned char>(order[at]);
    for (const int64_t child : children[order[at]]) order.push_back(child);
  }
  SKELOPS_CHECK(static_cast<int64_t>(order.size()) == n, op, "a tree");
  return batch;
}

std::tuple<Tensor, Tensor> point_dynamics_cuda(Tensor x, Tensor v, Tensor force, Tensor mass,
                                               Ints parents, int64_t root) {
  constexpr const char* kOp = "_point_dynamics_cuda";
  Tensor acceleration = torch::stable::empty_like(x);
  Tensor multiplier = torch::stable::new_empty(x, {x.size(0), x.size(1) - 1});
  dispatch_device_type(kOp, x, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = point_batch<T>(kOp, x, v, force, mass, parents, root);
    const int64_t n = batch.joints, width = x.size(2) * n;
    const FrameLaunch run(
        x.size(2) == 3 ? point_dynamics_kernel<3, T> : point_dynamics_kernel<2, T>, x,
        batch.bytes(), {width, width, width}, points::kSlots * n);
    run(batch, output<T>(acceleration), output<T>(multiplier));
  });
  return {acceleration, multiplier};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> point_dynamics_backward_cuda(
    Tensor grad_acc, Tensor grad_multiplier, Tensor x, Tensor v, Tensor force, Tensor mass,
    Ints parents, int64_t root, int64_t needs) {
  constexpr const char* kOp = "_point_dynamics_backward_cuda";
  const int64_t frames = x.size(0), n = x.size(1), D = x.size(2), width = D * n;
  const bool want_mass = wants(needs, 3);
  const Wanted dx(x, wants(needs, 0), {frames, n, D}), dv(x, wants(needs, 1), {frames, n, D});
  const Wanted dforce(x, wants(needs, 2), {frames, n, D});
  Tensor dmass;
  dispatch_device_type(kOp, x, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = point_batch<T>(kOp, x, v, force, mass, parents, root);
    const FrameLaunch run(
        D == 3 ? point_dynamics_backward_kernel<3, T> : point_dynamics_backward_kernel<2, T>, x,
        batch.bytes(), {width, width, width, width, width, n, n}, points::kSlots * n);
    const Wanted partial = run.partial(want_mass, n);
    run(batch, rows<T>(kOp, grad_acc, width, x), rows<T>(kOp, grad_multiplier, n - 1, x),
        PointGrads<T>{dx.get<T>(), dv.get<T>(), dforce.get<T>(), partial.get<acc_t<T>>()});
    dmass = summed(partial);
  });
  return {dx.tensor, dv.tensor, dforce.tensor, dmass};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_point_dynamics_cuda(Tensor x, Tensor v, Tensor force, Tensor mass, int[] parents, "
      "int root) -> (Tensor, Tensor)");
  m.def(
      "_point_dynamics_backward_cuda(Tensor grad_acc, Tensor grad_multiplier, Tensor x, Tensor v, "
      "Tensor force, Tensor mass, int[] parents, int root, int needs) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_point_dynamics_cuda", TORCH_BOX(&point_dynamics_cuda));
  m.impl("_point_dynamics_backward_cuda", TORCH_BOX(&point_dynamics_backward_cuda));
}

}  // namespace skelops
