// x3d_block: a block of X3D at inference. A few frames, or some rows of a large one, stay in cache
// from the expansion to the projection; with squeeze and excitation, which looks at the whole clip,
// they leave it once in between.
#include <algorithm>
#include <vector>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/shift.h"
#include "math/logistic.h"
#include "math/moments.h"

namespace skelops {
namespace {

constexpr int64_t kSide = 3, kTaps = kSide * kSide;

struct Parameters {
  Tensor expand, expand_bias, depthwise, depthwise_bias, project, bias;
  OptionalTensor shortcut, squeeze, squeeze_bias, excite, excite_bias;
};

struct Sizes {
  Sizes(const Tensor& x, const Parameters& p, int64_t fold, int64_t stride) : stride(stride) {
    constexpr const char* op = "x3d_block";
    SKELOPS_CHECK(x.dim() == 5 && p.expand.dim() == 2 && p.project.dim() == 2 && stride > 0, op,
                  "x (N, C, T, H, W), matrices and stride >= 1");
    batch = x.size(0), inputs = x.size(1), frames = x.size(2), height = x.size(3);
    width = x.size(4);
    hidden = p.expand.size(0), outputs = p.project.size(0);
    SKELOPS_CHECK(p.expand.size(1) == inputs && p.project.size(1) == hidden &&
                      p.depthwise.numel() == hidden * kTaps && p.expand_bias.numel() == hidden &&
                      p.depthwise_bias.numel() == hidden && p.bias.numel() == outputs,
                  op, "weights that fit x and one another");
    SKELOPS_CHECK(p.shortcut.has_value() ? p.shortcut->numel() == outputs * inputs
                                         : stride == 1 && inputs == outputs,
                  op, "a shortcut (C', C), or features of the same size");
    if (p.squeeze.has_value()) {
      squeezed = p.squeeze->size(0);
      SKELOPS_CHECK(p.squeeze->numel() == squeezed * hidden && p.squeeze_bias.has_value() &&
                        p.squeeze_bias->numel() == squeezed && p.excite.has_value() &&
                        p.excite->numel() == hidden * squeezed && p.excite_bias.has_value() &&
                        p.excite_bias->numel() == hidden,
                    op, "squeeze (R, H), excite (H, R) and their biases");
    }
    SKELOPS_CHECK(fold >= 0 && 2 * fold <= inputs, op, "fold of at most C / 2");
    shift = {fold, height * width, frames * height * width};
    rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
    constexpr int64_t kElements = 64 * 1024;  // of the expanded features of a task
    const int64_t plane = std::max<int64_t>(hidden * height * width, 1);
    group = std::clamp<int64_t>(kElements / plane, 1, std::max<int64_t>(frames, 1));
    const int64_t fit = kElements / std::max<int64_t>(hidden * width, 1);
    band = plane <= kElements ? rows : std::clamp<int64_t>((fit - kSide) / stride + 1, 1, rows);
    bands = band == 0 ? 0 : (rows + band - 1) / band;
    tasks = bands * ((frames + group - 1) / group);
  }

  int64_t pixels() const { return rows * columns; }

  TemporalShift shift;
  int64_t stride, batch, inputs, hidden, outputs, squeezed = 0, frames, height, width;
  int64_t rows, columns;              // of a frame of the result
  int64_t group, band, bands, tasks;  // frames and rows of a task; tasks of a sample
};

// Frames and rows of the result that a task makes.
struct Part {
  Part(const Sizes& s, int64_t task)
      : sample(task / s.tasks),
        frame(task % s.tasks / s.bands * s.group),
        frames(std::min(s.group, s.frames - frame)),
        row(task % s.bands * s.band),
        rows(std::min(s.band, s.rows - row)),
        first(std::max<int64_t>(row * s.stride - 1, 0)),
        last(std::min((row + rows - 1) * s.stride + kSide - 1, s.height)),
        count(frames * rows * s.columns) {}

  int64_t sample, frame, frames, row, rows;
  int64_t first, last;  // rows of x, as wide as the convolution looks
  int64_t count;        // columns of products
};

template <typename A>
void product(const A* weight, int64_t m, int64_t k, const A* b, int64_t n, A* c, bool accumulate) {
  Product<A> p{};
  p.m = m, p.n = n, p.k = k;
  p.a = weight, p.a_row = k, p.a_col = 1;
  p.b = b, p.b_row = n;
  p.c = c, p.c_row = n;
  p.accumulate = accumulate;
  multiply(p);
}

// x + bias without what is below zero; NaN stays.
template <typename A>
void biased_relu(const A* x, A bias, int64_t count, A* to) {
  for (int64_t i = 0; i < count; ++i) {
    const A value = x[i] + bias;
    to[i] = value < 0 ? A(0) : value;
  }
}

// g x sigmoid(g x)
template <typename A>
void swish(A* values, int64_t count, A gain) {
  using S = Simd<A>;
  for (int64_t i = 0; i < count; i += S::kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, count - i));
    const auto x = load_some(values + i, lanes) * gain;
    const auto y = x * logistic(x);
    if (lanes == S::kLanes) {
      S::store(values + i, y);
    } else {
      S::store(values + i, y, lanes);
    }
  }
}

