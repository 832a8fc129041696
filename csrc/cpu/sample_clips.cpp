// sample_clips: each clip is read once, frame by frame, into rows of homogeneous points (one row
// per coordinate, joints and persons in the order of the result); rows are blended and transformed
// into a window that stays in the second-level cache (38 KB at T = 64, V = 25, M = 2), where noise,
// blur and the differences to parents and next frames are taken; the result is written once.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"
#include "cpu/streams.h"
#include "math/normal.h"

namespace skelops {
namespace {

constexpr const char* kOp = "sample_clips";
constexpr int64_t kNative = 2, kAngle = 4, kScoreMean = 8;  // further kinds
constexpr uint8_t kKeep = 0, kCorrupt = 1, kDrop = 2;       // branches

// A contiguous table of integers, in [low, high) where that is asked for.
template <typename I>
class Table {
 public:
  Table(const OptionalTensor& maybe, const char* expected) {
    if (!maybe.has_value()) return;
    tensor_ = as_contiguous(*maybe);
    data_ = static_cast<const I*>(tensor_->data_ptr());
    SKELOPS_CHECK(tensor_->scalar_type() == kScalarType<I>, kOp, expected);
  }
  Table(const OptionalTensor& maybe, int64_t low, int64_t high, const char* expected)
      : Table(maybe, expected) {
    for (int64_t i = 0; present() && i < tensor_->numel(); ++i) {
      SKELOPS_CHECK(data_[i] >= low && data_[i] < high, kOp, expected);
    }
  }
  Table(const Table&) = delete;

  bool present() const { return data_ != nullptr; }
  const I* row(int64_t n) const { return data_ + n * tensor_->stride(0); }
  I operator[](int64_t i) const { return data_[i]; }

 private:
  OptionalTensor tensor_;
  const I* data_ = nullptr;
};

// Everything that the samples of a call share.
template <typename T>
struct Problem {
  using A = Accumulate<T>;
  const T* xyz;
  int64_t persons_in, joints_in, channels, dims, frames, joints, persons, parts, taps, averaged;
  const Table<int64_t>&bounds, &frame, &parent, &part, &person, &convert, &order;
  const Table<uint8_t>& branch;
  const Parameter<A>&blend, &affine, &convert_weight, &blur, &noise, &noise_std;
  const Table<int64_t>& draw;
  const std::vector<int64_t>& kinds;
  const std::vector<StreamGroup>& groups;
  const std::vector<Differences<A>>& differences;  // of each group
  int64_t seed, epoch, stream;
  bool keep_missing, unit_box, native;
  bool native_mean;  // of the further channels of native motion

  int64_t row() const { return joints * persons; }
  int64_t padded() const {
    constexpr int64_t kLanes = Simd<A>::kLanes;
    return (row() + kLanes - 1) / kLanes * kLanes;
  }
  int64_t plane() const { return frames * row(); }
  int64_t width() const { return parts * persons; }
};

// One thread's memory, and the sample it works on.
template <typename T>
class Sampler {
 public:
  using A = Accumulate<T>;
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit Sampler(const Problem<T>& p)
      : p_(p),
        values_(p.persons_in * p.joints_in * p.channels),
        source_(values_ + p.channels),
        rows_((kSlots + 1) * (p.channels + 1) * p.padded()),
        window_(p.channels * p.plane() + S::kLanes),
        native_(p.native ? p.channels * p.plane() + S::kLanes : 0),
        spread_((p.frames + p.taps) * p.row()),
        gathered_(p.channels * p.frames * p.width() + S::kLanes),
        coefficients_(p.branch.present() ? p.dims * (p.dims + 1) * p.padded() : 0),
        take_(p.averaged * p.padded()),
        boxed_(p.unit_box ? p.padded() : 0),
        share_(p.convert.present() ? p.averaged * p.padded() : 0) {
    std::fill_n(source_.get(), values_ + p.channels, A(0));
    std::fill_n(rows_.get(), (kSlots + 1) * (p.channels + 1) * p.padded(), A(0));
  }

