// Training batches from a store of clips: resample, transform, augment, derive streams.
//   z[c, t, v, m] = sum_k blur[k] (A[choice(v)] ((1 - w) p(f) + w p(f + 1)) + noise)[c, t + k]
//   y[s, c, t, w, m] = z[c, t, part(w), m] - z[c, t, parent_s(w), m], and its difference in time
// where p(f) are homogeneous points of source frame f = frame[n, t] and w = blend[n, t].
//
// A block builds a tile of one sample: all joints of some frames and persons, staged in shared
// memory as [channel][frame][joint][person], the order of the result and of the noise. A thread
// owns a column (joint, person) and walks over frames: neighbouring threads read and write
// neighbouring addresses, and what belongs to a column is looked up once.
//
// Bytes of a sample of T frames: T M V C source values per tap with a weight, S C T W M results.
// With T = 64, V = W = 25, M = 2, C = 3, four streams, float32: 38 KB read where no tap is blended
// (77 KB where every one is), 154 KB written. Batches of 1024 move 197 (236) MB; to be had at 70 %
// of a device copy's bandwidth. A tile reads motion + 2 (K / 2) further frames, from L2.
//
// Indices out of range are no access out of range: such a frame, joint or person is zero, such a
// parent absent, such a part the first joint.
#pragma once

#include <limits>

#include "common/device.cuh"
#include "math/philox.h"

namespace skelops {

constexpr int kClipThreads = 256;
template <typename A>  // blocks per multiprocessor, with hardly any spills
constexpr int kClipResident = sizeof(A) == 8 ? 3 : 4;
constexpr int kClipBlocks = 1024;  // one to two waves of the largest GPUs
constexpr int kMaxCoordinates = 3;
constexpr int kChoices = 3;  // first transform, second transform, zero
constexpr int kTransformValues = kChoices * kMaxCoordinates * (kMaxCoordinates + 1);
constexpr int kClipBoxValues = kTransformValues + 2 * kMaxCoordinates * kClipThreads;
constexpr int kKindBits = 5, kMaxStreams = 64 / kKindBits;
template <typename A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

enum StreamKind { kMotion = 1, kNative = 2, kAngle = 4, kScoreMean = 8, kMotionMean = 16 };

// The index itself, or -1 where it is out of range.
__host__ __device__ constexpr int checked(long long i, int size) {
  return i >= 0 && i < size ? static_cast<int>(i) : -1;
}

// Contiguous tensors of one call, null where absent, in the names of the public function. Of the
// values, only xyz has the type of the store.
template <typename T>
struct ClipBatch {
  using acc = acc_t<T>;
  const T* xyz;
  const long long *bounds, *frame;
  const acc *blend, *affine;
  const long long *parent, *part, *person, *convert, *order, *draw;
  const unsigned char* branch;
  const acc *convert_weight, *blur, *noise, *noise_std;
  const acc* box;  // (N, 2, D), least and greatest transformed coordinates of the clip
  long long source_frames, frame_values;  // frames of xyz, and values of each
  int source_persons, source_joints, channels;
  int coordinates, frames, joints, persons, out_joints, streams;
  int averaged;  // joints of xyz per joint of the layout
  int taps;      // of the blur
  unsigned long long kinds;
  PhiloxKey key;  // without the draw
  bool keep_missing;

  __host__ __device__ int kind(int stream) const {
    return static_cast<int>(kinds >> (kKindBits * stream)) & ((1 << kKindBits) - 1);
  }
  __host__ __device__ bool any(StreamKind wanted, bool present = true) const {
    bool found = false;
    for (int s = 0; s < streams; ++s) found |= ((kind(s) & wanted) != 0) == present;
    return found;
  }
};

// Where a frame is interpolated from: offsets into xyz, negative for none.
template <typename A>
struct alignas(8) ClipTaps {
  long long first, second, third;
  A weight;  // of the second
};

// How a sample is cut into blocks.
struct ClipTiles {
  int half;       // frames that the blur reads on either side
  int next;       // 1 if a motion stream reads the frame after the tile
  bool native;    // whether differences of source frames are staged,
  bool plain;     // and the frames themselves
  bool averaged;  // whether scores of such differences are the mean of both frames
  int persons, frames;
  int person_tiles, frame_tiles;
  bool fits;  // whether one frame of one person does
  int shared_bytes;

