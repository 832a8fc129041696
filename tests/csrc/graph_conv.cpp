// Compiled with -include cuda_emulator.h.
#include "cuda/graph_conv.cuh"

using namespace skelops;

#define EXPORT(T, name)                                                                           \
  void aggregate_##name(const T* x, const T* a, T* z, long long batch, int subsets,               \
                        long long rows, int joints, bool per_sample, bool transposed) {           \
    launch({2, 2}, kBlockThreads, [=] {                                                           \
      graph_aggregate_kernel(x, a, z, batch, subsets, rows, joints, per_sample, transposed);      \
    });                                                                                           \
  }                                                                                               \
  void grad_a_##name(const T* grad, const T* x, T* partial, long long batch, int subsets,         \
                     long long rows, int joints, int splits, bool transposed) {                   \
    const GraphGradPlan plan(joints);                                                             \
    const unsigned blocks = batch * subsets * splits;                                             \
    launch({blocks, unsigned(ceil_div(plan.tiles, plan.block_tiles))}, kBlockThreads, [=] {       \
      graph_aggregate_grad_a_kernel(grad, x, partial, subsets, rows, joints, splits, transposed); \
    });                                                                                           \
  }

extern "C" {
EXPORT(float, float32)
EXPORT(double, float64)

int partials_per_split(int joints) { return GraphGradPlan(joints).groups; }

int shared_bytes(int subsets, int joints, int value_bytes) {
  return AggregatePlan(subsets, joints, value_bytes).shared_values * value_bytes;
}
}
