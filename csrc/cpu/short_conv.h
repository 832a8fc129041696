// Convolutions over frames with fewer multiplications (Toom and Cook; Winograd, SIAM 1980): three
// taps and four frames meet at the six points 0, +-3/4, +-3/2 and infinity, which takes six
// products in place of twelve. Longer kernels are sums of such ones, three taps apart. At these
// points rounding errors are about four times those of the direct sum; the largest ones are half of
// those at 0, +-1, +-2.
#pragma once

#include <array>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {

constexpr int kPoints = 6, kTileFrames = 4, kGroupTaps = 3;
constexpr double kInner = 0.75, kOuter = 1.5;  // the points are 0, +-kInner, +-kOuter, infinity

template <typename A>
class ShortConv {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  // Of samples (inputs, frames, joints) with an odd kernel of `taps`, to (outputs, frames, joints).
  ShortConv(int64_t inputs, int64_t outputs, int64_t taps, int64_t frames, int64_t joints)
      : inputs(inputs),
        outputs(outputs),
        taps(taps),
        frames(frames),
        joints(joints),
        groups((taps + kGroupTaps - 1) / kGroupTaps),
        depth(groups * inputs),
        tiles((frames + kTileFrames - 1) / kTileFrames),
        columns((tiles * joints + S::kLanes - 1) / S::kLanes * S::kLanes),
        phase_((tiles + groups) * joints),
        channel_(kTileFrames * phase_) {}

  // Samples whose columns meet a weight together, of so many.
  int64_t together(int64_t batch, int64_t wanted) const {
    const int64_t fit = std::max<int64_t>(wanted / std::max<int64_t>(columns, 1), 1);
    const int64_t threads = torch::stable::get_num_threads();
    return std::clamp<int64_t>(batch / threads, 1, fit);
  }

  int64_t padded_size() const { return inputs * channel_ + columns; }

  // x (C, T, V) between frames of zeros, every fourth frame together: (C, 4, frames, V).
  void pad(const A* x, A* padded) const {
    std::fill_n(padded, padded_size(), A(0));
    for (int64_t c = 0; c < inputs; ++c) {
      A* to = padded + c * channel_;
      for (int64_t t = taps / 2; t < taps / 2 + frames; ++t, x += joints) {
        std::copy_n(x, joints, to + t % kTileFrames * phase_ + t / kTileFrames * joints);
      }
    }
  }

  // Where the vectors of columns of `count` samples begin in their first row.
  std::vector<int64_t> vectors_of(int64_t count) const {
    std::vector<int64_t> begin;
    for (int64_t n = 0; n < count; ++n) {
      for (int64_t column = 0; column < columns; column += S::kLanes) {
        begin.push_back(n * padded_size() + column);
      }
    }
    return begin;
  }