  template <typename T>
  ClipTiles(const ClipBatch<T>& b, long long samples)
      : half(b.taps / 2),
        next(b.any(kMotion)),
        native(b.any(kNative)),
        plain(b.any(kNative, false)),
        averaged(false),
        persons(b.persons) {
    using acc = acc_t<T>;
    constexpr int kAveraged = kNative | kMotionMean;
    for (int s = 0; s < b.streams; ++s) averaged |= (b.kind(s) & kAveraged) == kAveraged;
    constexpr int kTransforms = kTransformValues * sizeof(acc);
    const int halo = 2 * half + next, values = (native + plain) * b.channels * b.joints;
    const auto frame_bytes = [&] {
      return static_cast<int>(values * persons * sizeof(acc) + sizeof(ClipTaps<acc>));
    };
    const auto fitting = [&] { return (kSharedBytes - kTransforms) / frame_bytes() - halo; };
    while (persons > 1 && fitting() < least(b.frames, most(4, halo))) persons = (persons + 1) / 2;
    fits = fitting() > 0;
    person_tiles = ceil_div(b.persons, persons);
    // Long tiles do most per look-up; short ones are for small batches, down to twice the halo.
    const long long wanted = kClipBlocks / most(samples * person_tiles, 1LL);
    frame_tiles = least<long long>(wanted, b.frames / most(16, 2 * halo));
    frame_tiles = most(frame_tiles, ceil_div(b.frames, most(fitting(), 1)));
    frames = ceil_div(b.frames, frame_tiles);
    frame_tiles = ceil_div(b.frames, frames);
    shared_bytes = kTransforms + (frames + halo) * frame_bytes();
  }
};

// visit(joint, person, begin, end) for the columns of this thread, one column in most cases: as
// many threads as fit share the frames of a column, so that what belongs to it is looked up once.
template <typename Visit>
__device__ void each_column(int joints, int persons, int frames, const Visit& visit) {
  const int columns = joints * persons, threads = blockDim.x;
  const int sharing = most(threads / columns, 1), span = ceil_div(frames, sharing);
  for (int i = threadIdx.x; i < sharing * columns; i += threads) {
    const int column = i % columns, begin = i / columns * span, end = least(begin + span, frames);
    if (begin < end) visit(column / persons, column % persons, begin, end);
  }
}

// Coordinates, the channel after them, and whether the joint is there (the homogeneous coordinate).
template <typename A>
struct ClipPoint {
  A value[kMaxCoordinates];
  A score;
  A presence;
};

// The form of the reference, exact at both ends.
template <typename A>
__device__ ClipPoint<A> blend_points(const ClipPoint<A>& a, const ClipPoint<A>& b, A w) {
  ClipPoint<A> z;
  for (int j = 0; j < kMaxCoordinates; ++j) z.value[j] = (1 - w) * a.value[j] + w * b.value[j];
  z.score = (1 - w) * a.score + w * b.score;
  z.presence = (1 - w) * a.presence + w * b.presence;
  return z;
}

template <typename A>
__device__ ClipPoint<A> subtract_points(const ClipPoint<A>& a, const ClipPoint<A>& b) {
  ClipPoint<A> z;
  for (int j = 0; j < kMaxCoordinates; ++j) z.value[j] = a.value[j] - b.value[j];
  z.score = a.score - b.score;
  z.presence = a.presence - b.presence;
  return z;
}

// Joint v of person m of sample n, in every frame of the store.
template <typename T>
class ClipJoint {
 public:
  using acc = acc_t<T>;

  __device__ ClipJoint(const ClipBatch<T>& batch, long long n, int v, int m)
      : b_(batch), joint_(checked(b_.order ? b_.order[n * b_.joints + v] : v, b_.joints)) {
    const int person = checked(b_.person ? b_.person[n * b_.persons + m] : m, b_.source_persons);
    if (person < 0 || joint_ < 0) return;
    person_ = b_.xyz + static_cast<long long>(person) * b_.source_joints * b_.channels;
  }

  // In the frame at an offset into xyz.
  __device__ ClipPoint<acc> at(long long offset) const {
    ClipPoint<acc> p = {};
    if (offset < 0) return p;
    bool there = !b_.keep_missing;
    if (person_ != nullptr) {
      const T* const joints = person_ + offset;
      if (!b_.convert) {
        add(p, joints + joint_ * b_.channels, 1);
      } else {
#pragma unroll 1
        for (int k = joint_ * b_.averaged; k < (joint_ + 1) * b_.averaged; ++k) {
          const int from = checked(b_.convert[k], b_.source_joints);
          if (from >= 0) add(p, joints + from * b_.channels, b_.convert_weight[k]);
        }
      }
      for (const acc value : p.value) there |= value != 0;
    }
    p.presence = there;
    return p;
  }

