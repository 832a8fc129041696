// Streams of skeletons: which of them show the same differences between joints, and these
// differences. A row holds the joints of a frame, those of all persons side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/simd.h"

namespace skelops {

constexpr int64_t kMotion = 1, kMotionMean = 16;  // kinds of a stream

// One difference per joint returned: a vector of them at a time, out of a row of joints.
template <typename A>
class Differences {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  // `part` (W,) is null for all joints, `parent` (W,) has -1 where nothing is subtracted.
  Differences(const int64_t* parent, const int64_t* part, int64_t parts, int64_t persons)
      : all_(part == nullptr),
        unlinked_(std::all_of(parent, parent + parts, [](int64_t v) { return v < 0; })),
        here_(parts * persons + S::kLanes),
        there_(parts * persons + S::kLanes),
        linked_(parts * persons + S::kLanes) {
    for (int64_t i = 0; i < parts * persons; ++i) {
      const int64_t w = i / persons, m = i % persons;
      here_[i] = static_cast<int32_t>((all_ ? w : part[w]) * persons + m);
      there_[i] = static_cast<int32_t>(std::max<int64_t>(parent[w], 0) * persons + m);
      linked_[i] = parent[w] >= 0;
    }
  }

  // Of the places j, j + 1, ... of the result; `joints` is the row z.
  Vec at(const A* z, const Row<A>& joints, int64_t j, bool mean = false) const {
    const Vec here = all_ ? S::load(z + j) : joints.pick(&here_[j]);
    if (unlinked_) return here;
    const Vec there = joints.pick(&there_[j]);
    const auto linked = S::load(&linked_[j]) != Vec{};
    return here + (linked ? (mean ? (there - here) * A(0.5) : -there) : Vec{});
  }

 private:
  bool all_, unlinked_;
  std::vector<int32_t> here_, there_;
  std::vector<A> linked_;
};

// Streams of one kind, but for what their motion is, and of the same parents.
struct StreamGroup {
  int64_t first;  // its first stream
  int64_t kind;
  bool unlinked;  // no joint has a parent
  std::vector<int64_t> streams;
};

// `parent` (S, W).
inline std::vector<StreamGroup> grouped(const std::vector<int64_t>& kinds, const int64_t* parent,
                                        int64_t parts) {
  std::vector<StreamGroup> groups;
  for (size_t s = 0; s < kinds.size(); ++s) {
    const int64_t* row = parent + s * parts;
    const int64_t kind = kinds[s] & ~(kMotion | kMotionMean);
    const auto same = [&](const StreamGroup& g) {
      return g.kind == kind && std::equal(row, row + parts, parent + g.first * parts);
    };
    auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) {
      const bool unlinked = std::all_of(row, row + parts, [](int64_t v) { return v < 0; });
      groups.push_back({static_cast<int64_t>(s), kind, unlinked, {}});
      found = groups.end() - 1;
    }
    found->streams.push_back(static_cast<int64_t>(s));
  }
  return groups;
}

}  // namespace skelops
