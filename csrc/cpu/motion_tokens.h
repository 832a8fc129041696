// Target values of the tokens of a segment: motion or coordinates, standardised or not.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "common/check.h"

namespace skelops {

struct TokenSizes {
  int64_t frames, joints, channels, segment, stride;
  bool normalise;
  int64_t values() const { return segment * channels; }  // of a token
  int64_t segments() const { return frames / segment; }
  int64_t tokens() const { return segments() * joints; }
  int64_t row() const { return joints * channels; }
  int64_t clip() const { return frames * row(); }
};

inline TokenSizes token_sizes(const char* op, int64_t frames, int64_t joints, int64_t channels,
                              int64_t segment, int64_t stride, bool normalise) {
  SKELOPS_CHECK(segment > 0 && frames % segment == 0 && stride >= 0, op,
                "x (N, T, V, C), T a multiple of the segment, stride >= 0");
  return {frames, joints, channels, segment, stride, normalise};
}

// Statistics are taken along the rows of frames, a vector of joints and channels at a time; only
// the finished values are brought into the order of tokens.
template <typename A>
class MotionTokens {
 public:
  explicit MotionTokens(const TokenSizes& sizes)
      : s_(sizes),
        motion_(sizes.segment * sizes.row()),
        sum_(sizes.row()),
        scale_(sizes.joints, A(1)),
        values_(sizes.joints * sizes.values()) {}

  // Values (V, segment * C) of segment t of clip x; they last until the next call.
  const A* operator()(const A* x, int64_t t) {
    segment_ = t;
    with_channels([&](auto channels) { compute(x, channels); });
    return values_.data();
  }

  // From the gradient of the last values, which is overwritten, to that of their clip.
  void add_gradient(A* grad, A* dx) const {
    const int64_t count = s_.values(), row = s_.row(), lag = s_.stride * row;
    for (int64_t v = 0; v < s_.joints; ++v, grad += count) {
      if (s_.normalise) through_statistics(v, grad);
      for (int64_t j = 0; j < s_.segment && moves(j); ++j) {
        A* to = dx + (segment_ * s_.segment + j) * row + v * s_.channels;
        for (int64_t c = 0; c < s_.channels; ++c) {
          const A g = grad[j * s_.channels + c];
          to[lag + c] += g;
          if (lag > 0) to[c] -= g;
        }
      }
    }
  }

 private:
  // Frames whose partner is past the end have no motion.
  bool moves(int64_t j) const {
    return s_.stride == 0 || segment_ * s_.segment + j + s_.stride < s_.frames;
  }

  // Most skeletons have two or three channels: loops of known length.
  template <typename F>
  void with_channels(const F& function) const {
    switch (s_.channels) {
      case 2:
        return function(std::integral_constant<int64_t, 2>());
      case 3:
        return function(std::integral_constant<int64_t, 3>());
      default:
        return function(s_.channels);
    }
  }

  template <typename Channels>
  void compute(const A* x, Channels channels) {
    const int64_t row = s_.row(), lag = s_.stride * row;
    const A* now = x + segment_ * s_.segment * row;
    for (int64_t j = 0; j < s_.segment; ++j, now += row) {
      A* m = motion_.data() + j * row;
      if (!moves(j)) {
        std::fill_n(m, row, A(0));
      } else if (lag == 0) {
        std::copy_n(now, row, m);
      } else {
        for (int64_t i = 0; i < row; ++i) m[i] = now[lag + i] - now[i];
      }
    }
    if (s_.normalise) {
      centre(channels);
      measure(channels);
    }
    A* to = values_.data();
    for (int64_t v = 0; v < s_.joints; ++v) {
      const A* from = motion_.data() + v * channels;
      const A scale = scale_[v];
      for (int64_t j = 0; j < s_.segment; ++j, from += row, to += channels) {
        for (int64_t c = 0; c < channels; ++c) to[c] = from[c] * scale;
      }
    }
  }

  // motion -= its mean over the values of a token
  template <typename Channels>
  void centre(Channels channels) {
    const int64_t row = s_.row();
    const A share = A(1) / static_cast<A>(s_.values());
    A* sum = sum_.data();
    std::copy_n(motion_.data(), row, sum);
    for (int64_t j = 1; j < s_.segment; ++j) {
      const A* m = motion_.data() + j * row;
      for (int64_t i = 0; i < row; ++i) sum[i] += m[i];
    }
    for (int64_t v = 0; v < s_.joints; ++v, sum += channels) {
      A mean = 0;
      for (int64_t c = 0; c < channels; ++c) mean += sum[c];
      mean *= share;
      for (int64_t c = 0; c < channels; ++c) sum[c] = mean;
    }
    for (int64_t j = 0; j < s_.segment; ++j) {
      A* m = motion_.data() + j * row;
      for (int64_t i = 0; i < row; ++i) m[i] -= sum_[i];
    }
  }

  // 1 / sqrt(var + eps) of every token
  template <typename Channels>
  void measure(Channels channels) {
    const int64_t row = s_.row();
    const A share = A(1) / static_cast<A>(s_.values() - 1);
    A* sum = sum_.data();
    std::fill_n(sum, row, A(0));
    for (int64_t j = 0; j < s_.segment; ++j) {
      const A* m = motion_.data() + j * row;
      for (int64_t i = 0; i < row; ++i) sum[i] += m[i] * m[i];
    }
    for (int64_t v = 0; v < s_.joints; ++v, sum += channels) {
      A total = 0;
      for (int64_t c = 0; c < channels; ++c) total += sum[c];
      scale_[v] = A(1) / std::sqrt(total * share + A(1e-6));
    }
  }

  void through_statistics(int64_t v, A* grad) const {
    const int64_t count = s_.values();
    const A* value = values_.data() + v * count;
    A mean = 0, along = 0;
    for (int64_t p = 0; p < count; ++p) {
      mean += grad[p];
      along += grad[p] * value[p];
    }
    mean /= static_cast<A>(count);
    along /= static_cast<A>(count - 1);
    for (int64_t p = 0; p < count; ++p) {
      grad[p] = (grad[p] - mean - value[p] * along) * scale_[v];
    }
  }

  TokenSizes s_;
  std::vector<A> motion_, sum_, scale_, values_;
  int64_t segment_ = 0;
};

}  // namespace skelops
