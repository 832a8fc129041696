// Reader of the ".skeleton" text of NTU RGB+D: frames of bodies of 25 joints.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace skelops {

constexpr int kJoints = 25;
constexpr int kJointNumbers = 12;  // x y z, depth x y, colour x y, orientation w x y z, tracking
constexpr int kBodyNumbers = 9;    // what follows the id of a body

// The bodies of all frames, in the order of the file.
struct NtuSkeleton {
  std::vector<int64_t> bodies;  // (T) bodies in each frame
  std::vector<uint64_t> id;     // (B)
  std::vector<double> state;    // (B, 9)
  std::vector<double> joints;   // (B, 25, 12)
};

// Memory grows with what was read, never with what a count promises.
// Throws std::invalid_argument, "expected <what>, got <line> at line <1-based>".
NtuSkeleton ParseNtuSkeleton(std::string_view text);

}  // namespace skelops
