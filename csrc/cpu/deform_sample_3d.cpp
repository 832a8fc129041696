// deform_sample_3d: a task owns one sample and group, so that the gradient of its volume is summed
// in order. The corners of all points of a query are looked up first; channels then run in vectors.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr int kCorners = 8;

struct VolumeShape {
  VolumeShape(const char* op, const Tensor& value, const Tensor& loc, const OptionalTensor& weight,
              bool zeros)
      : zeros(zeros) {
    SKELOPS_CHECK(value.dim() == 6 && loc.dim() == 5, op,
                  "value (N, T, H, W, G, C) and loc (N, Q, G, P, 3)");
    batch = value.size(0), groups = value.size(4), channels = value.size(5);
    for (int axis = 0; axis < 3; ++axis) size[axis] = value.size(1 + axis);
    queries = loc.size(1), points = loc.size(3);
    SKELOPS_CHECK(std::min({size[0], size[1], size[2]}) > 0, op, "value with at least one cell");
    SKELOPS_CHECK(loc.size(0) == batch && loc.size(2) == groups && loc.size(4) == 3, op,
                  "loc of shape (N, Q, G, P, 3)");
    SKELOPS_CHECK(!weight.has_value() || weight->numel() == loc.numel() / 3, op,
                  "weight of shape (N, Q, G, P)");
  }

  int64_t cells() const { return size[0] * size[1] * size[2]; }
  // Of the points of a query.
  int64_t place(int64_t n, int64_t q, int64_t g) const {
    return ((n * queries + q) * groups + g) * points;
  }

  int64_t batch, size[3], groups, channels, queries, points;
  bool zeros;
};

// The cells below and above a place along one axis: their shares of a sample, and the slopes.
template <typename A>
struct Axis {
  Axis(A x, int64_t size, bool zeros) {
    const A low = zeros ? A(-1) : A(0), high = static_cast<A>(zeros ? size : size - 1);
    const A inside = x >= low && x <= high ? A(1) : A(0);
    const A held = x < low ? low : x > high ? high : x;
    const int64_t below = static_cast<int64_t>(std::floor(held >= low ? held : low));  // NaN
    const A part = held - static_cast<A>(below);
    share[0] = A(1) - part, share[1] = part;
    slope[0] = -inside, slope[1] = inside;
    for (int side = 0; side < 2; ++side) {
      const int64_t at = below + side;
      cell[side] = std::clamp<int64_t>(at, 0, size - 1);
      if (zeros && cell[side] != at) share[side] = slope[side] = 0;
    }
  }

  int64_t cell[2];
  A share[2], slope[2];
};

template <typename A>
struct Place {
  Place(const VolumeShape& s, const A* loc)
      : axis{{loc[0], s.size[0], s.zeros},
             {loc[1], s.size[1], s.zeros},
             {loc[2], s.size[2], s.zeros}} {
    for (int k = 0; k < kCorners; ++k) {
      const int t = k >> 2, y = k >> 1 & 1, x = k & 1;
      cell[k] = (axis[0].cell[t] * s.size[1] + axis[1].cell[y]) * s.size[2] + axis[2].cell[x];
      share[k] = axis[0].share[t] * axis[1].share[y] * axis[2].share[x];
    }
  }

  // The derivative by the place of sum_k share[k] by_corner[k].
  void slope(const A* by_corner, A scale, A* to) const {
    A sum[3] = {};
    for (int k = 0; k < kCorners; ++k) {
      const int t = k >> 2, y = k >> 1 & 1, x = k & 1;
      sum[0] += by_corner[k] * (axis[0].slope[t] * axis[1].share[y] * axis[2].share[x]);
      sum[1] += by_corner[k] * (axis[0].share[t] * axis[1].slope[y] * axis[2].share[x]);
      sum[2] += by_corner[k] * (axis[0].share[t] * axis[1].share[y] * axis[2].slope[x]);
    }
    for (int a = 0; a < 3; ++a) to[a] = sum[a] * scale;
  }

  Axis<A> axis[3];
  int64_t cell[kCorners];
  A share[kCorners];
};

// The cells of one sample and group: in place, or converted.
template <typename T>
class Cells {
 public:
  using A = Accumulate<T>;
  static constexpr bool kInPlace = std::is_same_v<T, A>;

  explicit Cells(const VolumeShape& s) : s_(s), converted_(kInPlace ? 0 : s.cells() * s.channels) {}