  template <typename U>
  void run(int64_t n, U* out) {
    begin(n);
    if (p_.unit_box) fit_box();
    for (int64_t t = 0; t < p_.frames; ++t) {
      const int64_t f = p_.frame.row(n)[t];
      const A w = p_.blend.data()[n * p_.frames + t];
      const A* low = points(f);
      const A* high = w == 0 && !p_.native ? low : points(f < 0 ? f : std::min(f + 1, last_));
      blend(t, window_.get(), [&](int64_t i) {
        const Vec a = S::load(low + i);
        return a + (S::load(high + i) - a) * w;
      });
      if (p_.native) {
        const A* third = points(f < 0 ? f : std::min(f + 2, last_));
        const int64_t scores =
            p_.native_mean ? (p_.dims + 1) * p_.padded() : (p_.channels + 1) * p_.padded();
        const A now = f < last_ ? (1 - w) / 2 : A(0), next = f + 1 < last_ ? w / 2 : A(0);
        blend(t, native_.get(), [&](int64_t i) {
          const Vec a = S::load(low + i), b = S::load(high + i), c = S::load(third + i);
          if (i >= scores) return (a + b) * now + (b + c) * next;
          return (b - a) + ((c - b) - (b - a)) * w;
        });
      }
    }
    add_noise();
    if (p_.blur.present()) blur();
    const int64_t size = p_.frames * p_.width();
    for (const StreamGroup& group : p_.groups) {
      const A* planes = difference(group);
      for (int64_t s : group.streams) {
        for (int64_t c = 0; c < p_.channels; ++c) {
          const bool mean = c >= p_.dims && p_.kinds[s] & kMotionMean;
          write(planes + c * size, size, p_.kinds[s] & kMotion, mean,
                out + (s * p_.channels + c) * size);
        }
      }
    }
  }

 private:
  static constexpr int kSlots = 4;  // frames f, f + 1 and f + 2 never share one

  void begin(int64_t n) {
    n_ = n;
    first_ = p_.bounds.row(n)[0];
    last_ = p_.bounds.row(n)[1] - 1;
    std::fill_n(held_, kSlots, int64_t{-1});
    const int64_t size = p_.dims * (p_.dims + 1);
    const A* transforms = p_.affine.data() + n * 2 * size;
    std::copy_n(transforms, size, transform_[kKeep].begin());
    std::copy_n(transforms + size, size, transform_[kCorrupt].begin());
    transform_[kDrop].fill(A(0));
    for (int64_t j = 0; j < p_.padded(); ++j) {
      const int64_t v = j / p_.persons, m = j % p_.persons;
      const bool lane = j < p_.row();
      const int64_t joint = lane && p_.order.present() ? p_.order.row(n)[v] : v;
      const int64_t who = lane && p_.person.present() ? p_.person.row(n)[m] : m;
      for (int64_t k = 0; k < p_.averaged; ++k) {
        const int64_t at = k * p_.padded() + j, entry = joint * p_.averaged + k;
        const int64_t from = lane && p_.convert.present() ? p_.convert[entry] : joint;
        take_[at] = static_cast<int32_t>(
            lane && who >= 0 ? (who * p_.joints_in + from) * p_.channels : values_);
        if (p_.convert.present()) share_[at] = lane ? p_.convert_weight.data()[entry] : A(0);
      }
    }
    spread_coefficients();
  }

  void spread_coefficients() {
    if (!p_.branch.present()) return;
    const int64_t size = p_.dims * (p_.dims + 1);
    for (int64_t i = 0; i < size; ++i) {
      A* to = &coefficients_[i * p_.padded()];
      for (int64_t j = 0; j < p_.padded(); ++j) {
        const int64_t v = std::min(j, p_.row() - 1) / p_.persons;
        to[j] = transform_[p_.branch.row(n_)[v]][i];
      }
    }
  }

