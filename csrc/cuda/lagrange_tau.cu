// CUDA kernels of skelops::lagrange_tau.
#define SKELOPS_HALF
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/launch.cuh"
#include "cuda/lagrange_tau.cuh"

namespace skelops {
namespace {

using torch::stable::Tensor;

constexpr int64_t kMaxBlocks = int64_t{1} << 20;

template <typename T>
LagrangeBatch<T> lagrange_batch(const char* op, const Tensor& lower, const Tensor& skew,
                                const Tensor& qd, const Tensor& qdd) {
  for (const Tensor* t : {&lower, &skew, &qd, &qdd}) {
    SKELOPS_CHECK(t->is_cuda() && t->get_device_index() == qd.get_device_index() &&
                      t->scalar_type() == qd.scalar_type() && t->is_contiguous(),
                  op, "contiguous tensors of one dtype on one CUDA device");
  }
  SKELOPS_CHECK(qd.dim() == 3, op, "qd (N, T, d)");
  const int64_t d = qd.size(2), frames = qd.size(0) * qd.size(1);
  SKELOPS_CHECK(d <= kSharedBytes && lagrange_values(d) * sizeof(acc_t<T>) <= kSharedBytes, op,
                "triangles that fit into shared memory");
  SKELOPS_CHECK(lower.numel() == frames * triangle(d) && skew.numel() == frames * triangle(d - 1) &&
                    qdd.numel() == qd.numel(),
                op, "lower (N, T, d (d + 1) / 2), skew (N, T, d (d - 1) / 2), qd and qdd");
  return {frames,
          static_cast<int>(qd.size(1)),
          static_cast<int>(d),
          input<T>(lower),
          input<T>(skew),
          input<T>(qd),
          input<T>(qdd)};
}

std::tuple<Tensor, Tensor> lagrange_tau_cuda(Tensor lower, Tensor skew, Tensor qd, Tensor qdd) {
  constexpr const char* kOp = "_lagrange_tau_cuda";
  Tensor tau = torch::stable::empty_like(qd);
  Tensor kinetic = torch::stable::new_empty(qd, {qd.size(0), qd.size(1)});
  const LaunchOn device(qd);
  dispatch_device_type(kOp, qd, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = lagrange_batch<T>(kOp, lower, skew, qd, qdd);
    if (batch.frames == 0) return;
    lagrange_tau_kernel<<<std::min<int64_t>(batch.frames, kMaxBlocks), kLagrangeThreads,
                          lagrange_values(batch.d) * sizeof(acc_t<T>), device.stream()>>>(
        batch, output<T>(tau), output<T>(kinetic));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {tau, kinetic};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> lagrange_tau_backward_cuda(Tensor grad_tau,
                                                                      Tensor grad_kinetic,
                                                                      Tensor lower, Tensor skew,
                                                                      Tensor qd, Tensor qdd,
                                                                      int64_t needs) {
  constexpr const char* kOp = "_lagrange_tau_backward_cuda";
  const Tensor* of[] = {&lower, &skew, &qd, &qdd};
  Tensor found[4];
  for (int i = 0; i < 4; ++i) {
    found[i] =
        needs >> i & 1 ? torch::stable::empty_like(*of[i]) : torch::stable::new_empty(qd, {0});
  }
  const LaunchOn device(qd);
  dispatch_device_type(kOp, qd, [&](auto zero) {
    using T = decltype(zero);
    const auto batch = lagrange_batch<T>(kOp, lower, skew, qd, qdd);
    SKELOPS_CHECK(grad_tau.is_contiguous() && grad_tau.numel() == qd.numel() &&
                      grad_kinetic.is_contiguous() && grad_kinetic.numel() == batch.frames &&
                      grad_tau.scalar_type() == qd.scalar_type() &&
                      grad_kinetic.scalar_type() == qd.scalar_type(),
                  kOp, "contiguous gradients of the results");
    if (batch.frames == 0) return;
    const auto wanted = [&](int i) { return needs >> i & 1 ? output<T>(found[i]) : nullptr; };
    lagrange_tau_backward_kernel<<<std::min<int64_t>(batch.frames, kMaxBlocks), kLagrangeThreads,
                                   lagrange_values(batch.d) * sizeof(acc_t<T>), device.stream()>>>(
        batch, input<T>(grad_tau), input<T>(grad_kinetic),
        LagrangeGrads<T>{wanted(0), wanted(1), wanted(2), wanted(3)});
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {found[0], found[1], found[2], found[3]};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def("_lagrange_tau_cuda(Tensor lower, Tensor skew, Tensor qd, Tensor qdd) -> (Tensor, Tensor)");
  m.def(
      "_lagrange_tau_backward_cuda(Tensor grad_tau, Tensor grad_kinetic, Tensor lower, "
      "Tensor skew, Tensor qd, Tensor qdd, int needs) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_lagrange_tau_cuda", TORCH_BOX(&lagrange_tau_cuda));
  m.impl("_lagrange_tau_backward_cuda", TORCH_BOX(&lagrange_tau_backward_cuda));
}

}  // namespace skelops
