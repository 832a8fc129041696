// Host side of the kernels on trees of bodies: checks, and how frames are cut into blocks.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "common/launch.cuh"
#include "cuda/rigid_body.cuh"

namespace skelops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Ints = std::vector<int64_t>;

template <typename A>
constexpr ScalarType kAccumulated = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;

inline bool wants(int64_t needs, int index) { return needs >> index & 1; }

// The values of a tensor beside `like`; null for an absent one.
template <typename T>
const T* values(const char* op, const OptionalTensor& t, ScalarType dtype, int64_t count,
                const Tensor& like) {
  if (!t) return nullptr;
  SKELOPS_CHECK(t->is_cuda() && t->get_device_index() == like.get_device_index() &&
                    t->scalar_type() == dtype && t->is_contiguous() && t->numel() == count,
                op, "contiguous tensors of matching sizes and dtypes on one CUDA device");
  return input<T>(*t);
}

template <typename T>
const T* rows(const char* op, const OptionalTensor& t, int64_t width, const Tensor& like) {
  return values<T>(op, t, like.scalar_type(), like.size(0) * width, like);
}

// A new tensor, or an empty one whose data is null.
struct Wanted {
  Tensor tensor;
  bool wanted;

  Wanted(const Tensor& like, bool wanted, std::vector<int64_t> shape)
      : tensor(torch::stable::new_empty(like, wanted ? shape : std::vector<int64_t>{0})),
        wanted(wanted) {}
  template <typename T>
  T* get() const {
    return wanted ? output<T>(tensor) : nullptr;
  }
};

inline TreePattern tree_pattern(const char* op, const Tensor& frames, const Ints& parent) {
  const int64_t n = static_cast<int64_t>(parent.size());
  SKELOPS_CHECK(
      frames.is_cuda() && frames.dim() == 2 && frames.is_contiguous() && frames.size(1) == n, op,
      "frames (N, n) contiguous on a CUDA device");
  SKELOPS_CHECK(n > 0 && n <= kMaxBodies, op, "1 to 128 bodies");
  TreePattern pattern = {};
  pattern.size = static_cast<int>(n);
  for (int64_t i = 0; i < n; ++i) {
    SKELOPS_CHECK(parent[i] >= -1 && parent[i] < i, op, "every parent before its body");
    pattern.parent[i] = static_cast<signed char>(parent[i]);
  }
  return pattern;
}

template <typename A>
TreeTables<A> tree_tables(const char* op, const Tensor& q, const OptionalTensor& inertia,
                          const Tensor& offset, const Tensor& axis, const Ints& parent,
                          const Ints& joint, bool every_inertia = false) {
  SKELOPS_CHECK(joint.size() == parent.size(), op, "as many parents as joints");
  TreeTables<A> tables = {};
  static_cast<TreePattern&>(tables) = tree_pattern(op, q, parent);
  tables.every_inertia = every_inertia;
  const int64_t n = tables.size;
  tables.inertia = values<A>(op, inertia, kAccumulated<A>, kInertiaSize * n, q);
  tables.offset = values<A>(op, offset, kAccumulated<A>, 3 * n, q);
  tables.axis = values<A>(op, axis, kAccumulated<A>, 3 * n, q);
  for (int64_t i = 0; i < n; ++i) tables.revolute[i] = joint[i] == 1;
  return tables;
}

template <typename T>
MotionBatch<T> motion_batch(const char* op, const Tensor& q, const OptionalTensor& qd,
                            const OptionalTensor& drive, const OptionalTensor& wrench,
                            const Tensor& inertia, const Tensor& offset, const Tensor& axis,
                            const OptionalTensor& gravity, const Ints& parent, const Ints& joint,
                            bool every_inertia = false) {
  using acc = acc_t<T>;
  MotionBatch<T> batch = {};
  batch.tables = tree_tables<acc>(op, q, inertia, offset, axis, parent, joint, every_inertia);
  const int64_t n = batch.tables.size;
  batch.frames = q.size(0);
  batch.q = input<T>(q), batch.qd = rows<T>(op, qd, n, q), batch.drive = rows<T>(op, drive, n, q);
  batch.wrench = rows<T>(op, wrench, 6 * n, q);
  batch.gravity = values<acc>(op, gravity, kAccumulated<acc>, 3, q);
  return batch;
}

// As many frames to a block as find room in shared memory beside `common` bytes, and as many blocks
// as run at once.
struct FrameBlocks {
  int threads = kFrameThreads, blocks, shared_bytes;

  template <typename Kernel>
  FrameBlocks(Kernel kernel, const Tensor& like, int64_t common, int64_t frame) {
    while (common + threads * frame > kSharedBytes && threads > 1) threads /= 2;
    shared_bytes = static_cast<int>(common + threads * frame);
    int multiprocessors = 1, resident = 1;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                           like.get_device_index());
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, shared_bytes);
    const int64_t tiles = (like.size(0) + threads - 1) / threads;
    blocks = static_cast<int>(std::min(tiles, int64_t{multiprocessors} * std::max(resident, 1)));
  }
  int64_t total() const { return static_cast<int64_t>(blocks) * threads; }
};

// Of every thread, `slots` values of working memory.
template <typename A>
Tensor working_memory(const Tensor& like, const FrameBlocks& grid, int64_t slots) {
  return torch::stable::new_empty(like, {grid.total() * slots}, kAccumulated<A>);
}

// Partial gradients of a parameter of `size` values, a thread's beside its neighbours'.
template <typename A>
Tensor partial_gradient(const Tensor& like, const FrameBlocks& grid, bool wanted, int64_t size) {
  return torch::stable::new_empty(like, {wanted ? grid.blocks : 0, size, grid.threads},
                                  kAccumulated<A>);
}
inline Tensor summed(const Tensor& partial) {
  const int64_t over[] = {2, 0};
  return torch::stable::sum(partial, {{over, size_t{2}}});
}

// Bytes of a frame's rows of `columns` values each.
template <typename A>
int64_t row_bytes(std::initializer_list<int64_t> columns) {
  int64_t bytes = 0;
  for (const int64_t width : columns) bytes += row_stride(static_cast<int>(width)) * sizeof(A);
  return bytes;
}

}  // namespace skelops
