// anchor_regression: one pass over the anchors. A tile of them is split into planes, one per
// coordinate, so that a vector holds joints; the maximum of a softmax moves once per tile.
#include <array>
#include <limits>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/exp2.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr const char* kOp = "anchor_regression";
constexpr int64_t kTile = 64;    // anchors
constexpr int64_t kPart = 2048;  // anchors of a task: few enough for one sample to fill some cores
constexpr double kLog2e = 1.4426950408889634;

struct Sizes {
  int64_t batch, anchors, joints, coordinates;
  bool has_extra, shared;  // anchors of all samples

  int64_t parts() const { return (anchors + kPart - 1) / kPart; }
  int64_t width() const { return 2 * coordinates + has_extra; }
};

Sizes sizes_of(const Tensor& logits, const Tensor& offset, const Tensor& anchors,
               const OptionalTensor& extra) {
  SKELOPS_CHECK(logits.dim() == 3 && offset.dim() == 4, kOp, "logits (N, A, V), offset 4-D");
  const Sizes s{logits.size(0), logits.size(1),    logits.size(2),
                offset.size(3), extra.has_value(), anchors.dim() == 2};
  const int64_t rows = s.shared ? s.anchors : s.batch * s.anchors;
  const bool same = offset.scalar_type() == logits.scalar_type() &&
                    (!extra || extra->scalar_type() == logits.scalar_type());
  SKELOPS_CHECK(same && offset.numel() == logits.numel() * s.coordinates &&
                    (s.coordinates == 2 || s.coordinates == 3) && s.anchors > 0 &&
                    anchors.numel() == rows * s.coordinates &&
                    (!extra || extra->numel() == logits.numel()),
                kOp, "tensors of (N, A, V), D = 2 or 3");
  return s;
}

// (rows, D) -> D rows.
template <int D, typename A>
void split(const A* from, int64_t count, A* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int d = 0; d < D; ++d) to[d * count + i] = from[i * D + d];
  }
}

template <int D, typename A>
void join(const A* from, int64_t count, A* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int d = 0; d < D; ++d) to[i * D + d] = from[d * count + i];
  }
}

// What all anchors say about the joints of a sample, read a tile at a time.
template <typename T, int D>
class Tiles {
 public:
  using A = Accumulate<T>;

  Tiles(const Samples<T>& logits, const Samples<T>& offset, const Samples<T>* extra,
        const A* anchors, const Sizes& s)
      : logits_(logits),
        offset_(offset),
        extra_(extra),
        anchors_(anchors),
        s_(s),
        scratch_(kTile * s.joints * (2 * D + 2)) {}

  void read(int64_t n, int64_t begin, int64_t end) {
    const int64_t at = begin * s_.joints, count = (end - begin) * s_.joints;
    A* to = scratch_.get();
    logits = logits_.get(n, at, count, to);
    extra = extra_ ? extra_->get(n, at, count, to + count) : nullptr;
    A* planes = to + 2 * count;
    split<D>(offset_.get(n, at * D, count * D, planes + D * count), count, planes);
    for (int d = 0; d < D; ++d) offset[d] = planes + d * count;
    anchor = anchors_ + ((s_.shared ? 0 : n * s_.anchors) + begin) * D;
  }

  const A *logits, *extra, *anchor;  // (rows, V), the same, (rows, D)
  const A* offset[D];                // (rows, V) each

 private:
  const Samples<T>&logits_, &offset_;
  const Samples<T>* extra_;
  const A* anchors_;
  Sizes s_;
  Scratch<A> scratch_;
};

// Sums over some anchors for a vector of joints.
template <typename A, int D>
struct Sums {
  using Vec = typename Simd<A>::Vec;
  static constexpr int kCount = 2 * D + 2;

  Vec top = Vec{} + std::numeric_limits<A>::lowest();
  Vec sum[kCount] = {};  // of weights; times anchor and offset; anchor; extra

