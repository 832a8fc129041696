// skeleton_streams: a row of joints is held in registers while all streams of one parent table are
// picked from it; the gradient of a row is gathered likewise, each joint from the values it is in.
#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"
#include "cpu/streams.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr const char* kOp = "skeleton_streams";

struct Problem {
  Problem(const Tensor& x, const std::vector<int64_t>& parent, const std::vector<int64_t>& part,
          const std::vector<int64_t>& kinds)
      : parent(parent), part(part), kinds(kinds) {
    SKELOPS_CHECK(x.dim() == 5, kOp, "x (N, C, T, V, M)");
    batch = x.size(0), channels = x.size(1), frames = x.size(2), joints = x.size(3);
    persons = x.size(4), parts = static_cast<int64_t>(part.size());
    streams = static_cast<int64_t>(kinds.size());
    SKELOPS_CHECK(static_cast<int64_t>(parent.size()) == streams * parts, kOp, "parent (S, W)");
    const auto inside = [&](int64_t low) {
      return [=, this](int64_t v) { return v >= low && v < joints; };
    };
    SKELOPS_CHECK(std::all_of(part.begin(), part.end(), inside(0)) &&
                      std::all_of(parent.begin(), parent.end(), inside(-1)),
                  kOp, "joints of x in part and parent");
    groups = grouped(kinds, parent.data(), parts);
    whole = parts == joints;
    for (int64_t w = 0; w < parts; ++w) whole &= part[w] == w;
  }

  int64_t row() const { return joints * persons; }
  int64_t width() const { return parts * persons; }
  int64_t plane() const { return frames * row(); }
  int64_t size() const { return frames * width(); }
  bool moves(int64_t stream) const { return kinds[stream] & kMotion; }
  std::vector<int64_t> shape() const { return {batch, streams * channels, frames, parts, persons}; }

  // function(n * C + c, scratch of the thread) for every plane.
  template <typename Scratch, typename F>
  void each_plane(const F& function) const {
    torch::stable::parallel_for(0, batch * channels, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(*this);
      for (int64_t i = begin; i < end; ++i) function(i, scratch);
    });
  }

  // Where stream 0 of a plane begins in the streams' tensor; the next one is channels * size on.
  int64_t first(int64_t i) const {
    return (i / channels * streams * channels + i % channels) * size();
  }

  const std::vector<int64_t>&parent, &part, &kinds;
  int64_t batch, channels, frames, joints, persons, parts, streams;
  bool whole;  // the part is all joints in order
  std::vector<StreamGroup> groups;
};

// The first `count` of a vector's lanes.
template <typename A>
void store_some(A* p, typename Simd<A>::Vec v, int64_t count) {
  if (count >= Simd<A>::kLanes) {
    Simd<A>::store(p, v);
  } else {
    Simd<A>::store(p, v, static_cast<int>(count));
  }
}

template <typename A>
class Forward {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit Forward(const Problem& p)
      : p_(p), last_(p.row() + 4 * S::kLanes), before_(p.width() + S::kLanes) {
    std::fill_n(last_.get(), p.row() + 4 * S::kLanes, A(0));
    for (const StreamGroup& group : p.groups) {
      differences_.emplace_back(&p.parent[group.first * p.parts], p.whole ? nullptr : p.part.data(),
                                p.parts, p.persons);
    }
  }

  // `to` holds the plane of every stream.
  void run(const A* x, A* const* to) {
    for (size_t g = 0; g < p_.groups.size(); ++g) {
      std::vector<A*> still, moving;
      for (int64_t s : p_.groups[g].streams) (p_.moves(s) ? moving : still).push_back(to[s]);
      for (int64_t t = 0; t < p_.frames; ++t) frame(x, t, differences_[g], still, moving);
      for (A* y : moving) std::fill_n(y + p_.size() - p_.width(), p_.width(), A(0));
    }
  }

 private:
  void frame(const A* x, int64_t t, const Differences<A>& differences, const std::vector<A*>& still,
             const std::vector<A*>& moving) {
    const int64_t width = p_.width(), at = t * width;
    const A* z = padded_row(x, t);
    const Row<A> joints(z, p_.row());
    for (int64_t j = 0; j < width; j += S::kLanes) {
      const Vec y = differences.at(z, joints, j);
      // A vector may pass the end of its row, as the next frame overwrites that.
      for (A* out : still) store_some(out + at + j, y, p_.size() - at - j);
      if (moving.empty()) continue;
      const Vec step = y - S::load(&before_[j]);
      S::store(&before_[j], y);
      for (A* out : moving) {
        if (t > 0) store_some(out + at - width + j, step, p_.size() - at - j);
      }
    }
  }

