// What the ops with a temporal shift in front of a product share: columns of shifted features.
#pragma once

#include <algorithm>

#include "common/tensor.h"

namespace skelops {

// Samples are (C, T, pixels), rows of T * pixels.
struct TemporalShift {
  int64_t fold, frame, row;

  // How far from a channel's place in the result its values are in x.
  int64_t step(int64_t channel) const {
    return channel < fold ? frame : channel < 2 * fold ? -frame : 0;
  }

  // Columns of every channel of a sample from where they are in x; zeros from outside the clip.
  template <typename T>
  void gather(const T* x, int64_t channels, int64_t begin, int64_t count,
              Accumulate<T>* columns) const {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t from = begin + step(c);
      const int64_t low = std::clamp<int64_t>(-from, 0, count);
      const int64_t high = std::clamp<int64_t>(row - from, low, count);
      Accumulate<T>* to = columns + c * count;
      std::fill_n(to, low, Accumulate<T>(0));
      convert(x + c * row + from + low, to + low, high - low);
      std::fill_n(to + high, count - high, Accumulate<T>(0));
    }
  }
};

}  // namespace skelops
