// Dropout whose choice is computed from a seed wherever it is needed, never stored.
#pragma once

#include <cstdint>

#include "common/tensor.h"
#include "math/philox.h"

namespace skelops {

struct Dropout {
  static constexpr int kUnits = 2 * kTileWords;  // of one tile of random words, two in a word
  static constexpr int64_t kLevels = 1 << 16;

  Dropout(const OptionalTensor& seed, int64_t dropped)
      : active(seed.has_value()), dropped(static_cast<uint32_t>(dropped)) {
    if (active) key = philox_key(*static_cast<const int64_t*>(seed->data_ptr()), 0, 0, 0);
  }

  // Factors of kUnits units of a row, from `unit` on, a multiple of kUnits: 0, or what keeps the
  // mean.
  template <typename A>
  void factors(int64_t row, int64_t unit, A* factor) const {
    PhiloxKey own = key;
    own.draw = static_cast<uint32_t>(row);
    uint32_t word[kTileWords];
    philox_tile(own, static_cast<uint32_t>(unit / kUnits), word);
    const A kept = static_cast<A>(double(kLevels) / double(kLevels - dropped));
    for (int i = 0; i < kTileWords; ++i) {
      factor[i] = (word[i] & 0xFFFF) >= dropped ? kept : A(0);
      factor[kTileWords + i] = (word[i] >> 16) >= dropped ? kept : A(0);
    }
  }

  // Room for the factors of a row of `count` units.
  int64_t room(int64_t count) const { return active ? (count + kUnits - 1) / kUnits * kUnits : 0; }

  bool active;
  uint32_t dropped;
  PhiloxKey key{};
};

}  // namespace skelops