  // Coordinates, presence and scores of a frame, a padded row each; a row of zeros for frame -1.
  const A* points(int64_t f) {
    const int64_t stride = p_.padded(), size = (p_.channels + 1) * stride;
    if (f < 0) return rows_.get() + kSlots * size;
    A* row = rows_.get() + f % kSlots * size;
    if (held_[f % kSlots] == f) return row;
    held_[f % kSlots] = f;
    convert(p_.xyz + f * values_, source_.get(), values_);
    for (int64_t c = 0; c < p_.channels; ++c) {
      A* to = row + (c < p_.dims ? c : c + 1) * stride;
      const A* from = source_.get() + c;
      for (int64_t j = 0; j < stride; j += S::kLanes) {
        Vec sum = S::gather(from, &take_[j]);
        if (p_.convert.present()) sum *= S::load(&share_[j]);
        for (int64_t k = 1; k < p_.averaged; ++k) {
          sum += S::load(&share_[k * stride + j]) * S::gather(from, &take_[k * stride + j]);
        }
        S::store(to + j, sum);
      }
    }
    const Vec one = Vec{} + A(1);
    for (int64_t j = 0; j < stride; j += S::kLanes) {
      Vec present = p_.keep_missing ? Vec{} : one;
      for (int64_t c = 0; c < p_.dims; ++c) {
        present = S::load(row + c * stride + j) != Vec{} ? one : present;
      }
      S::store(row + p_.dims * stride + j, present);
    }
    return row;
  }

  // The transform of the points that `point(offset of a row vector)` returns, into frame t.
  template <typename F>
  void blend(int64_t t, A* window, const F& point) {
    switch (p_.dims) {
      case 1:
        return transform<1>(t, window, point);
      case 2:
        return transform<2>(t, window, point);
      default:
        return transform<3>(t, window, point);
    }
  }

  template <int kDims, typename F>
  void transform(int64_t t, A* window, const F& point) {
    const int64_t stride = p_.padded();
    A* to = window + t * p_.row();
    for (int64_t j = 0; j < stride; j += S::kLanes) {
      Vec x[kDims + 1];
      for (int i = 0; i <= kDims; ++i) x[i] = point(i * stride + j);
      for (int c = 0; c < kDims; ++c) {
        Vec sum = {};
        for (int i = 0; i <= kDims; ++i) sum += coefficient(c * (kDims + 1) + i, j) * x[i];
        store(to + c * p_.plane() + j, sum, t, j);
      }
    }
    for (int64_t c = kDims; c < p_.channels; ++c) {
      for (int64_t j = 0; j < stride; j += S::kLanes) {
        store(to + c * p_.plane() + j, point((c + 1) * stride + j), t, j);
      }
    }
  }

  // A vector may pass the end of its row, as later frames overwrite that; not the end of the plane.
  void store(A* to, Vec value, int64_t t, int64_t j) {
    if (t * p_.row() + j + S::kLanes <= p_.plane()) {
      S::store(to, value);
    } else if (j < p_.row()) {
      S::store(to, value, static_cast<int>(std::min<int64_t>(p_.row() - j, S::kLanes)));
    }
  }

  Vec coefficient(int64_t i, int64_t j) const {
    return p_.branch.present() ? S::load(&coefficients_[i * p_.padded() + j])
                               : Vec{} + transform_[kKeep][i];
  }

  // Follow the transforms by the map of the clip's box onto [-1, 1].
  void fit_box() {
    const int64_t width = p_.dims + 1, stride = p_.padded();
    for (int64_t j = 0; j < stride; ++j) {
      boxed_[j] =
          j < p_.row() && (!p_.branch.present() || p_.branch.row(n_)[j / p_.persons] != kDrop);
    }
    constexpr A kInfinity = std::numeric_limits<A>::infinity();
    Vec lowest[3], highest[3];
    std::fill_n(lowest, 3, Vec{} + kInfinity);
    std::fill_n(highest, 3, Vec{} - kInfinity);
    for (int64_t f = first_; f <= last_; ++f) {
      const A* row = points(f);
      for (int64_t j = 0; j < stride; j += S::kLanes) {
        const auto seen = S::load(row + p_.dims * stride + j) * S::load(&boxed_[j]) != Vec{};
        for (int64_t c = 0; c < p_.dims; ++c) {
          Vec y = {};
          for (int64_t i = 0; i < width; ++i) {
            y += coefficient(c * width + i, j) * S::load(row + i * stride + j);
          }
          lowest[c] = seen & (y < lowest[c]) ? y : lowest[c];
          highest[c] = seen & (y > highest[c]) ? y : highest[c];
        }
      }
    }
    for (int64_t c = 0; c < p_.dims; ++c) {
      A low = kInfinity, high = -kInfinity;
      for (int i = 0; i < S::kLanes; ++i) {
        low = std::min(low, lowest[c][i]);
        high = std::max(high, highest[c][i]);
      }
      const bool extends = high > low;
      const A scale = extends ? 2 / (high - low) : 0;
      for (const uint8_t b : {kKeep, kCorrupt}) {
        A* row = &transform_[b][c * width];
        for (int64_t i = 0; i < width; ++i) row[i] *= scale;
        if (extends) row[p_.dims] -= 1 + scale * low;
      }
    }
    spread_coefficients();
  }