  void raise(Vec above) {
    const Vec factor = exp2_nonpositive((top - above) * static_cast<A>(kLog2e));
    for (Vec& s : sum) s *= factor;
    top = above;
  }

  void merge(Sums other) {
    const Vec above = other.top > top ? other.top : top;
    raise(above);
    other.raise(above);
    for (int i = 0; i < kCount; ++i) sum[i] += other.sum[i];
  }
};

template <typename T, int D>
void accumulate(const Tiles<T, D>& tile, int64_t rows, int64_t joints, int64_t v, int lanes,
                Sums<Accumulate<T>, D>& sums) {
  using A = Accumulate<T>;
  using Vec = typename Simd<A>::Vec;
  Vec top = sums.top;
  for (int64_t r = 0; r < rows; ++r) {
    const Vec l = load_some(tile.logits + r * joints + v, lanes);
    top = l > top ? l : top;
  }
  sums.raise(top);
  Vec total = {}, joint[D] = {}, mean[D] = {}, extra = {};
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * joints + v;
    const Vec l = load_some(tile.logits + at, lanes);
    const Vec w = exp2_nonpositive((l - top) * static_cast<A>(kLog2e));
    total += w;
    for (int d = 0; d < D; ++d) {
      const A anchor = tile.anchor[r * D + d];
      joint[d] += w * (load_some(tile.offset[d] + at, lanes) + anchor);
      mean[d] += w * anchor;
    }
    if (tile.extra) extra += w * load_some(tile.extra + at, lanes);
  }
  sums.sum[0] += total;
  for (int d = 0; d < D; ++d) sums.sum[1 + d] += joint[d], sums.sum[1 + D + d] += mean[d];
  sums.sum[1 + 2 * D] += extra;
}

template <typename A, int D>
void write(const Sums<A, D>& sums, const Sizes& s, int64_t v, int lanes, A* out, A* lse) {
  for (int j = 0; j < lanes; ++j) {
    A* to = out + (v + j) * s.width();
    const A total = sums.sum[0][j];
    for (int d = 0; d < D; ++d) *to++ = sums.sum[1 + d][j] / total;
    if (s.has_extra) *to++ = sums.sum[1 + 2 * D][j] / total;
    for (int d = 0; d < D; ++d) *to++ = sums.sum[1 + D + d][j] / total;
    lse[v + j] = sums.top[j] + std::log(total);
  }
}

template <typename T, int D>
std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& offset,
                                   const Tensor& anchors, const OptionalTensor& extra,
                                   const Sizes& s) {
  using A = Accumulate<T>;
  constexpr int kLanes = Simd<A>::kLanes;
  const Samples<T> l(logits), o(offset);
  const std::optional<Samples<T>> e =
      extra ? std::optional<Samples<T>>(std::in_place, *extra) : std::nullopt;
  const Parameter<A> a{anchors};
  Tensor out = new_tensor<A>(logits, {s.batch, s.joints, s.width()});
  Tensor lse = new_tensor<A>(logits, {s.batch, s.joints});
  const int64_t columns = (s.joints + kLanes - 1) / kLanes;
  std::vector<Sums<A, D>> sums(s.batch * s.parts() * columns);
  parallel(s.batch * s.parts(), [&](int64_t task) {
    const int64_t n = task / s.parts(), part = task % s.parts();
    const int64_t last = std::min((part + 1) * kPart, s.anchors);
    Tiles<T, D> tile(l, o, e ? &*e : nullptr, a.data(), s);
    for (int64_t begin = part * kPart; begin < last; begin += kTile) {
      const int64_t rows = std::min(kTile, last - begin);
      tile.read(n, begin, begin + rows);
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t v = c * kLanes;
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.joints - v));
        accumulate(tile, rows, s.joints, v, lanes, sums[task * columns + c]);
      }
    }
  });
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t c = 0; c < columns; ++c) {
      Sums<A, D> whole;
      for (int64_t p = 0; p < s.parts(); ++p) {
        whole.merge(sums[(n * s.parts() + p) * columns + c]);
      }
      const int64_t v = c * kLanes;
      const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.joints - v));
      write(whole, s, v, lanes, data<A>(out) + n * s.joints * s.width(),
            data<A>(lse) + n * s.joints);
    }
  }
  return {out, lse};
}