 private:
  __device__ void add(ClipPoint<acc>& p, const T* from, acc weight) const {
#pragma unroll
    for (int j = 0; j < kMaxCoordinates; ++j) {
      if (j < b_.coordinates) p.value[j] += weight * static_cast<acc>(from[j]);
    }
    if (b_.channels > b_.coordinates) {
      p.score += weight * static_cast<acc>(from[b_.coordinates]);
    }
  }

  const ClipBatch<T>& b_;
  const T* person_ = nullptr;  // in frame 0; null if there is none
  int joint_;
};

// The transforms of sample n by choice, followed by the map of its box onto [-1, 1] if it has one.
template <typename T>
__device__ void stage_transforms(acc_t<T>* transforms, const ClipBatch<T>& b, long long n) {
  using acc = acc_t<T>;
  const int D = b.coordinates, size = D * (D + 1);
  for (int i = threadIdx.x; i < kChoices * size; i += blockDim.x) {
    const int row = i / (D + 1) % D, column = i % (D + 1);
    acc value = i < 2 * size ? b.affine[n * 2 * size + i] : acc(0);
    if (b.box && i < 2 * size) {
      const acc low = b.box[n * 2 * D + row], high = b.box[n * 2 * D + D + row];
      const acc scale = high > low ? 2 / (high - low) : acc(0);
      value *= scale;
      if (column == D && high > low) value -= 1 + scale * low;
    }
    transforms[i] = value;
  }
}

// The transform of joint v of sample n.
template <typename A>
class ClipTransform {
 public:
  template <typename T>
  __device__ ClipTransform(const A* transforms, const ClipBatch<T>& b, long long n, int v) {
    const int D = b.coordinates;
    const int choice = b.branch ? least<int>(b.branch[n * b.joints + v], kChoices - 1) : 0;
    for (int i = 0; i < kMaxCoordinates; ++i) {
      const A* const row = transforms + (choice * D + i) * (D + 1);
      for (int j = 0; j < kMaxCoordinates; ++j) scale_[i][j] = i < D && j < D ? row[j] : A(0);
      shift_[i] = i < D ? row[D] : A(0);
    }
  }

  __device__ A operator()(const ClipPoint<A>& p, int i) const {
    A sum = shift_[i] * p.presence;
    for (int j = 0; j < kMaxCoordinates; ++j) sum += scale_[i][j] * p.value[j];
    return sum;
  }

 private:
  A scale_[kMaxCoordinates][kMaxCoordinates], shift_[kMaxCoordinates];
};

// box (N, 2, D): least and greatest transformed coordinates over all frames of a clip and its
// joints that are not dropped, the least being the greater one where there is none. One block per
// sample, its threads a power of two.
template <typename T>
__global__ void __launch_bounds__(kClipThreads)
    sample_clips_box_kernel(ClipBatch<T> b, acc_t<T>* box) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  acc* const transforms = reinterpret_cast<acc*>(shared);
  acc* const extremes = transforms + kTransformValues;  // [low and negated high][thread]
  const long long n = blockIdx.x;
  stage_transforms(transforms, b, n);
  __syncthreads();

  acc extreme[2][kMaxCoordinates];
  for (auto& axes : extreme) {
    for (acc& value : axes) value = kInfinity<acc>;
  }
  const long long first = most(b.bounds[2 * n], 0LL);
  const long long last = least(b.bounds[2 * n + 1], b.source_frames);
  const int frames = static_cast<int>(most(last - first, 0LL));
  each_column(b.joints, b.persons, frames, [&](int v, int m, int begin, int end) {
    if (b.branch && b.branch[n * b.joints + v] >= kChoices - 1) return;  // dropped
    const ClipJoint<T> joint(b, n, v, m);
    const ClipTransform<acc> transform(transforms, b, n, v);
    for (int t = begin; t < end; ++t) {
      const ClipPoint<acc> p = joint.at((first + t) * b.frame_values);
      if (p.presence == 0) continue;
      for (int c = 0; c < kMaxCoordinates; ++c) {
        const acc y = transform(p, c);
        extreme[0][c] = least(extreme[0][c], y);
        extreme[1][c] = least(extreme[1][c], -y);
      }
    }
  });
  acc* const mine = extremes + threadIdx.x;
  for (int i = 0; i < 2 * kMaxCoordinates; ++i) {
    mine[i * blockDim.x] = extreme[i / kMaxCoordinates][i % kMaxCoordinates];
  }
  for (unsigned span = blockDim.x / 2; span > 0; span /= 2) {
    __syncthreads();
    for (int i = 0; threadIdx.x < span && i < 2 * kMaxCoordinates; ++i) {
      mine[i * blockDim.x] = least(mine[i * blockDim.x], mine[i * blockDim.x + span]);
    }
  }
  __syncthreads();
  for (int c = threadIdx.x; c < b.coordinates; c += blockDim.x) {
    box[n * 2 * b.coordinates + c] = extremes[c * blockDim.x];
    box[(n * 2 + 1) * b.coordinates + c] = -extremes[(kMaxCoordinates + c) * blockDim.x];
  }
}

