// The k least of a row of numbers, without sorting it.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace skelops {

template <typename A>
using OrderedKey = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

// Integers in the order of the numbers: -0 equals 0, NaN of either sign is largest.
template <typename A>
OrderedKey<A> ordered(A value) {
  using Key = OrderedKey<A>;
  constexpr Key kMagnitude =
      static_cast<Key>(~(std::make_unsigned_t<Key>(1) << (8 * sizeof(A) - 1)));
  value += A(0);
  Key key;
  std::memcpy(&key, &value, sizeof(A));
  key ^= (key >> (8 * sizeof(A) - 1)) & kMagnitude;
  return value == value ? key : kMagnitude;
}

// The k-th least key, k in [1, count], bit by bit from the top: one vectorised count per bit.
template <typename Key>
Key kth_least(const Key* key, int64_t count, int64_t k) {
  using Bits = std::make_unsigned_t<Key>;
  constexpr Bits kSign = Bits(1) << (8 * sizeof(Key) - 1);
  Bits prefix = 0;
  for (Bits bit = kSign; bit != 0; bit >>= 1) {
    const Key candidate = static_cast<Key>((prefix | bit) ^ kSign);
    Key less = 0;
    for (int64_t i = 0; i < count; ++i) less += key[i] < candidate;
    if (less < k) prefix |= bit;
  }
  return static_cast<Key>(prefix ^ kSign);
}

// function(index, chosen) in ascending order, chosen for the k least keys; of equals the first.
template <typename Key, typename F>
void for_each_chosen(const Key* key, int64_t count, int64_t k, const F& function) {
  if (k == 0) {
    for (int64_t i = 0; i < count; ++i) function(i, false);
    return;
  }
  const Key last = kth_least(key, count, k);
  Key less = 0, not_greater = 0;
  for (int64_t i = 0; i < count; ++i) {
    less += key[i] < last;
    not_greater += key[i] <= last;
  }
  if (not_greater == k) {
    for (int64_t i = 0; i < count; ++i) function(i, key[i] <= last);
    return;
  }
  int64_t equals = k - less;  // of `last` that are chosen
  for (int64_t i = 0; i < count; ++i) {
    const bool tied = key[i] == last && equals > 0;
    equals -= tied;
    function(i, key[i] < last || tied);
  }
}

}  // namespace skelops