// Results of a sample and their gradients, as rows of joints.
template <typename A, int D>
struct Column {
  using Vec = typename Simd<A>::Vec;

  Column(const A* grad, const A* out, const A* lse, const Sizes& s, int64_t v, int lanes) {
    for (int j = 0; j < lanes; ++j) {
      const int64_t at = (v + j) * s.width();
      const A *g = grad + at, *y = out + at;
      shift[j] = lse[v + j];
      for (int d = 0; d < D; ++d) {
        joint_grad[d][j] = *g++;
        joint[d][j] = *y++;
      }
      if (s.has_extra) extra_grad[j] = *g++, extra[j] = *y++;
      for (int d = 0; d < D; ++d) {
        mean_grad[d][j] = *g++;
        mean[d][j] = *y++;
      }
    }
  }

  Vec shift = {}, joint[D] = {}, mean[D] = {}, extra = {};
  Vec joint_grad[D] = {}, mean_grad[D] = {}, extra_grad = {};
};

// Gradients of a tile, as planes.
template <typename T, int D>
class GradTile {
 public:
  using A = Accumulate<T>;

  explicit GradTile(const Sizes& s)
      : joints_(s.joints), scratch_(kTile * s.joints * (2 * D + 2) + kTile * D) {}

  void clear(int64_t rows) {
    count_ = rows * joints_;
    A* to = scratch_.get();
    logits = to, extra = to + count_, joined_ = to + 2 * count_;
    for (int d = 0; d < D; ++d) offset[d] = to + (2 + D + d) * count_;
    anchor = to + (2 + 2 * D) * count_;
    std::fill_n(anchor, rows * D, A(0));
  }

  void write(T* to_logits, T* to_offset, T* to_extra) const {
    if (to_logits) stream_as(logits, to_logits, count_);
    if (to_extra) stream_as(extra, to_extra, count_);
    if (!to_offset) return;
    join<D>(offset[0], count_, joined_);
    stream_as(joined_, to_offset, count_ * D);
  }

  A *logits, *extra, *anchor;
  A* offset[D];

 private:
  int64_t joints_, count_ = 0;
  A* joined_ = nullptr;
  Scratch<A> scratch_;
};

