// Convolutions over frames with fewer multiplications (Toom and Cook; Winograd, SIAM 1980): three
// taps and four frames meet at the six points 0, +-3/4, +-3/2 and infinity, which takes six
// products in place of twelve. Longer kernels are sums of such ones, three taps apart; those with a
// stride convolve every stride-th frame with every stride-th tap, as channels of their own. At
// these points rounding errors are about four times those of the direct sum; the largest ones are
// half of those at 0, +-1, +-2.
#pragma once

#include <array>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {

constexpr int kPoints = 6, kTileFrames = 4, kGroupTaps = 3;
constexpr int64_t kRowsInCache = 192;  // of a panel of two vectors, beside a block of weights
constexpr double kInner = 0.75, kOuter = 1.5;  // the points are 0, +-kInner, +-kOuter, infinity

// y[t] = sum_j w[j] x[stride t + j - left] for t < frames, of x between zeros.
struct FrameConv {
  int64_t inputs, outputs, taps, stride, left, in_frames, frames, joints;
};

template <typename A>
class ShortConv {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  // Of `samples` samples at a time.
  ShortConv(const FrameConv& f, int64_t samples)
      : conv_(f),
        inputs_(f.inputs * f.stride),
        groups_(((f.taps + f.stride - 1) / f.stride + kGroupTaps - 1) / kGroupTaps),
        tiles_((f.frames + kTileFrames - 1) / kTileFrames),
        frame_(samples * f.joints),
        phase_((tiles_ + groups_) * frame_),
        depth(groups_ * inputs_),
        columns(tiles_ * frame_),
        width((columns + S::kLanes - 1) / S::kLanes * S::kLanes) {}

  int64_t padded_size() const { return inputs_ * kTileFrames * phase_ + S::kLanes; }

  // Sample n of the samples, x (C, T, V), between frames of zeros, every fourth frame together:
  // (C, stride, 4, frames, samples, V).
  void pad(const A* x, int64_t n, A* padded) const {
    const int64_t T = conv_.in_frames, V = conv_.joints, stride = conv_.stride;
    A* to = padded + n * V;
    for (int64_t c = 0; c < conv_.inputs; ++c, x += T * V) {
      for (int64_t r = 0; r < stride; ++r) {
        for (int64_t phase = 0; phase < kTileFrames; ++phase) {
          int64_t t = r + phase * stride - conv_.left;
          for (int64_t f = 0; f < tiles_ + groups_; ++f, t += kTileFrames * stride, to += frame_) {
            const A* from = x + t * V;
            const bool inside = t >= 0 && t < T;
            vectors<A>(V, [&](int64_t v, int lanes) {
              store_some(to + v, inside ? load_some(from + v, lanes) : Vec{}, lanes);
            });
          }
        }
      }
    }
    S::store(padded + inputs_ * kTileFrames * phase_, Vec{});
  }

  // Rows [first, first + count) of (groups, channels) of padded samples at all points, in `vectors`
  // vectors of columns from `column` on: to[point][row][column].
  void rows(int64_t first, int64_t count, const A* padded, int64_t column, int64_t vectors, A* to,
            int64_t to_row, int64_t to_point) const {
    constexpr A a = kInner, b = kOuter, aa = a * a, bb = b * b;
    for (int64_t row = first; row < first + count;) {
      const int64_t group = row / inputs_, end = std::min(first + count, (group + 1) * inputs_);
      int64_t at[kPoints];
      for (int i = 0; i < kPoints; ++i) {
        const int64_t frame = kGroupTaps * group + i;
        at[i] = frame % kTileFrames * phase_ + frame / kTileFrames * frame_;
      }
      const A* channel = padded + row % inputs_ * kTileFrames * phase_ + column;
      for (; row < end; ++row, channel += kTileFrames * phase_, to += to_row) {
        for (int64_t l = 0; l < vectors; ++l) {
          const A* from = channel + l * S::kLanes;
          const auto d = [&](int i) { return S::load(from + at[i]); };
          const Vec d1 = d(1), d2 = d(2), d3 = d(3), d4 = d(4);
          const Vec even1 = d4 - d2 * bb, odd1 = (d3 - d1 * bb) * a;
          const Vec even2 = d4 - d2 * aa, odd2 = (d3 - d1 * aa) * b;
          const Vec found[kPoints] = {d(0) * (aa * bb) - d2 * (aa + bb) + d4,
                                      even1 + odd1,
                                      even1 - odd1,
                                      even2 + odd2,
                                      even2 - odd2,
                                      d1 * (aa * bb) - d3 * (aa + bb) + d(5)};
          for (int i = 0; i < kPoints; ++i) S::store(to + i * to_point + l * S::kLanes, found[i]);
        }
      }
    }
  }