  // A row that may be read past its end: by a vector, or as far as a Row holds.
  const A* padded_row(const A* x, int64_t t) {
    const A* z = x + t * p_.row();
    if (t * p_.row() + p_.row() + S::kLanes <= p_.plane()) return z;
    std::copy_n(z, p_.row(), last_.get());
    return last_.get();
  }

  const Problem& p_;
  const Scratch<A> last_, before_;
  std::vector<Differences<A>> differences_;
};

// The gradient of the joints from that of one group's differences: for each vector of joints, the
// places they are taken from and whether they are added or subtracted there.
template <typename A>
class Collector {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  Collector(const Problem& p, const StreamGroup& group) {
    std::vector<std::vector<std::pair<int64_t, A>>> found(p.joints);
    for (int64_t w = 0; w < p.parts; ++w) {
      const int64_t parent = p.parent[group.first * p.parts + w];
      if (parent == p.part[w]) continue;
      found[p.part[w]].push_back({w, A(1)});
      if (parent >= 0) found[parent].push_back({w, A(-1)});
    }
    for (int64_t j = 0; j < p.row(); j += S::kLanes) {
      begin_.push_back(static_cast<int64_t>(place_.size()));
      const int64_t lanes = std::min<int64_t>(S::kLanes, p.row() - j);
      size_t degree = 0;
      for (int64_t i = j; i < j + lanes; ++i) {
        degree = std::max(degree, found[i / p.persons].size());
      }
      for (size_t k = 0; k < degree; ++k) {
        for (int64_t i = j; i < j + S::kLanes; ++i) {
          const bool used = i < j + lanes && k < found[i / p.persons].size();
          const auto [w, sign] = used ? found[i / p.persons][k] : std::pair<int64_t, A>(0, A(0));
          place_.push_back(static_cast<int32_t>(w * p.persons + (used ? i % p.persons : 0)));
          sign_.push_back(sign);
        }
      }
    }
    begin_.push_back(static_cast<int64_t>(place_.size()));
  }

  void add(const Row<A>& gradient, A* sum) const {
    for (size_t b = 0; b + 1 < begin_.size(); ++b) {
      Vec total = S::load(sum + b * S::kLanes);
      for (int64_t k = begin_[b]; k < begin_[b + 1]; k += S::kLanes) {
        const Vec sign = S::load(&sign_[k]);
        total += sign != Vec{} ? sign * gradient.pick(&place_[k]) : Vec{};
      }
      S::store(sum + b * S::kLanes, total);
    }
  }

 private:
  std::vector<int64_t> begin_;
  std::vector<int32_t> place_;
  std::vector<A> sign_;
};

template <typename A>
class Backward {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  explicit Backward(const Problem& p)
      : p_(p), gradient_(p.width() + 4 * S::kLanes), sum_(p.row() + S::kLanes) {
    std::fill_n(gradient_.get(), p.width() + 4 * S::kLanes, A(0));
    for (const StreamGroup& group : p.groups) collectors_.emplace_back(p, group);
  }

  // `from` holds the plane of every stream.
  void run(const A* const* from, A* dx) {
    for (int64_t t = 0; t < p_.frames; ++t) {
      std::fill_n(sum_.get(), p_.row() + S::kLanes, A(0));
      for (size_t g = 0; g < p_.groups.size(); ++g) {
        of_difference(p_.groups[g], from, t);
        collectors_[g].add(Row<A>(gradient_.get(), p_.width()), sum_.get());
      }
      std::copy_n(sum_.get(), p_.row(), dx + t * p_.row());
    }
  }

 private:
  // What frame t of a group's differences gets from all of its streams.
  void of_difference(const StreamGroup& group, const A* const* from, int64_t t) {
    const int64_t width = p_.width();
    for (int64_t j = 0; j < width; j += S::kLanes) {
      const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, width - j));
      Vec sum = {};
      for (int64_t s : group.streams) {
        const A* here = from[s] + t * width + j;
        if (!p_.moves(s)) {
          sum += load_some(here, lanes);
        } else {
          if (t > 0) sum += load_some(here - width, lanes);
          if (t + 1 < p_.frames) sum -= load_some(here, lanes);
        }
      }
      S::store(&gradient_[j], sum);
    }
  }

  const Problem& p_;
  const Scratch<A> gradient_, sum_;
  std::vector<Collector<A>> collectors_;
};