// What one block builds. Staged frames begin `half` before frame t0; those that leave the tile's
// halo (scores, differences, everything once it is blurred) begin at t0.
struct ClipTile {
  long long n;
  int t0, m0, frames, persons, kept, slots;
  int width;  // staged values of a frame and channel
  int plane;  // and of a channel

  template <typename T>
  __device__ ClipTile(const ClipBatch<T>& b, const ClipTiles& tiles, long long block)
      : n(block / tiles.frame_tiles / tiles.person_tiles),
        t0(static_cast<int>(block % tiles.frame_tiles) * tiles.frames),
        m0(static_cast<int>(block / tiles.frame_tiles % tiles.person_tiles) * tiles.persons),
        frames(least(tiles.frames, b.frames - t0)),
        persons(least(tiles.persons, b.persons - m0)),
        kept(frames + tiles.next),
        slots(kept + 2 * tiles.half),
        width(b.joints * persons),
        plane(slots * width) {}
};

// The taps of the slots of a tile: first, second, and the one after it.
template <typename T>
__device__ void stage_taps(ClipTaps<acc_t<T>>* taps, const ClipBatch<T>& b, const ClipTiles& tiles,
                           const ClipTile& tile) {
  const long long last = b.bounds[2 * tile.n + 1] - 1;
  for (int slot = threadIdx.x; slot < tile.slots; slot += blockDim.x) {
    const int t = tile.t0 + slot - tiles.half;
    const bool in_window = t >= 0 && t < b.frames;
    const long long frame = in_window ? b.frame[tile.n * b.frames + t] : -1;
    const auto inside = [&](long long f) { return f >= 0 && f < b.source_frames; };
    const auto offset = [&](long long f) {
      return inside(frame) && inside(f) ? f * b.frame_values : -1;
    };
    taps[slot] = {offset(frame), offset(least(frame + 1, last)), offset(least(frame + 2, last)), 0};
    if (inside(frame)) taps[slot].weight = b.blend[tile.n * b.frames + t];
  }
}

template <typename T>
__device__ void stage_points(acc_t<T>* plain, acc_t<T>* native, const ClipTaps<acc_t<T>>* taps,
                             const acc_t<T>* transforms, const ClipBatch<T>& b,
                             const ClipTiles& tiles, const ClipTile& tile) {
  using acc = acc_t<T>;
  const int D = b.coordinates;
  const bool scored = b.channels > D;
  const auto step = [&](const ClipPoint<acc>& from, const ClipPoint<acc>& to, bool moves) {
    ClipPoint<acc> p = subtract_points(to, from);
    if (tiles.averaged) p.score = moves ? (from.score + to.score) / 2 : acc(0);
    return p;
  };
  each_column(b.joints, tile.persons, tile.slots, [&](int v, int m, int begin, int end) {
    const ClipJoint<T> joint(b, tile.n, v, tile.m0 + m);
    const ClipTransform<acc> transform(transforms, b, tile.n, v);
    for (int slot = begin; slot < end; ++slot) {
      const ClipTaps<acc>& tap = taps[slot];
      const acc weight = tap.weight;
      const ClipPoint<acc> low = joint.at(tap.first);
      ClipPoint<acc> high = {};
      if (weight != 0 || tiles.native) high = joint.at(tap.second);
      // Scores and differences are not blurred: they lie where the blur leaves the coordinates.
      const bool is_kept = slot >= tiles.half && slot < tiles.half + tile.kept;
      const int at = slot * tile.width + v * tile.persons + m;
      const int kept = at - tiles.half * tile.width;
      if (tiles.plain) {
        const ClipPoint<acc> p = weight != 0 ? blend_points(low, high, weight) : low;
        for (int c = 0; c < kMaxCoordinates; ++c) {
          if (c < D) plain[c * tile.plane + at] = transform(p, c);
        }
        if (scored && is_kept) plain[D * tile.plane + kept] = p.score;
      }
      if (tiles.native && is_kept) {
        ClipPoint<acc> p = step(low, high, tap.second != tap.first);
        if (weight != 0) {
          const ClipPoint<acc> next = step(high, joint.at(tap.third), tap.third != tap.second);
          p = blend_points(p, next, weight);
        }
        for (int c = 0; c < kMaxCoordinates; ++c) {
          if (c < D) native[c * tile.plane + kept] = transform(p, c);
        }
        if (scored) native[D * tile.plane + kept] = p.score;
      }
    }
  });
}