  void add_noise() {
    const int64_t size = p_.plane(), count = p_.dims * size;
    A* z = window_.get();
    if (p_.noise.present()) {
      const A* noise = p_.noise.data() + n_ * count;
      for (int64_t i = 0; i < count; ++i) z[i] += noise[i];
    }
    if (!p_.noise_std.present()) return;
    const A* std = p_.noise_std.data() + n_ * p_.dims;
    if (std::all_of(std, std + p_.dims, [](A s) { return s == 0; })) return;
    const PhiloxKey key = philox_key(p_.seed, p_.epoch, p_.stream, p_.draw[n_]);
    uint32_t words[kTileWords];
    A normal[kTileWords];
    for (int64_t i = 0; i < count; i += kTileWords) {
      philox_tile(key, static_cast<uint32_t>(i / kTileWords), words);
      normal_tile(words, normal);
      const int64_t some = std::min<int64_t>(kTileWords, count - i);
      if (i / size == (i + some - 1) / size) {
        const A scale = std[i / size];
        for (int64_t j = 0; j < some; ++j) z[i + j] += scale * normal[j];
      } else {
        for (int64_t j = 0; j < some; ++j) z[i + j] += std[(i + j) / size] * normal[j];
      }
    }
  }

  void blur() {
    const A* tap = p_.blur.data() + n_ * p_.taps;
    const int64_t half = p_.taps / 2, row = p_.row(), size = p_.plane();
    const auto off_centre = [&](int64_t k) { return k != half && tap[k] != 0; };
    bool unit = tap[half] == 1;
    for (int64_t k = 0; k < p_.taps; ++k) unit &= !off_centre(k);
    if (unit) return;
    A* padded = spread_.get();
    std::fill_n(padded, half * row, A(0));
    std::fill_n(padded + half * row + size, half * row, A(0));
    for (int64_t c = 0; c < p_.dims; ++c) {
      A* z = window_.get() + c * size;
      std::copy_n(z, size, padded + half * row);
      constexpr int64_t kStep = 4 * S::kLanes;
      int64_t i = 0;
      for (; i + kStep <= size; i += kStep) {
        Vec sum[4] = {};
        for (int64_t k = 0; k < p_.taps; ++k) {
          const A* from = padded + k * row + i;
#pragma GCC unroll 4
          for (int u = 0; u < 4; ++u) sum[u] += S::load(from + u * S::kLanes) * tap[k];
        }
#pragma GCC unroll 4
        for (int u = 0; u < 4; ++u) S::store(z + i + u * S::kLanes, sum[u]);
      }
      for (; i < size; ++i) {
        A sum = 0;
        for (int64_t k = 0; k < p_.taps; ++k) sum += tap[k] * padded[k * row + i];
        z[i] = sum;
      }
    }
  }

  // The planes (C, T, V", M) that a group of streams shows.
  const A* difference(const StreamGroup& group) {
    const A* from = group.kind & kNative ? native_.get() : window_.get();
    if (group.unlinked && !p_.part.present() && !(group.kind & kAngle)) return from;
    const int64_t row = p_.row(), width = p_.width();
    const Differences<A>& differences = p_.differences[&group - p_.groups.data()];
    for (int64_t c = 0; c < p_.channels; ++c) {
      const bool mean = c >= p_.dims && group.kind & kScoreMean;
      for (int64_t t = 0; t < p_.frames; ++t) {
        const A* z = from + c * p_.plane() + t * row;
        const Row<A> joints(z, row);
        A* to = gathered_.get() + (c * p_.frames + t) * width;
        for (int64_t j = 0; j < width; j += S::kLanes) {  // later frames overwrite the excess
          S::store(to + j, differences.at(z, joints, j, mean));
        }
      }
    }
    if (group.kind & kAngle) angles(p_.frames * width);
    return gathered_.get();
  }