// A plane of x and one of every stream, in place or converted from or to their own type.
template <typename Work, typename T, typename U>
class Planes {
 public:
  using A = Accumulate<T>;

  explicit Planes(const Problem& p)
      : work(p),
        joints(kJointsInPlace ? 0 : p.plane()),
        converted(kStreamsInPlace ? 0 : p.streams * p.size()),
        streams(p.streams) {}

  static constexpr bool kJointsInPlace = std::is_same_v<T, A>;
  static constexpr bool kStreamsInPlace = std::is_same_v<U, A>;

  Work work;
  Scratch<A> joints, converted;
  std::vector<A*> streams;
};

template <typename T, typename U>
void forward(const Problem& p, const Tensor& x, U* out) {
  using Work = Planes<Forward<Accumulate<T>>, T, U>;
  const T* from = data<T>(x);
  p.template each_plane<Work>([&](int64_t i, Work& w) {
    U* to = out + p.first(i);
    for (int64_t s = 0; s < p.streams; ++s) {
      if constexpr (Work::kStreamsInPlace) {
        w.streams[s] = to + s * p.channels * p.size();
      } else {
        w.streams[s] = &w.converted[s * p.size()];
      }
    }
    if constexpr (Work::kJointsInPlace) {
      w.work.run(from + i * p.plane(), w.streams.data());
    } else {
      convert(from + i * p.plane(), w.joints.get(), p.plane());
      w.work.run(w.joints.get(), w.streams.data());
    }
    for (int64_t s = 0; s < p.streams && !Work::kStreamsInPlace; ++s) {
      convert(w.streams[s], to + s * p.channels * p.size(), p.size());
    }
  });
}

template <typename T, typename U>
void backward(const Problem& p, const Tensor& grad, T* dx) {
  using Work = Planes<Backward<Accumulate<T>>, T, U>;
  const U* gradients = data<U>(grad);
  p.template each_plane<Work>([&](int64_t i, Work& w) {
    for (int64_t s = 0; s < p.streams; ++s) {
      const U* from = gradients + p.first(i) + s * p.channels * p.size();
      if constexpr (Work::kStreamsInPlace) {
        w.streams[s] = const_cast<U*>(from);
      } else {
        w.streams[s] = &w.converted[s * p.size()];
        convert(from, w.streams[s], p.size());
      }
    }
    if constexpr (Work::kJointsInPlace) {
      w.work.run(w.streams.data(), dx + i * p.plane());
    } else {
      w.work.run(w.streams.data(), w.joints.get());
      convert(w.joints.get(), dx + i * p.plane(), p.plane());
    }
  });
}

Tensor skeleton_streams(Tensor x, std::vector<int64_t> parent, std::vector<int64_t> part,
                        std::vector<int64_t> kinds, ScalarType dtype) {
  const Problem problem(x, parent, part, kinds);
  const Tensor joints = as_contiguous(x);
  Tensor out = torch::stable::new_empty(x, problem.shape(), dtype);
  if (out.numel() == 0) return out;
  dispatch(x, kOp, [&](auto in) {
    dispatch(dtype, kOp,
             [&](auto to) { forward<decltype(in)>(problem, joints, data<decltype(to)>(out)); });
  });
  return out;
}

Tensor skeleton_streams_backward(Tensor grad_out, Tensor x, std::vector<int64_t> parent,
                                 std::vector<int64_t> part, std::vector<int64_t> kinds,
                                 ScalarType dtype, int64_t needs) {
  if (!wants(needs, 0)) return no_gradient(x);
  const Problem problem(x, parent, part, kinds);
  SKELOPS_CHECK(
      grad_out.numel() == problem.batch * problem.streams * problem.channels * problem.size() &&
          grad_out.scalar_type() == dtype,
      kOp, "grad_out of the result's shape and dtype");
  const Tensor gradient = as_contiguous(grad_out);
  const auto sizes = x.sizes();
  Tensor dx = torch::stable::new_empty(x, sizes);
  if (dx.numel() == 0) return dx;
  dispatch(x, kOp, [&](auto in) {
    dispatch(dtype, kOp, [&](auto to) {
      backward<decltype(in), decltype(to)>(problem, gradient, data<decltype(in)>(dx));
    });
  });
  return dx;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("skeleton_streams", TORCH_BOX(&skeleton_streams));
  m.impl("skeleton_streams_backward", TORCH_BOX(&skeleton_streams_backward));
}

}  // namespace skelops