// Weighted sums of 3 x 3 neighbours at `count` places of a plane with rows of `width`.
template <typename A>
void convolve(const A* plane, int64_t width, const A* weight, A bias, int64_t count, A* to) {
  using S = Simd<A>;
  for (int64_t i = 0; i < count; i += S::kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, count - i));
    auto sum = typename S::Vec{} + bias;
    for (int tap = 0; tap < kTaps; ++tap) {
      const A* from = plane + i + tap / kSide * width + tap % kSide;
      sum += load_some(from, lanes) * weight[tap];
    }
    if (lanes == S::kLanes) {
      S::store(to + i, sum);
    } else {
      S::store(to + i, sum, lanes);
    }
  }
}

template <typename T>
class Block {
 public:
  using A = Accumulate<T>;

  Block(const Tensor& x, const Parameters& p, const Sizes& s)
      : s_(s),
        samples_(x),
        expand_(p.expand),
        project_(p.project),
        shortcut_(p.shortcut),
        expand_bias_(parameter<A>(p.expand_bias)),
        depthwise_(parameter<A>(p.depthwise)),
        depthwise_bias_(parameter<A>(p.depthwise_bias)),
        bias_(parameter<A>(p.bias)) {}

  // The features of a part (hidden, columns) up to their convolution over pixels.
  void widen(const Part& at, A* to) const {
    const int64_t seen = at.last - at.first, side = s_.width + 2;
    const int64_t count = at.frames * seen * s_.width;
    const Scratch<A> columns(s_.inputs * count), expanded(s_.hidden * count);
    const int64_t begin = at.frame * s_.shift.frame + at.first * s_.width;
    s_.shift.gather(samples_.raw(at.sample), s_.inputs, begin, count, columns.get());
    product(expand_.data(), s_.hidden, s_.inputs, columns.get(), count, expanded.get(), false);

    // A plane of one channel, with a border of zeros.
    const int64_t high = (at.rows - 1) * s_.stride + kSide;
    std::vector<A> plane(high * side), sums(high * side);
    const int64_t above = at.first - (at.row * s_.stride - 1);
    for (int64_t c = 0; c < s_.hidden; ++c) {
      for (int64_t f = 0; f < at.frames; ++f) {
        const A* from = expanded.get() + c * count + f * seen * s_.width;
        for (int64_t y = 0; y < seen; ++y) {
          biased_relu(from + y * s_.width, expand_bias_[c], s_.width,
                      plane.data() + (above + y) * side + 1);
        }
        A* out = to + c * at.count + f * at.rows * s_.columns;
        filter(at, plane.data(), c, sums.data(), out);
      }
    }
  }

  // From features behind their activation to the result.
  void narrow(const Part& at, const A* features, T* out) const {
    const Scratch<A> result(s_.outputs * at.count);
    const T* x = samples_.raw(at.sample);
    if (shortcut_.present()) {
      const Scratch<A> near(s_.inputs * at.count);
      strided(at, x, near.get());
      product(shortcut_.data(), s_.outputs, s_.inputs, near.get(), at.count, result.get(), false);
    }
    product(project_.data(), s_.outputs, s_.hidden, features, at.count, result.get(),
            shortcut_.present());
    const bool whole = at.rows == s_.rows;
    const int64_t runs = whole ? 1 : at.frames, run = at.count / runs;
    const int64_t first = at.frame * s_.pixels() + at.row * s_.columns;
    for (int64_t c = 0; c < s_.outputs; ++c) {
      for (int64_t r = 0; r < runs; ++r) {
        A* from = result.get() + c * at.count + r * run;
        const int64_t to = c * s_.frames * s_.pixels() + first + r * s_.pixels();
        if (!shortcut_.present()) {
          for (int64_t i = 0; i < run; ++i) from[i] += static_cast<A>(x[to + i]);
        }
        biased_relu(from, bias_[c], run, from);
        convert(from, out + at.sample * s_.outputs * s_.frames * s_.pixels() + to, run);
      }
    }
  }

 private:
  void filter(const Part& at, const A* plane, int64_t c, A* sums, A* out) const {
    const int64_t side = s_.width + 2;
    const A* weight = depthwise_.data() + c * kTaps;
    if (s_.stride == 1) {  // places between the rows are filtered, too, and left behind
      convolve(plane, side, weight, depthwise_bias_[c], at.rows * side - 2, sums);
    }
    for (int64_t y = 0; y < at.rows; ++y, out += s_.columns) {
      A* row = sums + y * side;
      if (s_.stride == 1) {
        std::copy_n(row, s_.columns, out);
        continue;
      }
      convolve(plane + y * s_.stride * side, side, weight, depthwise_bias_[c], s_.width, row);
      for (int64_t i = 0; i < s_.columns; ++i) out[i] = row[i * s_.stride];
    }
  }