  int64_t stride() const { return kInPlace ? s_.groups * s_.channels : s_.channels; }

  A* open(T* values, int64_t n, int64_t g) const {
    if constexpr (kInPlace) {
      return first(values, n, g);
    } else {
      return converted_.get();
    }
  }

  const A* read(const T* values, int64_t n, int64_t g) const {
    A* to = open(const_cast<T*>(values), n, g);
    if constexpr (!kInPlace) {
      const T* from = first(values, n, g);
      for (int64_t i = 0; i < s_.cells(); ++i) {
        convert(from + i * s_.groups * s_.channels, to + i * s_.channels, s_.channels);
      }
    }
    return to;
  }

  void zero(A* cells) const {
    for (int64_t i = 0; i < s_.cells(); ++i) std::fill_n(cells + i * stride(), s_.channels, A(0));
  }

  void close(T* values, int64_t n, int64_t g) const {
    if constexpr (!kInPlace) {
      T* to = first(values, n, g);
      for (int64_t i = 0; i < s_.cells(); ++i) {
        convert(converted_.get() + i * s_.channels, to + i * s_.groups * s_.channels, s_.channels);
      }
    }
  }

 private:
  template <typename P>
  P* first(P* values, int64_t n, int64_t g) const {
    return values + (n * s_.cells() * s_.groups + g) * s_.channels;
  }

  const VolumeShape& s_;
  const Scratch<A> converted_;
};

// y[c] = sum over corners of share * row[c], for NV vectors of channels.
template <typename A, int NV>
void add_up(const A* const* row, const A* share, int64_t corners, int64_t c, A* y, int tail) {
  using S = Simd<A>;
  typename S::Vec sum[NV] = {};
  for (int64_t k = 0; k < corners; ++k) {
    const A* from = row[k] + c;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const auto x = NV == 1 && tail ? S::load(from, tail) : S::load(from + j * S::kLanes);
      sum[j] += x * share[k];
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) {
    if (NV == 1 && tail) {
      S::store(y + c, sum[j], tail);
    } else {
      S::store(y + c + j * S::kLanes, sum[j]);
    }
  }
}

template <typename T>
Tensor forward(const Tensor& value, const Tensor& loc, const OptionalTensor& weight, bool zeros) {
  using A = Accumulate<T>;
  constexpr int64_t kLanes = Simd<A>::kLanes;
  const VolumeShape s("deform_sample_3d", value, loc, weight, zeros);
  const Tensor volume = as_contiguous(value);
  const Parameter<A> places(loc), weights(weight);
  Tensor out = new_tensor<T>(value, {s.batch, s.queries, s.groups, s.channels});
  parallel(s.batch * s.groups, [&](int64_t task) {
    const int64_t n = task / s.groups, g = task % s.groups, corners = kCorners * s.points;
    const Cells<T> cells(s);
    const A* from = cells.read(data<T>(volume), n, g);
    const Scratch<const A*> row(corners);
    const Scratch<A> share(corners), converted(cells.kInPlace ? 0 : s.channels);
    for (int64_t q = 0; q < s.queries; ++q) {
      const int64_t at = s.place(n, q, g);
      for (int64_t p = 0; p < s.points; ++p) {
        const Place<A> place(s, places.data() + (at + p) * 3);
        const A scale = weights.present() ? weights.data()[at + p] : A(1);
        for (int k = 0; k < kCorners; ++k) {
          row[p * kCorners + k] = from + place.cell[k] * cells.stride();
          share[p * kCorners + k] = place.share[k] * scale;
        }
      }
      T* to = data<T>(out) + ((n * s.queries + q) * s.groups + g) * s.channels;
      A* y = cells.kInPlace ? reinterpret_cast<A*>(to) : converted.get();
      int64_t c = 0;
      for (; c + 4 * kLanes <= s.channels; c += 4 * kLanes) {
        add_up<A, 4>(row.get(), share.get(), corners, c, y, 0);
      }
      for (; c < s.channels; c += kLanes) {
        const int64_t left = s.channels - c;
        add_up<A, 1>(row.get(), share.get(), corners, c, y, left < kLanes ? int(left) : 0);
      }
      if (!cells.kInPlace) convert(y, to, s.channels);
    }
  });
  return out;
}

