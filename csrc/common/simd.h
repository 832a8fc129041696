// Vectors of the widest registers the translation unit is compiled for.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace skelops {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kAccumulatorRows = 13;  // two vectors each: 26 of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kAccumulatorRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kAccumulatorRows = 6;
#endif

template <typename T>
struct Simd {
  static constexpr int kLanes = kVectorBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kVectorBytes)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));

  static Vec load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(T* p, Vec v) { *reinterpret_cast<Unaligned*>(p) = v; }

  // The first `count` lanes; the others read as zero and are not written.
  static Vec load(const T* p, int count) {
#if defined(__AVX512F__)
    const auto mask = static_cast<uint16_t>((1u << count) - 1);
    if constexpr (sizeof(T) == 4) {
      return Vec(_mm512_maskz_loadu_ps(mask, p));
    } else {
      return Vec(_mm512_maskz_loadu_pd(static_cast<uint8_t>(mask), p));
    }
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) {
      return Vec(_mm256_maskload_ps(p, first(count)));
    } else {
      return Vec(_mm256_maskload_pd(p, first(count)));
    }
#else
    Vec v = {};
    std::memcpy(&v, p, count * sizeof(T));
    return v;
#endif
  }

  static void store(T* p, Vec v, int count) {
#if defined(__AVX512F__)
    const auto mask = static_cast<uint16_t>((1u << count) - 1);
    if constexpr (sizeof(T) == 4) {
      _mm512_mask_storeu_ps(p, mask, __m512(v));
    } else {
      _mm512_mask_storeu_pd(p, static_cast<uint8_t>(mask), __m512d(v));
    }
#elif defined(__AVX__)
    // Some processors take ten times as long for a masked store.
    const int bytes = count * static_cast<int>(sizeof(T));
    if (bytes == kVectorBytes) return store(p, v);
    __m128 part = _mm256_castps256_ps128(__m256(v));
    float* to = reinterpret_cast<float*>(p);
    if (bytes & 16) {
      _mm_storeu_ps(to, part);
      part = _mm256_extractf128_ps(__m256(v), 1), to += 4;
    }
    if (bytes & 8) {
      _mm_storel_pi(reinterpret_cast<__m64*>(to), part);
      part = _mm_movehl_ps(part, part), to += 2;
    }
    if (bytes & 4) _mm_store_ss(to, part);
#else
    std::memcpy(p, &v, count * sizeof(T));
#endif
  }

  // sum + v * *p in one instruction, where there is one that reads and spreads *p.
  static Vec add_product(Vec sum, Vec v, const T* p) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(v), "m"(*p));
    } else {
      asm("vfmadd231pd %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(v), "m"(*p));
    }
    return sum;
#else
    return sum + v * *p;
#endif
  }

  // p[index[0]], p[index[1]], ...
  static Vec gather(const T* p, const int32_t* index) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __m512i lanes = _mm512_loadu_si512(index);
      return Vec(_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xFFFF, lanes, p, 4));
    } else {
      const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
      return Vec(_mm512_mask_i32gather_pd(_mm512_setzero_pd(), 0xFF, lanes, p, 8));
    }
#else
    Vec v;
    for (int i = 0; i < kLanes; ++i) v[i] = p[index[i]];
    return v;
#endif
  }

  // A bit per lane where a is less than b.
  static uint32_t less(Vec a, Vec b) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      return _mm512_cmp_ps_mask(__m512(a), __m512(b), _CMP_LT_OQ);
    } else {
      return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_LT_OQ);
    }
#elif defined(__AVX__)
    if constexpr (sizeof(T) == 4) return _mm256_movemask_ps(__m256(a < b));
    return _mm256_movemask_pd(__m256d(a < b));
#else
    uint32_t found = 0;
    for (int i = 0; i < kLanes; ++i) found |= static_cast<uint32_t>(a[i] < b[i]) << i;
    return found;