  // Every stride-th pixel of x.
  void strided(const Part& at, const T* x, A* to) const {
    for (int64_t c = 0; c < s_.inputs; ++c) {
      for (int64_t f = 0; f < at.frames; ++f) {
        const T* frame = x + c * s_.shift.row + (at.frame + f) * s_.shift.frame;
        for (int64_t y = at.row; y < at.row + at.rows; ++y, to += s_.columns) {
          const T* row = frame + y * s_.stride * s_.width;
          for (int64_t i = 0; i < s_.columns; ++i) to[i] = static_cast<A>(row[i * s_.stride]);
        }
      }
    }
  }

  const Sizes& s_;
  Samples<T> samples_;
  Parameter<A> expand_, project_, shortcut_;
  std::vector<A> expand_bias_, depthwise_, depthwise_bias_, bias_;
};

// sigmoid(W2 relu(W1 mean + b1) + b2) of every sample, (N, hidden).
template <typename A>
std::vector<A> gains(const Sizes& s, const Parameters& p, const std::vector<double>& sums) {
  const auto w1 = parameter<A>(p.squeeze), b1 = parameter<A>(p.squeeze_bias);
  const auto w2 = parameter<A>(p.excite), b2 = parameter<A>(p.excite_bias);
  std::vector<A> found(s.batch * s.hidden), mean(s.hidden), small(s.squeezed);
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t c = 0; c < s.hidden; ++c) {
      double total = 0;
      for (int64_t task = n * s.tasks; task < (n + 1) * s.tasks; ++task) {
        total += sums[task * s.hidden + c];
      }
      mean[c] = static_cast<A>(total / static_cast<double>(s.frames * s.pixels()));
    }
    for (int64_t r = 0; r < s.squeezed; ++r) {
      A value = b1[r];
      for (int64_t c = 0; c < s.hidden; ++c) value += w1[r * s.hidden + c] * mean[c];
      small[r] = value < 0 ? A(0) : value;
    }
    for (int64_t c = 0; c < s.hidden; ++c) {
      A value = b2[c];
      for (int64_t r = 0; r < s.squeezed; ++r) value += w2[c * s.squeezed + r] * small[r];
      found[n * s.hidden + c] = logistic(typename Simd<A>::Vec{} + value)[0];
    }
  }
  return found;
}

template <typename T>
Tensor forward(const Tensor& x, const Parameters& p, const Sizes& s) {
  using A = Accumulate<T>;
  Tensor out = new_tensor<T>(x, {s.batch, s.outputs, s.frames, s.rows, s.columns});
  if (out.numel() == 0) return out;
  const Block<T> block(x, p, s);
  const int64_t size = s.hidden * s.group * s.band * s.columns;
  if (!p.squeeze.has_value()) {
    parallel(s.batch * s.tasks, [&](int64_t task) {
      const Part at(s, task);
      const Scratch<A> features(size);
      block.widen(at, features.get());
      swish(features.get(), s.hidden * at.count, A(1));
      block.narrow(at, features.get(), data<T>(out));
    });
    return out;
  }
  const Scratch<A> features(s.batch * s.tasks * size);
  std::vector<double> sums(s.batch * s.tasks * s.hidden);
  parallel(s.batch * s.tasks, [&](int64_t task) {
    const Part at(s, task);
    A* mine = features.get() + task * size;
    block.widen(at, mine);
    for (int64_t c = 0; c < s.hidden; ++c) {
      sums[task * s.hidden + c] = sum(mine + c * at.count, at.count);
    }
  });
  const std::vector<A> gain = gains<A>(s, p, sums);
  parallel(s.batch * s.tasks, [&](int64_t task) {
    const Part at(s, task);
    A* mine = features.get() + task * size;
    for (int64_t c = 0; c < s.hidden; ++c) {
      swish(mine + c * at.count, at.count, gain[at.sample * s.hidden + c]);
    }
    block.narrow(at, mine, data<T>(out));
  });
  return out;
}

Tensor x3d_block(Tensor x, Tensor expand, Tensor expand_bias, Tensor depthwise,
                 Tensor depthwise_bias, Tensor project, Tensor bias, OptionalTensor shortcut,
                 OptionalTensor squeeze, OptionalTensor squeeze_bias, OptionalTensor excite,
                 OptionalTensor excite_bias, int64_t fold, int64_t stride) {
  const Parameters p{expand,   expand_bias, depthwise,    depthwise_bias, project,    bias,
                     shortcut, squeeze,     squeeze_bias, excite,         excite_bias};
  const Sizes s(x, p, fold, stride);
  return dispatch(x, "x3d_block", [&](auto type) { return forward<decltype(type)>(x, p, s); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("x3d_block", TORCH_BOX(&x3d_block)); }

}  // namespace skelops
