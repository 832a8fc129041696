// The tiles of matrix products.
#include "common/gemm.h"

#include <algorithm>
#include <array>
#include <utility>

namespace skelops {
namespace {

// What of a product a tile works on. A product as a whole is never copied: reading what was just
// written by parts waits for all stores before it, those of the last tile among them.
template <typename T>
struct Part {
  const T *a, *b;
  T* c;
  const T* row_init;
  int64_t k;
  bool accumulate;
};

// M rows by NV vectors of c in registers, from a row and a vector on; `tail` lanes of the last one.
// kAcross: a is dense along m. What counts besides the multiplications is how few instructions
// there are, as the other thread of a core takes its share of them: rows at addresses without an
// index are multiplied by a value in memory, but in half of them at most, as loads are limited too.
template <typename T, int M, int NV, bool kTail, bool kAcross>
void tile(const Product<T>& p, const Part<T>& part, int64_t row, int64_t vector, int tail) {
  using S = Simd<T>;
  constexpr int kBases = kAcross ? 1 : (M + 3) / 4;
  typename S::Vec acc[M][NV];
  const int64_t c_row = p.c_row, c_vector = p.c_vector;
  T* const c = part.c + row * c_row + vector * c_vector;
  const auto load = [tail](const T* q, int j) {
    return kTail && j == NV - 1 ? S::load(q, tail) : S::load(q);
  };
  if (part.accumulate || p.init) {
    const int64_t init_row = part.accumulate ? c_row : p.init_row;
    const int64_t init_vector = part.accumulate ? c_vector : p.init_vector;
    const T* const init = part.accumulate ? c : p.init + row * init_row + vector * init_vector;
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) acc[m][j] = load(init + m * init_row + j * init_vector, j);
    }
  } else {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) {
        acc[m][j] = part.row_init ? typename S::Vec{} + part.row_init[row + m] : typename S::Vec{};
      }
    }
  }
  const int64_t row1 = p.a_row, row3 = 3 * row1, a_col = kAcross ? p.a_col : 1;
  const int64_t depth = part.k, parts = p.parts, a_part = p.a_part, b_part = p.b_part;
  const int64_t b_row = p.b_row, b_vector = p.b_vector;
  const T* const first_a = part.a + row * row1;
  const T* const first_b = part.b + vector * b_vector;
  for (int64_t s = 0; s < parts; ++s) {
    const T* b = first_b + s * b_part;
    const T* a[kBases];
#pragma GCC unroll 4
    for (int q = 0; q < kBases; ++q) a[q] = first_a + s * a_part + 4 * q * row1;
#pragma GCC unroll 2
    for (int64_t k = 0; k < depth; ++k, b += b_row) {
      typename S::Vec bv[NV];
#pragma GCC unroll 2
      for (int j = 0; j < NV; ++j) bv[j] = load(b + j * b_vector, j);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const int r = m % 4;
        const int64_t beside = r == 0 ? 0 : r == 1 ? row1 : r == 2 ? 2 * row1 : row3;
        const bool from_memory = kAcross ? m % 2 == 0 : r == 0;
        const T* factor = kAcross ? a[0] + m : a[m / 4] + beside;
#pragma GCC unroll 2
        for (int j = 0; j < NV; ++j) {
          acc[m][j] =
              from_memory ? S::add_product(acc[m][j], bv[j], factor) : acc[m][j] + bv[j] * *factor;
        }
      }
#pragma GCC unroll 4
      for (int q = 0; q < kBases; ++q) a[q] += a_col;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) {
      T* const q = c + m * c_row + j * c_vector;
      if (kTail && j == NV - 1) {
        S::store(q, acc[m][j], tail);
      } else {
        S::store(q, acc[m][j]);
      }
    }
  }
}

template <typename T>
using Tile = void (*)(const Product<T>&, const Part<T>&, int64_t, int64_t, int);

template <typename T, int NV, bool kTail, bool kAcross, int... M>
constexpr std::array<Tile<T>, sizeof...(M)> tiles(std::integer_sequence<int, M...>) {
  return {{&tile<T, M + 1, NV, kTail, kAcross>...}};
}

template <typename T, int NV, bool kTail, bool kAcross>
constexpr auto kTiles =
    tiles<T, NV, kTail, kAcross>(std::make_integer_sequence<int, kAccumulatorRows>{});

template <typename T, bool kAcross>
const auto& tiles_for(bool wide, bool tail) {
  return wide ? (tail ? kTiles<T, 2, true, kAcross> : kTiles<T, 2, false, kAcross>)
              : (tail ? kTiles<T, 1, true, kAcross> : kTiles<T, 1, false, kAcross>);
}

}  // namespace

template <typename T>
void multiply(const Product<T>& p) {
  constexpr int64_t kLanes = Simd<T>::kLanes;
  if (p.m == 0 || p.n == 0) return;
  const int64_t row_blocks = (p.m + kAccumulatorRows - 1) / kAccumulatorRows;
  const int64_t least = p.m / row_blocks, more = p.m % row_blocks;  // rows of a block
  const bool cut = p.parts == 1 && p.k > kPanelRows<T>;
  const int64_t chunk = cut ? kPanelRows<T> : std::max<int64_t>(p.k, 1);
  for (int64_t column = 0; column < p.n; column += 2 * kLanes) {
    const int64_t width = std::min(p.n - column, 2 * kLanes);
    const bool wide = width > kLanes;
    const int tail = static_cast<int>(width % kLanes);
    const auto& table =
        p.a_row == 1 ? tiles_for<T, true>(wide, tail > 0) : tiles_for<T, false>(wide, tail > 0);
    for (int64_t begin = 0; begin == 0 || begin < p.k; begin += chunk) {
      for (int64_t group = 0; group < p.groups; ++group) {
        const Part<T> part{p.a + group * p.a_group + begin * p.a_col,
                           p.b + begin * p.b_row,
                           p.c + group * p.c_group,
                           p.row_init ? p.row_init + group * p.row_init_group : nullptr,
                           std::min(chunk, p.k - begin),
                           p.accumulate || begin > 0};
        for (int64_t row = 0, block = 0; block < row_blocks; ++block) {
          const int64_t rows = least + (block < more ? 1 : 0);
          table[rows - 1](p, part, row, column / kLanes, tail);
          row += rows;
        }
      }
    }
  }
}

template void multiply(const Product<float>&);
template void multiply(const Product<double>&);

}  // namespace skelops
