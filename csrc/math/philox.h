// Philox4x32-10 (Salmon et al., SC 2011), one block at a time or a tile of blocks in vectors.
//
// Word i of a draw is word (i / 16) % 4 of block 16 (i / 64) + i % 16: sixteen blocks make a tile
// of 64 consecutive words, whose quarters are vectors.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace skelops {

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kTileBlocks = 16, kTileWords = 4 * kTileBlocks;

// What a word depends on besides its index: 64-bit seed, and three of the four counters.
struct PhiloxKey {
  uint32_t seed_low, seed_high, stream, draw, epoch;
};

inline SKELOPS_HOST_DEVICE PhiloxKey philox_key(int64_t seed, int64_t epoch, int64_t stream,
                                                int64_t draw) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(static_cast<uint64_t>(seed) >> 32),
          static_cast<uint32_t>(stream), static_cast<uint32_t>(draw), static_cast<uint32_t>(epoch)};
}

// The four words of block `block`.
inline SKELOPS_HOST_DEVICE void philox(const PhiloxKey& key, uint32_t block, uint32_t (&word)[4]) {
  uint32_t c0 = block, c1 = key.stream, c2 = key.draw, c3 = key.epoch;
  uint32_t k0 = key.seed_low, k1 = key.seed_high;
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(c0) * kPhiloxMultiplier0;
    const uint64_t p1 = static_cast<uint64_t>(c2) * kPhiloxMultiplier1;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// The 64 words of tile `tile`; every line of the loop is a vector instruction.
inline void philox_tile(const PhiloxKey& key, uint32_t tile, uint32_t (&word)[kTileWords]) {
  uint32_t *c0 = word, *c1 = c0 + kTileBlocks, *c2 = c1 + kTileBlocks, *c3 = c2 + kTileBlocks;
  for (int i = 0; i < kTileBlocks; ++i) {
    c0[i] = tile * kTileBlocks + i, c1[i] = key.stream, c2[i] = key.draw, c3[i] = key.epoch;
  }
  uint32_t k0 = key.seed_low, k1 = key.seed_high;
  for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma omp simd
    for (int i = 0; i < kTileBlocks; ++i) {
      const uint64_t p0 = static_cast<uint64_t>(c0[i]) * kPhiloxMultiplier0;
      const uint64_t p1 = static_cast<uint64_t>(c2[i]) * kPhiloxMultiplier1;
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(p1);
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
}

// Uniform in [0, 1), a multiple of 2^-24.
inline SKELOPS_HOST_DEVICE float uniform_of(uint32_t word) {
  return static_cast<float>(word >> 8) * 5.9604644775390625e-8f;
}

}  // namespace skelops