// Adds the given noise, and noise_std times the normal numbers of this sample. Number e belongs to
// element e of (D, T, V, M); one call of Philox gives four: the Box-Muller pairs of words (0, 1)
// and (2, 3).
template <typename T>
__device__ void add_noise(acc_t<T>* plain, const ClipBatch<T>& b, const ClipTiles& tiles,
                          const ClipTile& tile) {
  using acc = acc_t<T>;
  const int begin = most(tiles.half - tile.t0, 0);  // slots inside the window
  const int end = least(tile.slots, b.frames - tile.t0 + tiles.half);
  const int frame_values = b.joints * b.persons, count = (end - begin) * frame_values;
  for (int c = 0; c < b.coordinates; ++c) {
    acc* const target = plain + c * tile.plane + begin * tile.width;
    const int first = (c * b.frames + tile.t0 - tiles.half + begin) * frame_values;
    const auto add = [&](int e, acc value) {
      const int m = e % b.persons - tile.m0;
      if (e < 0 || e >= count || m < 0 || m >= tile.persons) return;
      target[e / b.persons * tile.persons + m] += value;
    };
    if (b.noise) {
      const acc* const given = b.noise + tile.n * b.coordinates * b.frames * frame_values + first;
      for (int e = threadIdx.x; e < count; e += blockDim.x) add(e, given[e]);
      __syncthreads();
    }
    const acc scale = b.noise_std ? b.noise_std[tile.n * b.coordinates + c] : acc(0);
    if (scale == 0) continue;
    PhiloxKey key = b.key;
    key.draw = static_cast<uint32_t>(b.draw[tile.n]);
    const int first_tile = first / kTileWords;
    const int blocks = ((first + count - 1) / kTileWords - first_tile + 1) * kTileBlocks;
    for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
      const int philox_tile = first_tile + i / kTileBlocks, lane = i % kTileBlocks;
      uint32_t word[4];
      philox(key, philox_tile * kTileBlocks + lane, word);
      for (int pair = 0; pair < 2; ++pair) {
        const acc uniform = static_cast<acc>((word[2 * pair] >> 8) + 1) / (1 << 24);
        const acc radius = scale * sqrt(-2 * log(uniform));
        acc sine, cosine;
        sincospi(2 * static_cast<acc>(uniform_of(word[2 * pair + 1])), &sine, &cosine);
        const int e = philox_tile * kTileWords + 2 * pair * kTileBlocks + lane - first;
        add(e, radius * cosine);
        add(e + kTileBlocks, radius * sine);
      }
    }
  }
}

// Weights the frames of a joint, four results at a time, in place: nothing before the frames that
// are written is needed again.
template <typename T>
__device__ void blur_frames(acc_t<T>* plain, const ClipBatch<T>& b, const ClipTile& tile) {
  using acc = acc_t<T>;
  const acc* const taps = b.blur + tile.n * b.taps;
  for (int i = threadIdx.x; i < b.coordinates * tile.width; i += blockDim.x) {
    acc* const column = plain + i / tile.width * tile.plane + i % tile.width;
    for (int t = 0; t < tile.kept; t += 4) {
      acc sum[4] = {}, tap[4] = {};
      for (int k = 0; k < b.taps + 3 && t + k < tile.slots; ++k) {
        for (int j = 3; j > 0; --j) tap[j] = tap[j - 1];
        tap[0] = k < b.taps ? taps[k] : acc(0);
        const acc x = column[(t + k) * tile.width];
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[j] += tap[j] * x;
      }
      for (int j = 0; j < 4 && t + j < tile.kept; ++j) column[(t + j) * tile.width] = sum[j];
    }
  }
}