  // The tap of channel c of the convolution that is tap j of a row, as function(c, tap); outside of
  // the kernel no call.
  template <typename F>
  void tap_of(int64_t row, int64_t j, const F& function) const {
    const int64_t channel = row % inputs_;
    const int64_t tap = (row / inputs_ * kGroupTaps + j) * conv_.stride + channel % conv_.stride;
    if (tap < conv_.taps) function(channel / conv_.stride, tap);
  }

  // Output channels that are computed together begin at block_begin(0), block_begin(1), ...
  int64_t blocks() const { return (conv_.outputs + kAccumulatorRows - 1) / kAccumulatorRows; }
  int64_t block_begin(int64_t block) const { return block * conv_.outputs / blocks(); }

  // Weights of weight(o, c, tap) at the points, (6, outputs, depth), but depth first in a block.
  template <typename F>
  void weights(const F& weight, A* to) const {
    parallel(blocks(), [&](int64_t block) {
      const int64_t first = block_begin(block), size = block_begin(block + 1) - first;
      for (int64_t row = 0; row < depth; ++row) {
        A w[kGroupTaps][kAccumulatorRows] = {};
        for (int64_t j = 0; j < kGroupTaps; ++j) {
          tap_of(row, j, [&](int64_t c, int64_t tap) {
            for (int64_t o = 0; o < size; ++o) w[j][o] = weight(first + o, c, tap);
          });
        }
        for (int point = 0; point < kPoints; ++point) {
          const auto& at = kWeights[point];
          A* found = to + (point * conv_.outputs + first) * depth + row * size;
          for (int64_t o = 0; o < size; ++o) {
            found[o] = w[0][o] * at[0] + w[1][o] * at[1] + w[2][o] * at[2];
          }
        }
      }
    });
  }

  // The results of sample n, (outputs, frames, joints), of sums (6, outputs, width): finish(output,
  // frame, joint, vector, lanes) gets them.
  template <typename F>
  void frames_of(const A* sums, int64_t n, const F& finish) const {
    constexpr A a = kInner, b = kOuter, aa = a * a, bb = b * b;
    const int64_t of_point = conv_.outputs * width, V = conv_.joints;
    for (int64_t o = 0; o < conv_.outputs; ++o, sums += width) {
      for (int64_t k = 0; k < tiles_; ++k) {
        const int64_t first = k * kTileFrames, count = conv_.frames - first;
        vectors<A>(V, [&](int64_t v, int lanes) {
          const auto m = [&](int point) {
            return S::load(sums + point * of_point + k * frame_ + n * V + v);
          };
          const Vec even1 = m(1) + m(2), odd1 = m(1) - m(2);
          const Vec even2 = m(3) + m(4), odd2 = m(3) - m(4);
          finish(o, first, v, m(0) + even1 + even2, lanes);
          if (count > 1) finish(o, first + 1, v, odd1 * a + odd2 * b, lanes);
          if (count > 2) finish(o, first + 2, v, even1 * aa + even2 * bb, lanes);
          if (count > 3) finish(o, first + 3, v, odd1 * (a * aa) + odd2 * (b * bb) + m(5), lanes);
        });
      }
    }
  }