template <typename T, int D>
void differentiate(const Tiles<T, D>& tile, const Column<Accumulate<T>, D>& of, int64_t rows,
                   int64_t joints, int64_t v, int lanes, bool want_anchor, GradTile<T, D>& to) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  using Vec = typename S::Vec;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * joints + v;
    const Vec l = load_some(tile.logits + at, lanes);
    const Vec w = exp2_nonpositive((l - of.shift) * static_cast<A>(kLog2e));
    Vec slope = {};
    for (int d = 0; d < D; ++d) {
      const Vec here = load_some(tile.offset[d] + at, lanes) + tile.anchor[r * D + d];
      slope += of.joint_grad[d] * (here - of.joint[d]);
      slope += of.mean_grad[d] * (tile.anchor[r * D + d] - of.mean[d]);
      S::store(to.offset[d] + at, w * of.joint_grad[d], lanes);
      if (want_anchor) {
        // Lanes behind the last joint have gradients of zero.
        to.anchor[r * D + d] += S::sum(w * (of.joint_grad[d] + of.mean_grad[d]));
      }
    }
    if (tile.extra) {
      slope += of.extra_grad * (load_some(tile.extra + at, lanes) - of.extra);
      S::store(to.extra + at, w * of.extra_grad, lanes);
    }
    S::store(to.logits + at, w * slope, lanes);
  }
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <typename T, int D>
Gradients backward(const Tensor& grad, const Tensor& logits, const Tensor& offset,
                   const Tensor& anchors, const OptionalTensor& extra, const Tensor& out,
                   const Tensor& lse, int64_t needs, const Sizes& s) {
  using A = Accumulate<T>;
  constexpr int kLanes = Simd<A>::kLanes;
  const Samples<T> l(logits), o(offset);
  const std::optional<Samples<T>> e =
      extra ? std::optional<Samples<T>>(std::in_place, *extra) : std::nullopt;
  const Parameter<A> a{anchors};
  const Samples<A> grads(grad), outs(out), shifts(lse);
  const bool want_anchor = wants(needs, 2);
  const auto gradient = [&](int i, const Tensor& like) {
    return wants(needs, i) ? new_tensor<T>(like, {like.sizes().begin(), like.sizes().end()})
                           : no_gradient(logits);
  };
  Tensor dlogits = gradient(0, logits), doffset = gradient(1, offset);
  Tensor dextra = extra ? gradient(3, *extra) : no_gradient(logits);
  const int64_t row = s.anchors * D;
  std::vector<A> danchor(want_anchor ? s.batch * row : 0);
  parallel(s.batch * s.parts(), [&](int64_t task) {
    const int64_t n = task / s.parts(), part = task % s.parts();
    const int64_t last = std::min((part + 1) * kPart, s.anchors);
    Tiles<T, D> tile(l, o, e ? &*e : nullptr, a.data(), s);
    GradTile<T, D> to(s);
    for (int64_t begin = part * kPart; begin < last; begin += kTile) {
      const int64_t rows = std::min(kTile, last - begin);
      tile.read(n, begin, begin + rows);
      to.clear(rows);
      for (int64_t v = 0; v < s.joints; v += kLanes) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, s.joints - v));
        const Column<A, D> of(grads.raw(n), outs.raw(n), shifts.raw(n), s, v, lanes);
        differentiate(tile, of, rows, s.joints, v, lanes, want_anchor, to);
      }
      const int64_t at = (n * s.anchors + begin) * s.joints;
      to.write(wants(needs, 0) ? data<T>(dlogits) + at : nullptr,
               wants(needs, 1) ? data<T>(doffset) + at * D : nullptr,
               extra && wants(needs, 3) ? data<T>(dextra) + at : nullptr);
      if (want_anchor) std::copy_n(to.anchor, rows * D, danchor.data() + n * row + begin * D);
    }
    stream_end();
  });
  if (!want_anchor) return {dlogits, doffset, no_gradient(logits), dextra};
  if (s.shared) {
    std::vector<A> total(row);
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t i = 0; i < row; ++i) total[i] += danchor[n * row + i];
    }
    danchor = std::move(total);
  }
  return {dlogits, doffset, gradient_of(anchors, danchor), dextra};
}

std::tuple<Tensor, Tensor> anchor_regression(Tensor logits, Tensor offset, Tensor anchors,
                                             OptionalTensor extra) {
  const Sizes s = sizes_of(logits, offset, anchors, extra);
  return dispatch(logits, kOp, [&](auto type) {
    using T = decltype(type);
    return s.coordinates == 2 ? forward<T, 2>(logits, offset, anchors, extra, s)
                              : forward<T, 3>(logits, offset, anchors, extra, s);
  });
}

Gradients anchor_regression_backward(Tensor grad, Tensor logits, Tensor offset, Tensor anchors,
                                     OptionalTensor extra, Tensor out, Tensor lse, int64_t needs) {
  const Sizes s = sizes_of(logits, offset, anchors, extra);
  return dispatch(logits, kOp, [&](auto type) {
    using T = decltype(type);
    const auto run = s.coordinates == 2 ? backward<T, 2> : backward<T, 3>;
    return run(grad, logits, offset, anchors, extra, out, lse, needs, s);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("anchor_regression", TORCH_BOX(&anchor_regression));
  m.impl("anchor_regression_backward", TORCH_BOX(&anchor_regression_backward));
}

}  // namespace skelops