// Angle to axis c of the vector from `there` to `here`, zero for a zero vector.
template <typename A>
__device__ A angle_to_axis(const A* here, const A* there, bool related, int plane, int c,
                           int coordinates) {
  A squares = 0, along = 0;
  for (int axis = 0; axis < coordinates; ++axis) {
    const A parent = there[axis * plane];
    const A difference = here[axis * plane] - (related ? parent : A(0));
    squares += difference * difference;
    if (axis == c) along = difference;
  }
  const A length = sqrt(squares), cosine = along / length;
  return length == 0 ? A(0) : acos(cosine < -1 ? A(-1) : cosine > 1 ? A(1) : cosine);
}

// value(t) of `count` frames, `step` apart, or its difference to the next frame, or the mean of
// both; `ends` with the last frame of the sample, which has none.
template <typename Out, typename Value>
__device__ void write_column(Out* target, int step, int count, bool motion, bool mean, bool ends,
                             const Value& value) {
  if (!motion) {
    for (int t = 0; t < count; ++t) target[t * step] = static_cast<Out>(value(t));
    return;
  }
  auto now = value(0);
  for (int t = 0; t < count - ends; ++t) {
    const auto next = value(t + 1);
    target[t * step] = static_cast<Out>(mean ? (next + now) / 2 : next - now);
    now = next;
  }
  if (ends) target[(count - 1) * step] = static_cast<Out>(0.0f);
}

template <typename T, typename Out>
__device__ void write_streams(Out* out, const acc_t<T>* plain, const acc_t<T>* native,
                              const ClipBatch<T>& b, const ClipTile& tile) {
  using acc = acc_t<T>;
  const int C = b.channels, D = b.coordinates, W = b.out_joints;
  const int step = W * b.persons, channel = b.frames * step;
  each_column(W, tile.persons, tile.frames, [&](int w, int m, int begin, int end) {
    const int joint = most(checked(b.part ? b.part[w] : w, b.joints), 0), width = tile.width;
    const int count = end - begin;
    const bool ends = tile.t0 + end == b.frames;
    Out* const first = out + tile.n * b.streams * C * channel + (tile.t0 + begin) * step +
                       w * b.persons + tile.m0 + m;
    for (int s = 0; s < b.streams; ++s) {
      const int kind = b.kind(s), parent = checked(b.parent[s * W + w], b.joints);
      const bool motion = kind & kMotion, related = parent >= 0;
      const acc* const source = (kind & kNative ? native : plain) + begin * width + m;
      const acc* const here = source + joint * tile.persons;
      const acc* const there = related ? source + parent * tile.persons : here;
      for (int c = 0; c < C; ++c) {
        Out* const target = first + (s * C + c) * channel;
        if (c < D && kind & kAngle) {
          write_column(target, step, count, motion, false, ends, [&](int t) {
            return angle_to_axis(here + t * width, there + t * width, related, tile.plane, c, D);
          });
        } else {
          const bool mean = c >= D && related && kind & kScoreMean;
          const acc own = mean ? acc(0.5) : acc(1);
          const acc other = mean ? acc(0.5) : related ? acc(-1) : acc(0);
          const acc *const mine = here + c * tile.plane, *const its = there + c * tile.plane;
          write_column(target, step, count, motion, c >= D && kind & kMotionMean, ends,
                       [&](int t) { return own * mine[t * width] + other * its[t * width]; });
        }
      }
    }
  });
}

// out (N, S * C, T, W, M), a block per tile of a sample.
template <typename T, typename Out>
__global__ void __launch_bounds__(kClipThreads, kClipResident<acc_t<T>>)
    sample_clips_kernel(ClipBatch<T> b, ClipTiles tiles, Out* out) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const ClipTile tile(b, tiles, blockIdx.x);
  acc* const transforms = reinterpret_cast<acc*>(shared);
  auto* const taps = reinterpret_cast<ClipTaps<acc>*>(transforms + kTransformValues);
  acc* const plain = reinterpret_cast<acc*>(taps + tile.slots);
  acc* const native = plain + (tiles.plain ? b.channels * tile.plane : 0);
  stage_transforms(transforms, b, tile.n);
  stage_taps(taps, b, tiles, tile);
  __syncthreads();
  stage_points(plain, native, taps, transforms, b, tiles, tile);
  if ((b.noise || b.noise_std) && tiles.plain) {
    __syncthreads();
    add_noise(plain, b, tiles, tile);
  }
  if (b.taps > 0 && tiles.plain) {
    __syncthreads();
    blur_frames(plain, b, tile);
  }
  __syncthreads();
  write_streams(out, plain, native, b, tile);
}

}  // namespace skelops