  // arccos of the direction cosines of every gathered vector.
  void angles(int64_t size) {
    A* g = gathered_.get();
    for (int64_t i = 0; i < size; ++i) {
      A square = 0;
      for (int64_t c = 0; c < p_.dims; ++c) square += g[c * size + i] * g[c * size + i];
      const A length = std::sqrt(square);
      for (int64_t c = 0; c < p_.dims; ++c) {
        A& value = g[c * size + i];
        value = length > 0 ? std::acos(std::clamp(value / length, A(-1), A(1))) : A(0);
      }
    }
  }

  template <typename U>
  void write(const A* plane, int64_t size, bool motion, bool mean, U* out) {
    if (!motion) return convert(plane, out, size);
    const int64_t row = p_.width(), moving = std::max<int64_t>(size - row, 0);
    const A next = mean ? A(0.5) : A(1), now = mean ? A(0.5) : A(-1);
    if constexpr (std::is_same_v<A, U>) {
      for (int64_t i = 0; i < moving; ++i) out[i] = next * plane[i + row] + now * plane[i];
    } else {
      constexpr int64_t kChunk = 256;
      A step[kChunk];
      for (int64_t i = 0; i < moving; i += kChunk) {
        const int64_t some = std::min(kChunk, moving - i);
        for (int64_t j = 0; j < some; ++j) step[j] = next * plane[i + row + j] + now * plane[i + j];
        convert(step, out + i, some);
      }
    }
    std::fill(out + moving, out + size, static_cast<U>(0.0f));
  }

