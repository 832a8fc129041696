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

  Wanted(const Tensor& like, bool wanted, std::vector<int64_t> shape,
         std::optional<ScalarType> dtype = std::nullopt)
      : tensor(torch::stable::new_empty(like, wanted ? shape : std::vector<int64_t>{0}, dtype)),
        wanted(wanted) {}
  template <typename T>
  T* get() const {
    return wanted ? output<T>(tensor) : nullptr;
  }
};

// The gradients of frames in motion, but for those to the inertia.
struct WantedMotion {
  Wanted q, qd, drive, wrench;

  WantedMotion(const Tensor& like, int64_t needs)
      : q(like, wants(needs, 0), {like.size(0), like.size(1)}),
        qd(like, wants(needs, 1), {like.size(0), like.size(1)}),
        drive(like, wants(needs, 2), {like.size(0), like.size(1)}),
        wrench(like, wants(needs, 3), {like.size(0), like.size(1), 6}) {}
  template <typename T>
  MotionGrads<T> with(const Wanted& inertia) const {
    return {q.get<T>(), qd.get<T>(), drive.get<T>(), wrench.get<T>(), inertia.get<acc_t<T>>()};
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

// A kernel over the frames of a batch. As many frames to a block as find room in shared memory,
// rows of `columns` values beside `common` bytes; as many blocks as run at once; to every thread
// `slots` values of working memory.
template <typename Batch, typename... Args>
class FrameLaunch {
  using acc = typename Batch::acc;

 public:
  FrameLaunch(void (*kernel)(Batch, Args...), const Tensor& like, int64_t common,
              std::initializer_list<int64_t> columns, int64_t slots)
      : device_(like), kernel_(kernel), like_(like), slots_(slots) {
    int64_t frame = 0;
    for (const int64_t width : columns) frame += row_stride(static_cast<int>(width)) * sizeof(acc);
    while (common + threads_ * frame > kSharedBytes && threads_ > 1) threads_ /= 2;
    shared_bytes_ = static_cast<int>(common + threads_ * frame);
    int multiprocessors = 1, resident = 1;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                           like.get_device_index());
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads_, shared_bytes_);
    const int64_t tiles = (like.size(0) + threads_ - 1) / threads_;
    blocks_ = static_cast<int>(std::min(tiles, int64_t{multiprocessors} * std::max(resident, 1)));
  }

  // Partial gradients of a parameter of `size` values, a thread's beside its neighbours'.
  Wanted partial(bool wanted, int64_t size) const {
    return {like_, wanted, {blocks_, size, threads_}, kAccumulated<acc>};
  }

  void operator()(Batch batch, Args... args) const {
    if (batch.frames == 0) return;
    const int64_t values = int64_t{blocks_} * threads_ * slots_;
    const Tensor memory = torch::stable::new_empty(like_, {values}, kAccumulated<acc>);
    batch.scratch = output<acc>(memory);
    kernel_<<<blocks_, threads_, shared_bytes_, device_.stream()>>>(batch, args...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  LaunchOn device_;
  void (*kernel_)(Batch, Args...);
  Tensor like_;
  int64_t slots_;
  int threads_ = kFrameThreads, blocks_, shared_bytes_;
};

inline Tensor summed(const Wanted& partial) {
  if (!partial.wanted) return partial.tensor;
  const int64_t over[] = {2, 0};
  return torch::stable::sum(partial.tensor, {{over, size_t{2}}});
}

}  // namespace skelops
