// Target values of tokens, a token at a time in vector registers: motion or coordinates of a
// joint in a segment, standardised or not.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/check.h"
#include "common/simd.h"

namespace skelops {

struct TokenSizes {
  int64_t frames, joints, channels, segment, stride;
  bool normalise;
  int64_t values() const { return segment * channels; }
  int64_t segments() const { return frames / segment; }
  int64_t tokens() const { return segments() * joints; }
  int64_t clip() const { return frames * joints * channels; }
};

inline TokenSizes token_sizes(const char* op, int64_t frames, int64_t joints, int64_t channels,
                              int64_t segment, int64_t stride, bool normalise) {
  SKELOPS_CHECK(segment > 0 && frames % segment == 0 && stride >= 0, op,
                "x (N, T, V, C), T a multiple of the segment, stride >= 0");
  return {frames, joints, channels, segment, stride, normalise};
}

template <typename A>
class MotionTokens {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit MotionTokens(const TokenSizes& sizes)
      : s_(sizes),
        count_((sizes.values() + S::kLanes - 1) / S::kLanes),
        values_(count_ * S::kLanes),
        offset_(count_ * S::kLanes),
        frame_(count_ * S::kLanes),
        inside_(count_ * S::kLanes) {
    for (int64_t p = 0; p < s_.values(); ++p) {
      frame_[p] = static_cast<int32_t>(p / s_.channels);
      offset_[p] = static_cast<int32_t>(frame_[p] * s_.joints * s_.channels + p % s_.channels);
    }
  }

  // From here on tokens of segment t of clip x.
  void enter(const A* x, int64_t t) {
    const int64_t row = s_.joints * s_.channels;
    now_ = x + t * s_.segment * row;
    lag_ = s_.stride * row;
    // Frames whose partner is past the end have no motion.
    const int64_t moving = s_.frames - s_.stride - t * s_.segment;
    for (int64_t p = 0; p < s_.values(); ++p) inside_[p] = s_.stride == 0 || frame_[p] < moving;
    any_ = s_.stride == 0 || moving > 0;
  }

  // Values of joint v of the segment, zeros up to whole vectors; they last until the next call.
  const A* operator()(int64_t v) {
    for (int64_t i = 0; i < count_; ++i) {
      S::store(values_.data() + i * S::kLanes, any_ ? raw(now(v), i) : Vec{});
    }
    scale_ = A(1);
    if (s_.normalise) standardise();
    return values_.data();
  }

  // 1 / sqrt(var + eps) of the last token.
  A scale() const { return scale_; }
  int64_t vectors() const { return count_; }
  int lanes(int64_t i) const {
    return static_cast<int>(std::min<int64_t>(s_.values() - i * S::kLanes, S::kLanes));
  }
  bool inside(int64_t p) const { return inside_[p] != 0; }
  int64_t offset(int64_t p) const { return offset_[p]; }
  const A* now(int64_t v) const { return now_ + v * s_.channels; }
  int64_t lag() const { return lag_; }

 private:
  Vec raw(const A* now, int64_t i) const {
    const int32_t* offset = offset_.data() + i * S::kLanes;
    const Vec inside = S::load(inside_.data() + i * S::kLanes);
    if (s_.stride == 0) return inside != A(0) ? S::gather(now, offset) : Vec{};
    Vec y = {};
    if (inside_[std::min(s_.values(), (i + 1) * S::kLanes) - 1] != 0) {
      y = S::gather(now + lag_, offset) - S::gather(now, offset);
    } else {  // nothing past the end of the clip may be read
      for (int l = 0; l < lanes(i); ++l) {
        if (inside_[i * S::kLanes + l] != 0) y[l] = now[lag_ + offset[l]] - now[offset[l]];
      }
    }
    return inside != A(0) ? y : Vec{};
  }

  void standardise() {
    A* value = values_.data();
    const int64_t padded = count_ * S::kLanes;
    Vec sum = {};
    for (int64_t i = 0; i < padded; i += S::kLanes) sum += S::load(value + i);
    const A mean = S::sum(sum) / static_cast<A>(s_.values());
    Vec squares = {};
    for (int64_t i = 0; i < count_; ++i) {
      S::store(value + i * S::kLanes, S::load(value + i * S::kLanes) - mean, lanes(i));
      const Vec centred = S::load(value + i * S::kLanes);
      squares += centred * centred;
    }
    scale_ = A(1) / std::sqrt(S::sum(squares) / static_cast<A>(s_.values() - 1) + A(1e-6));
    for (int64_t i = 0; i < padded; i += S::kLanes) {
      S::store(value + i, S::load(value + i) * scale_);
    }
  }

  TokenSizes s_;
  int64_t count_;
  std::vector<A> values_;
  std::vector<int32_t> offset_, frame_;
  std::vector<A> inside_;
  const A* now_ = nullptr;
  int64_t lag_ = 0;
  bool any_ = false;
  A scale_ = 1;
};

// The gradient of the values of joint v, turned in place from that of what `tokens` returned last,
// then added to that of its clip, which starts at `dx` where x starts at `x`.
template <typename A>
void add_to_clip(const MotionTokens<A>& tokens, const TokenSizes& s, const A* value, A* grad,
                 int64_t v, const A* x, A* dx) {
  const int64_t count = s.values();
  if (s.normalise) {
    A mean = 0, along = 0;
    for (int64_t p = 0; p < count; ++p) {
      mean += grad[p];
      along += grad[p] * value[p];
    }
    mean /= static_cast<A>(count);
    along /= static_cast<A>(count - 1);
    for (int64_t p = 0; p < count; ++p) {
      grad[p] = (grad[p] - mean - value[p] * along) * tokens.scale();
    }
  }
  A* now = dx + (tokens.now(v) - x);
  for (int64_t p = 0; p < count; ++p) {
    if (!tokens.inside(p)) continue;
    if (s.stride == 0) {
      now[tokens.offset(p)] += grad[p];
    } else {
      now[tokens.offset(p)] -= grad[p];
      now[tokens.lag() + tokens.offset(p)] += grad[p];
    }
  }
}

}  // namespace skelops