  const Problem<T>& p_;
  const int64_t values_;
  const Scratch<A> source_, rows_, window_, native_, spread_, gathered_, coefficients_;
  const Scratch<int32_t> take_;
  const Scratch<A> boxed_, share_;
  std::array<std::array<A, 12>, 3> transform_{};
  int64_t held_[kSlots];
  int64_t n_ = 0, first_ = 0, last_ = 0;
};

Tensor sample_clips(Tensor xyz, Tensor bounds, Tensor frame, Tensor blend, Tensor affine,
                    Tensor parent, std::vector<int64_t> kinds, OptionalTensor part,
                    OptionalTensor person, OptionalTensor convert, OptionalTensor convert_weight,
                    OptionalTensor order, OptionalTensor branch, OptionalTensor blur,
                    OptionalTensor noise, OptionalTensor noise_std, OptionalTensor draw,
                    int64_t seed, int64_t epoch, int64_t stream, bool keep_missing, bool unit_box,
                    ScalarType dtype) {
  SKELOPS_CHECK(xyz.dim() == 4 && frame.dim() == 2 && affine.dim() == 4 && parent.dim() == 2, kOp,
                "xyz (F, M, V, C), frame (N, T), affine (N, 2, D, D + 1), parent (S, V\")");
  const int64_t batch = frame.size(0), frames = frame.size(1), dims = affine.size(2);
  const int64_t joints = convert.has_value() ? convert->size(0) : xyz.size(2);
  const int64_t persons = person.has_value() ? person->size(1) : xyz.size(1);
  const int64_t parts = parent.size(1), streams = static_cast<int64_t>(kinds.size());
  SKELOPS_CHECK(dims >= 1 && dims <= 3 && dims <= xyz.size(3) && affine.size(0) == batch &&
                    affine.size(1) == 2 && affine.size(3) == dims + 1,
                kOp, "affine (N, 2, D, D + 1) with D <= 3 and D <= C");
  SKELOPS_CHECK(bounds.dim() == 2 && bounds.size(0) == batch && bounds.size(1) == 2 &&
                    blend.numel() == frame.numel() && parent.size(0) == streams,
                kOp, "bounds (N, 2), blend (N, T), parent (S, V\")");
  const auto fits = [](const OptionalTensor& t, int64_t count) {
    return !t.has_value() || t->numel() == count;
  };
  const int64_t averaged = convert.has_value() ? convert->size(1) : 1;
  const int64_t taps = blur.has_value() ? blur->size(1) : 1;
  SKELOPS_CHECK(fits(part, parts) && (part.has_value() || parts == joints) &&
                    fits(person, batch * persons) && fits(convert_weight, joints * averaged) &&
                    convert.has_value() == convert_weight.has_value() &&
                    fits(order, batch * joints) && fits(branch, batch * joints),
                kOp, "part (V\",), person (N, M'), convert (V', K), order and branch (N, V')");
  SKELOPS_CHECK(fits(blur, batch * taps) && taps % 2 == 1 &&
                    fits(noise, batch * dims * frames * joints * persons) &&
                    fits(noise_std, batch * dims) && fits(draw, batch) &&
                    (draw.has_value() || !noise_std.has_value()),
                kOp, "blur (N, K), noise (N, D, T, V', M'), noise_std (N, D), draw (N,)");

  const Table<int64_t> bounds_table(bounds, 0, xyz.size(0) + 1, "bounds inside xyz");
  const Table<int64_t> frame_table(frame, -1, xyz.size(0), "frame inside xyz, or -1");
  const Table<int64_t> parent_table(parent, -1, joints, "parent joints, or -1");
  const Table<int64_t> part_table(part, 0, joints, "part joints");
  const Table<int64_t> person_table(person, -1, xyz.size(1), "person in xyz, or -1");
  const Table<int64_t> convert_table(convert, 0, xyz.size(2), "convert joints of xyz");
  const Table<int64_t> order_table(order, 0, joints, "order joints");
  const Table<uint8_t> branch_table(branch, 0, 3, "branch in 0..2");
  const Table<int64_t> draw_table(draw, "draw (N,) of int64");
  for (int64_t n = 0; n < batch; ++n) {
    const int64_t *clip = bounds_table.row(n), *row = frame_table.row(n);
    const auto inside = [&](int64_t f) { return f == -1 || (f >= clip[0] && f < clip[1]); };
    SKELOPS_CHECK(std::all_of(row, row + frames, inside), kOp, "frame inside its clip, or -1");
  }
  const auto groups = grouped(kinds, parent_table.row(0), parts);
  const auto any = [&](int64_t bits) {
    return std::any_of(kinds.begin(), kinds.end(), [=](int64_t k) { return (k & bits) == bits; });
  };
  const bool native = any(kNative), native_mean = any(kNative | kMotionMean);

  Tensor out =
      torch::stable::new_empty(xyz, {batch, streams * xyz.size(3), frames, parts, persons}, dtype);
  if (out.numel() == 0) return out;
  const Tensor source = as_contiguous(xyz);
  dispatch(source, kOp, [&](auto in) {
    using T = decltype(in);
    using A = Accumulate<T>;
    const Parameter<A> blend_values(blend), affine_values(affine), weights(convert_weight),
        blur_values(blur), noise_values(noise), std_values(noise_std);
    std::vector<Differences<A>> differences;
    for (const StreamGroup& group : groups) {
      differences.emplace_back(parent_table.row(group.first),
                               part.has_value() ? part_table.row(0) : nullptr, parts, persons);
    }
    const Problem<T> problem{
        data<T>(source), xyz.size(1),  xyz.size(2),   xyz.size(3),  dims,          frames,
        joints,          persons,      parts,         taps,         averaged,      bounds_table,
        frame_table,     parent_table, part_table,    person_table, convert_table, order_table,
        branch_table,    blend_values, affine_values, weights,      blur_values,   noise_values,
        std_values,      draw_table,   kinds,         groups,       differences,   seed,
        epoch,           stream,       keep_missing,  unit_box,     native,        native_mean};
    dispatch(dtype, kOp, [&](auto to) {
      using U = decltype(to);
      const int64_t size = out.numel() / batch;
      torch::stable::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
        Sampler<T> sampler(problem);
        for (int64_t n = begin; n < end; ++n) sampler.run(n, data<U>(out) + n * size);
      });
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("sample_clips", TORCH_BOX(&sample_clips)); }

}  // namespace skelops