// Products of grad with the corners of a place, and (unless it is null) grad into their gradients.
template <typename A>
void corners_of(const A* grad, const A* cells, A* dcells, int64_t stride, const Place<A>& place,
                A scale, int64_t channels, A* products) {
  using S = Simd<A>;
  typename S::Vec sum[kCorners] = {};
  const auto step = [&](int64_t c, int lanes) {
    const auto g = load_some(grad + c, lanes);
#pragma GCC unroll 8
    for (int k = 0; k < kCorners; ++k) {
      sum[k] += g * load_some(cells + place.cell[k] * stride + c, lanes);
    }
    if (dcells == nullptr) return;
#pragma GCC unroll 8
    for (int k = 0; k < kCorners; ++k) {
      A* to = dcells + place.cell[k] * stride + c;
      S::store(to, load_some(to, lanes) + g * (place.share[k] * scale), lanes);
    }
  };
  int64_t c = 0;
  for (; c + S::kLanes <= channels; c += S::kLanes) step(c, S::kLanes);
  if (c < channels) step(c, static_cast<int>(channels - c));
  for (int k = 0; k < kCorners; ++k) products[k] = S::sum(sum[k]);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& value, const Tensor& loc,
                   const OptionalTensor& weight, bool zeros, int64_t needs) {
  using A = Accumulate<T>;
  const VolumeShape s("deform_sample_3d_backward", value, loc, weight, zeros);
  SKELOPS_CHECK(grad.numel() == s.batch * s.queries * s.groups * s.channels,
                "deform_sample_3d_backward", "grad of shape (N, Q, G, C)");
  const Tensor volume = as_contiguous(value);
  const Parameter<A> places(loc), weights(weight);
  const Samples<T> grads(grad);
  const bool want_value = wants(needs, 0), want_loc = wants(needs, 1),
             want_weight = wants(needs, 2);
  Tensor dvalue =
      want_value
          ? new_tensor<T>(value, {s.batch, s.size[0], s.size[1], s.size[2], s.groups, s.channels})
          : no_gradient(value);
  const int64_t points = s.batch * s.queries * s.groups * s.points;
  std::vector<A> dloc(want_loc ? 3 * points : 0), dweight(want_weight ? points : 0);
  parallel(s.batch * s.groups, [&](int64_t task) {
    const int64_t n = task / s.groups, g = task % s.groups;
    const Cells<T> cells(s), dcells(s);
    const A* from = cells.read(data<T>(volume), n, g);
    A* to = want_value ? dcells.open(data<T>(dvalue), n, g) : nullptr;
    if (want_value) dcells.zero(to);
    const Scratch<A> converted(grads.kInPlace ? 0 : s.channels);
    for (int64_t q = 0; q < s.queries; ++q) {
      const int64_t at = s.place(n, q, g);
      const A* dout = grads.get(n, (q * s.groups + g) * s.channels, s.channels, converted.get());
      for (int64_t p = at; p < at + s.points; ++p) {
        const Place<A> place(s, places.data() + p * 3);
        const A scale = weights.present() ? weights.data()[p] : A(1);
        A products[kCorners];
        corners_of(dout, from, to, cells.stride(), place, scale, s.channels, products);
        if (want_loc) place.slope(products, scale, dloc.data() + p * 3);
        if (want_weight) {
          for (int k = 0; k < kCorners; ++k) dweight[p] += place.share[k] * products[k];
        }
      }
    }
    if (want_value) dcells.close(data<T>(dvalue), n, g);
  });
  return {dvalue, want_loc ? gradient_of(loc, dloc) : no_gradient(value),
          want_weight ? gradient_of(*weight, dweight) : no_gradient(value)};
}

Tensor deform_sample_3d(Tensor value, Tensor loc, OptionalTensor weight, bool zeros) {
  return dispatch(value, "deform_sample_3d",
                  [&](auto type) { return forward<decltype(type)>(value, loc, weight, zeros); });
}

Gradients deform_sample_3d_backward(Tensor grad, Tensor value, Tensor loc, OptionalTensor weight,
                                    bool zeros, int64_t needs) {
  return dispatch(value, "deform_sample_3d_backward", [&](auto type) {
    return backward<decltype(type)>(grad, value, loc, weight, zeros, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("deform_sample_3d", TORCH_BOX(&deform_sample_3d));
  m.impl("deform_sample_3d_backward", TORCH_BOX(&deform_sample_3d_backward));
}

}  // namespace skelops
