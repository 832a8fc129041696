// CUDA helpers of skelops::graph_conv: aggregation over joints and its gradient to the graph.
#define SKELOPS_HALF
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "common/launch.cuh"
#include "cuda/graph_conv.cuh"

namespace skelops {
namespace {

using torch::stable::Tensor;

constexpr int64_t kMaxJoints = 128;
constexpr int64_t kMaxGridY = 65535;
constexpr int64_t kTargetBlocks = 4096;  // several waves on the largest GPUs

void check_features(const char* op, const Tensor& x) {
  SKELOPS_CHECK(x.is_cuda() && x.dim() == 5 && x.is_contiguous(), op,
                "x (N, K, C, T, V) contiguous on a CUDA device");
  SKELOPS_CHECK(x.size(1) > 0 && x.size(4) > 0 && x.size(4) <= kMaxJoints, op,
                "x with K >= 1 subsets and 1 to 128 joints");
}

void check_like(const char* op, const Tensor& x, const Tensor& other) {
  SKELOPS_CHECK(other.is_cuda() && other.get_device_index() == x.get_device_index() &&
                    other.scalar_type() == x.scalar_type() && other.is_contiguous(),
                op, "contiguous tensors of one dtype on one CUDA device");
}

Tensor graph_aggregate(Tensor x, Tensor a, bool transposed) {
  constexpr const char* kOp = "_graph_aggregate_cuda";
  check_features(kOp, x);
  check_like(kOp, x, a);
  const int64_t batch = x.size(0), subsets = x.size(1), rows = x.size(2) * x.size(3);
  const int64_t joints = x.size(4), ranks = a.dim();
  const bool per_sample = ranks == 4;
  SKELOPS_CHECK((ranks == 3 || (per_sample && a.size(0) == batch)) &&
                    a.size(ranks - 3) == subsets && a.size(ranks - 2) == joints &&
                    a.size(ranks - 1) == joints,
                kOp, "A (K, V, V) or (N, K, V, V)");
  Tensor z = torch::stable::new_empty(x, {batch, x.size(2), x.size(3), joints});
  if (z.numel() == 0) return z;

  const LaunchOn device(x);
  dispatch_device_type(kOp, x, [&](auto zero) {
    using T = decltype(zero);
    const AggregatePlan plan(subsets, joints, sizeof(acc_t<T>));
    const int64_t tiles = (rows + plan.rows - 1) / plan.rows;
    const int64_t tiles_per_block = std::max<int64_t>(tiles * batch / kTargetBlocks, 1);
    const dim3 grid((tiles + tiles_per_block - 1) / tiles_per_block, std::min(batch, kMaxGridY));
    graph_aggregate_kernel<T>
        <<<grid, kBlockThreads, plan.shared_values * sizeof(acc_t<T>), device.stream()>>>(
            input<T>(x), input<T>(a), output<T>(z), batch, subsets, rows, joints, per_sample,
            transposed);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return z;
}

Tensor graph_aggregate_grad_a(Tensor grad, Tensor x, bool per_sample, bool transposed) {
  constexpr const char* kOp = "_graph_aggregate_grad_a_cuda";
  check_features(kOp, x);
  check_like(kOp, x, grad);
  const int64_t batch = x.size(0), subsets = x.size(1), rows = x.size(2) * x.size(3);
  const int64_t joints = x.size(4);
  SKELOPS_CHECK(grad.dim() == 4 && grad.size(0) == batch && grad.size(1) == x.size(2) &&
                    grad.size(2) == x.size(3) && grad.size(3) == joints,
                kOp, "grad (N, C, T, V)");

  const GraphGradPlan plan(joints);
  const int64_t row_tiles = std::max<int64_t>((rows + plan.rows - 1) / plan.rows, 1);
  const int64_t pairs = std::max<int64_t>(batch * subsets, 1);
  const int64_t splits = std::clamp<int64_t>(kTargetBlocks / pairs, 1, row_tiles);
  const auto dtype = x.scalar_type();
  const bool wide = dtype == torch::headeronly::ScalarType::Double;
  Tensor partial = torch::stable::new_empty(
      x, {batch, splits * plan.groups, subsets, joints, joints},
      wide ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float);
  if (batch > 0) {
    const LaunchOn device(x);
    dispatch_device_type(kOp, x, [&](auto zero) {
      using T = decltype(zero);
      const dim3 grid(batch * subsets * splits, ceil_div(plan.tiles, plan.block_tiles));
      graph_aggregate_grad_a_kernel<T>
          <<<grid, kBlockThreads, plan.shared_values() * sizeof(acc_t<T>), device.stream()>>>(
              input<T>(grad), input<T>(x), output<acc_t<T>>(partial), subsets, rows, joints, splits,
              transposed);
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  const int64_t over[] = {1, 0};
  const size_t dims = per_sample ? 1 : 2;
  return torch::stable::to(torch::stable::sum(partial, {{over, dims}}), dtype);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def("_graph_aggregate_cuda(Tensor x, Tensor A, bool transposed) -> Tensor");
  m.def(
      "_graph_aggregate_grad_a_cuda(Tensor grad, Tensor x, bool per_sample, bool transposed) -> "
      "Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_graph_aggregate_cuda", TORCH_BOX(&graph_aggregate));
  m.impl("_graph_aggregate_grad_a_cuda", TORCH_BOX(&graph_aggregate_grad_a));
}

}  // namespace skelops
