// What the kernels on trees of bodies share: the tree's tables, and frames in the lanes of
// registers.
#pragma once

#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "math/rigid_body.h"

namespace skelops {

using Ints = std::vector<int64_t>;

// The tree in the accumulation type.
template <typename A>
class TreeTables {
 public:
  // `every_inertia`: bodies without an inertia want its gradient as well.
  TreeTables(const char* op, const OptionalTensor& inertia, const Tensor& offset,
             const Tensor& axis, const Ints& parent, const Ints& joint, bool every_inertia = false)
      : size_(static_cast<int>(parent.size())),
        offset_(parameter<A>(offset)),
        axis_(parameter<A>(axis)),
        inertia_(inertia ? parameter<A>(inertia) : std::vector<A>(size_ * kInertiaSize)) {
    SKELOPS_CHECK(joint.size() == parent.size() && offset_.size() == 3 * parent.size() &&
                      axis_.size() == offset_.size() &&
                      inertia_.size() == kInertiaSize * parent.size(),
                  op, "as many parents, joints, offsets, axes and inertias");
    for (int i = 0; i < size_; ++i) {
      SKELOPS_CHECK(parent[i] >= -1 && parent[i] < i, op, "every parent before its body");
      parent_.push_back(static_cast<int>(parent[i]));
      kind_.push_back(
          joint_kind(joint[i] == 1, &axis_[3 * i], &offset_[3 * i], &inertia_[kInertiaSize * i]) |
          (every_inertia ? kMassive : 0));
    }
    for (int i = 0; i < size_; ++i) {
      if (branches(parent_.data(), size_, i)) kind_[i] |= kBranches;
    }
  }

  TreeView<A> view() const {
    return {size_, parent_.data(), kind_.data(), axis_.data(), offset_.data(), inertia_.data()};
  }

 private:
  int size_;
  std::vector<int> parent_, kind_;
  std::vector<A> offset_, axis_, inertia_;
};

// Rows and columns of the entries of a packed mass matrix.
struct Pattern {
  Pattern(const int* parent, int n) : begin(n + 1) {
    for (int i = 0; i < n; ++i) {
      const int depth = parent[i] < 0 ? 0 : begin[parent[i] + 1] - begin[parent[i]];
      begin[i + 1] = begin[i] + depth + 1;
      row.resize(begin[i + 1], i), column.resize(begin[i + 1]);
      for (int j = i, at = begin[i + 1] - 1; j >= 0; j = parent[j], --at) column[at] = j;
    }
  }
  int64_t size() const { return static_cast<int64_t>(row.size()); }
  std::vector<int> begin, row, column;
};

template <typename A>
using Lanes = typename Simd<A>::Vec;

// The frames of one register.
template <typename A>
struct Block {
  int64_t begin, count, slice;
  Lanes<A>* scratch;
};

// What fills the lanes beyond the last frame: a frame again (whose arithmetic is as good as any),
// or zeros, as gradients have to be.
enum class Spare { kRepeat, kZero };

// Rows of values, one per frame; absent ones read as zeros.
template <typename T>
class FrameRows {
 public:
  using A = Accumulate<T>;
  static constexpr int kLanes = Simd<A>::kLanes;

  FrameRows(const char* op, const OptionalTensor& t, int64_t frames, int64_t width)
      : tensor_(t ? OptionalTensor(as_contiguous(*t)) : t),
        data_(t ? static_cast<const T*>(tensor_->data_ptr()) : nullptr),
        width_(width) {
    SKELOPS_CHECK(!t || t->numel() == frames * width, op, "rows of one width, one per frame");
  }

  void load(const Block<A>& block, Lanes<A>* out, Spare spare = Spare::kRepeat) const {
    if (!data_) {
      std::fill_n(out, width_, Lanes<A>{});
      return;
    }
    const T* from = data_ + block.begin * width_;
    if constexpr (std::is_same_v<T, A>) {
      if (block.count == kLanes) {
        transpose(from, kLanes, width_, reinterpret_cast<A*>(out));
        return;
      }
    }
    for (int64_t k = 0; k < kLanes; ++k) {
      const T* row = from + std::min(k, block.count - 1) * width_;
      const bool zero = k >= block.count && spare == Spare::kZero;
      for (int64_t i = 0; i < width_; ++i) out[i][k] = zero ? A(0) : static_cast<A>(row[i]);
    }
  }

 private:
  OptionalTensor tensor_;
  const T* data_;
  int64_t width_;
};

template <typename T>
void store_rows(const Block<Accumulate<T>>& block, const Lanes<Accumulate<T>>* values,
                int64_t width, const Tensor& to) {
  using A = Accumulate<T>;
  T* out = data<T>(to) + block.begin * width;
  if constexpr (std::is_same_v<T, A>) {
    if (block.count == Simd<A>::kLanes) {
      transpose(reinterpret_cast<const A*>(values), width, Simd<A>::kLanes, out);
      return;
    }
  }
  for (int64_t k = 0; k < block.count; ++k) {
    for (int64_t i = 0; i < width; ++i) out[k * width + i] = static_cast<T>(values[i][k]);
  }
}

// How many registers the frames fill.
template <typename A>
int64_t registers(int64_t frames) {
  return (frames + Simd<A>::kLanes - 1) / Simd<A>::kLanes;
}

// function(block) for every register of frames, with scratch of so many registers. A slice is done
// in order by one thread.
template <typename A, typename F>
void over_frames(int64_t frames, const Slices& slices, int64_t scratch, const F& function) {
  constexpr int64_t kLanes = Simd<A>::kLanes;
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<Lanes<A>> memory(scratch);
    for (int64_t i = slices.begin(slice); i < slices.end(slice); ++i) {
      const int64_t begin = i * kLanes;
      function(Block<A>{begin, std::min(kLanes, frames - begin), slice, memory.get()});
    }
  });
}

// The sum over a slice of every lane's share of a parameter's gradient.
template <typename A>
class LanePartials {
 public:
  LanePartials(const Slices& slices, int64_t size) : size_(size), lanes_(slices.count * size) {
    std::fill(lanes_.begin(), lanes_.end(), Lanes<A>{});
  }

  Lanes<A>* slice(int64_t i) { return lanes_.data() + i * size_; }

  std::vector<A> total() const {
    std::vector<A> sum(size_);
    for (size_t i = 0; i < lanes_.size(); ++i) sum[i % size_] += Simd<A>::sum(lanes_[i]);
    return sum;
  }

 private:
  int64_t size_;
  std::vector<Lanes<A>> lanes_;
};

template <typename A>
Vec3<Lanes<A>> minus_gravity(const OptionalTensor& gravity) {
  const std::vector<A> g = gravity ? parameter<A>(gravity) : std::vector<A>(3);
  const Lanes<A> zero{};
  return {zero - g[0], zero - g[1], zero - g[2]};
}

}  // namespace skelops