#endif
  }

  static T sum(Vec v) {
    T total = 0;
    for (int i = 0; i < kLanes; ++i) total += v[i];
    return total;
  }

 private:
#if defined(__AVX__) && !defined(__AVX512F__)
  // A mask of the first `count` lanes.
  static __m256i first(int count) {
    alignas(32) static constexpr int32_t kOnes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const int32_t* from = kOnes + 8 - count * static_cast<int>(sizeof(T) / 4);
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
#endif
};

// function(index, lanes) over the vectors of a row.
template <typename A, typename F>
void vectors(int64_t count, const F& function) {
  constexpr int64_t kLanes = Simd<A>::kLanes;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) function(i, static_cast<int>(kLanes));
  if (i < count) function(i, static_cast<int>(count - i));
}

// A vector, or its first lanes where they are fewer.
template <typename A>
typename Simd<A>::Vec load_some(const A* p, int lanes) {
  return lanes == Simd<A>::kLanes ? Simd<A>::load(p) : Simd<A>::load(p, lanes);
}

template <typename A>
void store_some(A* to, typename Simd<A>::Vec v, int lanes) {
  lanes == Simd<A>::kLanes ? Simd<A>::store(to, v) : Simd<A>::store(to, v, lanes);
}

// A row of values that lanes are picked from by index: out of registers where it fits into four of
// them, which takes a quarter of the time of a gather.
template <typename T>
class Row {
 public:
  using S = Simd<T>;

  Row(const T* p, int64_t count) : p_(p), held_(kCanHold && count <= 4 * S::kLanes) {
    for (int i = 0; held_ && i * S::kLanes < count; ++i) part_[i] = S::load(p + i * S::kLanes);
  }

  typename S::Vec pick(const int32_t* index) const {
#if defined(__AVX512F__)
    if constexpr (kCanHold) {
      if (held_) {
        const __m512i lane = _mm512_loadu_si512(index);
        const __m512 low = _mm512_permutex2var_ps(__m512(part_[0]), lane, __m512(part_[1]));
        const __m512 high = _mm512_permutex2var_ps(__m512(part_[2]), lane, __m512(part_[3]));
        const __mmask16 upper = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(2 * S::kLanes));
        return typename S::Vec(_mm512_mask_blend_ps(upper, low, high));
      }
    }
#endif
    return S::gather(p_, index);
  }

 private:
#if defined(__AVX512F__)
  static constexpr bool kCanHold = sizeof(T) == 4;
#else
  static constexpr bool kCanHold = false;
#endif
  const T* p_;
  bool held_;
  typename S::Vec part_[4] = {};
};

// Ask for memory that the next step reads (or writes) while this one computes.
template <bool kWrite = false, typename T>
void prefetch(const T* p, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(p + i, kWrite ? 1 : 0, 3);
}

// Copies past the caches, for what is written once and read much later. A task ends what it streams
// by `stream_end`.
template <typename T>
void stream(const T* from, T* to, int64_t count) {
  const auto* source = reinterpret_cast<const char*>(from);
  auto* target = reinterpret_cast<char*>(to);
  int64_t left = count * static_cast<int64_t>(sizeof(T));
#if defined(__AVX__)
  const int64_t unaligned = -reinterpret_cast<intptr_t>(to) & (kVectorBytes - 1);
  const int64_t head = unaligned < left ? unaligned : left;
  std::memcpy(target, source, head);
  for (source += head, target += head, left -= head; left >= kVectorBytes;
       source += kVectorBytes, target += kVectorBytes, left -= kVectorBytes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), _mm512_loadu_si512(source));
#else
    const auto* values = reinterpret_cast<const __m256i*>(source);
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), _mm256_loadu_si256(values));
#endif
  }
#endif
  std::memcpy(target, source, left);
}

inline void stream_end() {
#if defined(__AVX__)
  _mm_sfence();
#endif
}

}  // namespace skelops