  // The adjoint of `frames_of`: gradients of sample n, to (6, outputs, columns).
  void gradients(const A* dy, int64_t n, A* to) const {
    constexpr A a = kInner, b = kOuter, aa = a * a, bb = b * b;
    const int64_t frames = conv_.frames, V = conv_.joints, of_point = conv_.outputs * columns;
    to += n * V;
    for (int64_t o = 0; o < conv_.outputs; ++o, dy += frames * V) {
      for (int64_t k = 0; k < tiles_; ++k, to += frame_) {
        const int64_t first = k * kTileFrames;
        vectors<A>(V, [&](int64_t v, int lanes) {
          const auto y = [&](int i) {
            if (first + i >= frames) return Vec{};
            return load_some(dy + (first + i) * V + v, lanes);
          };
          const Vec y0 = y(0), y1 = y(1), y2 = y(2), y3 = y(3);
          const Vec even1 = y0 + y2 * aa, odd1 = (y1 + y3 * aa) * a;
          const Vec even2 = y0 + y2 * bb, odd2 = (y1 + y3 * bb) * b;
          const Vec found[kPoints] = {y0,           even1 + odd1, even1 - odd1,
                                      even2 + odd2, even2 - odd2, y3};
          for (int i = 0; i < kPoints; ++i) store_some(to + i * of_point + v, found[i], lanes);
        });
      }
    }
  }

  // sums (6, outputs, width) of padded samples; `panels` has as many values as there are at all
  // points. The weights of a point stay in the second-level cache while they meet all columns, rows
  // of a panel in the first-level one.
  void multiply(const A* weights, const A* padded, A* panels, A* sums) const {
    constexpr int64_t kWidth = 2 * S::kLanes;
    for (int64_t column = 0; column < width; column += kWidth) {
      const int64_t lanes = std::min(width - column, kWidth);
      rows(0, depth, padded, column, lanes / S::kLanes, panels + column * depth, lanes,
           depth * width);
    }
    Product<A> p{};
    p.a_row = 1, p.c_row = width;
    for (int point = 0; point < kPoints; ++point, panels += depth * width,
             sums += conv_.outputs * width, weights += conv_.outputs * depth) {
      for (int64_t column = 0; column < width; column += kWidth) {
        p.n = p.b_row = std::min(width - column, kWidth);
        for (int64_t begin = 0; begin < depth; begin += kRowsInCache) {
          p.k = std::min(kRowsInCache, depth - begin);
          p.b = panels + column * depth + begin * p.n;
          p.accumulate = begin > 0;
          for (int64_t block = 0; block < blocks(); ++block) {
            const int64_t o = block_begin(block);
            p.m = p.a_col = block_begin(block + 1) - o;
            p.a = weights + o * depth + begin * p.m;
            p.c = sums + o * width + column;
            skelops::multiply(p);
          }
        }
      }
    }
  }

  int64_t panels_size() const { return kPoints * depth * width; }

  static constexpr std::array<std::array<A, kGroupTaps>, kPoints> kWeights = [] {
    std::array<std::array<A, kGroupTaps>, kPoints> found{};
    constexpr double aa = kInner * kInner, bb = kOuter * kOuter;
    for (int point = 0; point < kPoints - 1; ++point) {
      const double size = point < 3 ? kInner : kOuter;
      const double x = point == 0 ? 0 : point % 2 ? size : -size;
      const double scale = point == 0  ? 1 / (aa * bb)
                           : point < 3 ? 1 / (2 * aa * (aa - bb))
                                       : 1 / (2 * bb * (bb - aa));
      found[point] = {A(scale), A(scale * x), A(scale * x * x)};
    }
    found[kPoints - 1] = {A(0), A(0), A(1)};
    return found;
  }();

 private:
  FrameConv conv_;
  int64_t inputs_, groups_, tiles_, frame_, phase_;

 public:
  int64_t depth, columns, width;
};

}  // namespace skelops