  // Rows [first, first + count) of (groups, channels) of padded samples at all points, in vectors
  // of columns that begin at `vector`: to[point][row][column].
  void rows(int64_t first, int64_t count, const A* padded, const int64_t* vector, int64_t vectors,
            A* to, int64_t to_row, int64_t to_point) const {
    constexpr A a = kInner, b = kOuter, aa = a * a, bb = b * b;
    for (int64_t row = first; row < first + count;) {
      const int64_t group = row / inputs, end = std::min(first + count, (group + 1) * inputs);
      int64_t at[kPoints];
      for (int i = 0; i < kPoints; ++i) {
        const int64_t frame = kGroupTaps * group + i;
        at[i] = frame % kTileFrames * phase_ + frame / kTileFrames * joints;
      }
      const A* channel = padded + row % inputs * channel_;
      for (; row < end; ++row, channel += channel_, to += to_row) {
        for (int64_t l = 0; l < vectors; ++l) {
          const A* from = channel + vector[l];
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

  // Output channels that are computed together begin at block_begin(0), block_begin(1), ...
  int64_t blocks() const { return (outputs + kAccumulatorRows - 1) / kAccumulatorRows; }
  int64_t block_begin(int64_t block) const { return block * outputs / blocks(); }

  // Weights of weight(o, c, tap) at the points, (6, outputs, depth), but depth first in a block.
  template <typename F>
  void weights(const F& weight, A* to) const {
    parallel(blocks(), [&](int64_t block) {
      const int64_t first = block_begin(block), size = block_begin(block + 1) - first;
      for (int64_t o = 0; o < size; ++o) {
        for (int64_t row = 0; row < depth; ++row) {
          A w[kGroupTaps];
          for (int64_t j = 0; j < kGroupTaps; ++j) {
            const int64_t tap = row / inputs * kGroupTaps + j;
            w[j] = tap < taps ? weight(first + o, row % inputs, tap) : A(0);
          }
          for (int point = 0; point < kPoints; ++point) {
            const auto& at = kWeights[point];
            to[(point * outputs + first) * depth + row * size + o] =
                w[0] * at[0] + w[1] * at[1] + w[2] * at[2];
          }
        }
      }
    });
  }

  // The results of a sample, (outputs, frames, joints), of its columns of sums (6, outputs, width):
  // finish(output, frame, joint, vector, lanes) gets them.
  template <typename F>
  void frames_of(const A* sums, int64_t width, const F& finish) const {
    constexpr A a = kInner, b = kOuter, aa = a * a, bb = b * b;
    const int64_t of_point = outputs * width;
    for (int64_t o = 0; o < outputs; ++o, sums += width) {
      for (int64_t k = 0; k < tiles; ++k) {
        const int64_t first = k * kTileFrames, count = frames - first;
        vectors<A>(joints, [&](int64_t v, int lanes) {
          const auto m = [&](int point) {
            return S::load(sums + point * of_point + k * joints + v);
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

  // The adjoint of `frames_of`: gradients of a sample at a point, (outputs, columns).
  void gradients(int point, const A* dy, A* to) const {
    constexpr A a = kInner, b = kOuter;
    const A x = point < 3 ? a : b, sign = point % 2 ? A(1) : A(-1);
    for (int64_t o = 0; o < outputs; ++o, dy += frames * joints, to += columns) {
      for (int64_t k = 0; k < tiles; ++k) {
        const int64_t first = k * kTileFrames;
        vectors<A>(joints, [&](int64_t v, int lanes) {
          const auto y = [&](int i) {
            if (first + i >= frames) return Vec{};
            return load_some(dy + (first + i) * joints + v, lanes);
          };
          Vec z;
          if (point == 0) {
            z = y(0);
          } else if (point == kPoints - 1) {
            z = y(3);
          } else {
            z = (y(0) + y(2) * (x * x)) + (y(1) + y(3) * (x * x)) * (sign * x);
          }
          store_some(to + k * joints + v, z, lanes);
        });
      }
      std::fill(to + tiles * joints, to + columns, A(0));
    }
  }

  // sums (6, outputs, width) of the vectors of columns of padded samples.
  void multiply(const A* weights, const A* padded, const std::vector<int64_t>& vector, A* panel,
                A* sums) const {
    constexpr int64_t kWidth = 2 * S::kLanes;
    const int64_t width = static_cast<int64_t>(vector.size()) * S::kLanes;
    Product<A> p{};
    p.a_row = 1, p.b_row = kWidth, p.c_row = width;
    for (int64_t begin = 0; begin < depth; begin += kDepth) {
      p.k = std::min(kDepth, depth - begin);
      p.accumulate = begin > 0;
      for (int64_t column = 0; column < width; column += kWidth) {
        p.n = std::min(width - column, kWidth);
        rows(begin, p.k, padded, &vector[column / S::kLanes], p.n / S::kLanes, panel, kWidth,
             kDepth * kWidth);
        for (int point = 0; point < kPoints; ++point) {
          p.b = panel + point * kDepth * kWidth;
          for (int64_t block = 0; block < blocks(); ++block) {
            const int64_t o = block_begin(block);
            p.m = p.a_col = block_begin(block + 1) - o;
            p.a = weights + (point * outputs + o) * depth + begin * p.m;
            p.c = sums + (point * outputs + o) * width + column;
            skelops::multiply(p);
          }
        }
      }
    }
  }

  // Rows of the six panels that stay in the second-level cache, and their size.
  static constexpr int64_t kDepth = 256, kPanels = kPoints * kDepth * 2 * S::kLanes;

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

  int64_t inputs, outputs, taps, frames, joints, groups, depth, tiles, columns;

 private:
  int64_t phase_, channel_;
};

}  // namespace skelops
