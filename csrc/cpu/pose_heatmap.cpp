// pose_heatmap: every person draws the box around a joint or limb on an empty plane, which is
// stored while the next one is drawn. A point is the product of one row and one column of
// exponentials; a segment has one per pixel.
#include <cmath>
#include <cstdint>

#include "common/parallel.h"
#include "common/simd.h"
#include "common/tensor.h"
#include "math/exp2.h"

namespace skelops {
namespace {

constexpr const char* kOp = "pose_heatmap";
constexpr double kLog2e = 1.4426950408889634;

// What one person leaves on a map: the segment from a to b, or the point a, within a box.
template <typename A>
struct Mark {
  bool drawn = false, point;
  int64_t from, to;  // joints of the person at both ends
  int64_t scored;    // the one whose score is the peak
  A ax, ay, dx, dy;  // a, and b - a
  A unit_x, unit_y;  // (b - a) / |b - a|^2
  A peak;            // score
  A turned;          // sign of x in key-points
  int64_t x0, x1, y0, y1;
};

struct Drawing {
  Drawing(const Tensor& keypoint, const Tensor& score, const OptionalTensor& flip,
          const std::vector<int64_t>& pairs, const std::vector<int64_t>& flipped, int64_t height,
          int64_t width, double sigma, double eps, bool mirror_pixels)
      : pairs(pairs),
        flipped(flipped),
        height(height),
        width(width),
        sigma(sigma),
        eps(eps),
        mirror_pixels(mirror_pixels) {
    SKELOPS_CHECK(keypoint.dim() == 5 && keypoint.size(4) == 2, kOp, "keypoint (N, M, T, V, 2)");
    batch = keypoint.size(0), persons = keypoint.size(1);
    frames = keypoint.size(2), joints = keypoint.size(3);
    SKELOPS_CHECK(
        2 * score.numel() == keypoint.numel() && score.scalar_type() == keypoint.scalar_type(), kOp,
        "score (N, M, T, V) of keypoint's dtype");
    maps = static_cast<int64_t>(pairs.size()) / 2;
    SKELOPS_CHECK(pairs.size() % 2 == 0 && flipped.size() == pairs.size(), kOp,
                  "pairs of joints, as many flipped");
    for (const auto* table : {&pairs, &flipped}) {
      SKELOPS_CHECK(std::all_of(table->begin(), table->end(),
                                [&](int64_t v) { return v >= 0 && v < joints; }),
                    kOp, "pairs of joints of keypoint");
    }
    SKELOPS_CHECK(height > 0 && width > 0, kOp, "a positive height and width");
    turned.assign(batch, 0);
    if (flip.has_value()) {
      SKELOPS_CHECK(flip->numel() == batch && flip->scalar_type() == ScalarType::Bool, kOp,
                    "flip (N,) of bool");
      const Tensor dense = as_contiguous(*flip);
      const auto* from = static_cast<const uint8_t*>(dense.data_ptr());
      turned.assign(from, from + batch);
    }
  }

  int64_t plane() const { return height * width; }
  std::vector<int64_t> shape() const { return {batch, maps, frames, height, width}; }

  const std::vector<int64_t>&pairs, &flipped;
  int64_t height, width, batch, persons, frames, joints, maps;
  double sigma, eps;
  bool mirror_pixels;
  std::vector<uint8_t> turned;
};

template <typename A>
class Painter {
 public:
  using S = Simd<A>;
  using Vec = typename S::Vec;

  Painter(const Drawing& d, const A* keypoint, const A* score)
      : d_(d),
        keypoint_(keypoint),
        score_(score),
        reach_(static_cast<A>(3 * d.sigma)),
        steepness_(static_cast<A>(kLog2e / (2 * d.sigma * d.sigma))),
        rows_(d.height + S::kLanes),
        place_(d.width + S::kLanes) {}

  // The sample whose maps come next: it decides where columns lie.
  void begin(int64_t n) {
    n_ = n;
    const bool mirrored = d_.turned[n] && d_.mirror_pixels;
    for (int64_t j = 0; j < d_.width + S::kLanes; ++j) {
      place_[j] = static_cast<A>(mirrored ? d_.width - 1 - j : j);
    }
  }

  Mark<A> mark(int64_t k, int64_t m, int64_t t) const {
    const bool turned = d_.turned[n_];
    const std::vector<int64_t>& pairs = turned ? d_.flipped : d_.pairs;
    const int64_t first = ((n_ * d_.persons + m) * d_.frames + t) * d_.joints;
    Mark<A> mark;
    mark.from = mark.scored = first + pairs[2 * k], mark.to = first + pairs[2 * k + 1];
    const A score_a = score_[mark.from], score_b = score_[mark.to];
    A ax = keypoint_[2 * mark.from], ay = keypoint_[2 * mark.from + 1];
    A bx = keypoint_[2 * mark.to], by = keypoint_[2 * mark.to + 1];
    const A least = static_cast<A>(d_.eps);
    // Written so that NaN draws nothing.
    if (!(score_a >= least && score_b >= least)) return mark;
    if (!(std::isfinite(ax) && std::isfinite(ay) && std::isfinite(bx) && std::isfinite(by))) {
      return mark;
    }
    const bool mirrored = turned && d_.mirror_pixels;
    mark.turned = 1;
    if (turned && !d_.mirror_pixels) {
      mark.turned = -1;
      if (ax != 0) ax = static_cast<A>(d_.width) - ax;
      if (bx != 0) bx = static_cast<A>(d_.width) - bx;
    }
    const A length = (ax - bx) * (ax - bx) + (ay - by) * (ay - by);
    mark.point = length < 1;
    if (mark.point) bx = ax, by = ay;
    if (!mark.point && score_b < score_a) mark.scored = mark.to;
    mark.peak = score_[mark.scored];
    mark.ax = ax, mark.ay = ay, mark.dx = bx - ax, mark.dy = by - ay;
    mark.unit_x = mark.point ? A(0) : mark.dx / length;
    mark.unit_y = mark.point ? A(0) : mark.dy / length;
    box(ax, bx, d_.width, mark.x0, mark.x1);
    box(ay, by, d_.height, mark.y0, mark.y1);
    if (mirrored) {
      const int64_t x0 = mark.x0;
      mark.x0 = d_.width - mark.x1, mark.x1 = d_.width - x0;
    }
    mark.drawn = mark.x0 < mark.x1 && mark.y0 < mark.y1;
    return mark;
  }

  // plane = max(plane, mark); where it is the mark, owner becomes `name`. `beside()` is called with
  // every vector of pixels.
  template <bool kOwners, typename F>
  void draw(const Mark<A>& mark, A* plane, A* owner, A name, const F& beside) const {
    if (mark.point) {
      Vec y = {};
      for (int i = 0; i < S::kLanes; ++i) y[i] = static_cast<A>(mark.y0 + i) - mark.ay;
      for (int64_t i = mark.y0; i < mark.y1; i += S::kLanes, y += S::kLanes) {
        S::store(&rows_[i], mark.peak * bell(y * y));
      }
    }
    for (int64_t j = mark.x0; j < mark.x1; j += S::kLanes) {
      const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, mark.x1 - j));
      const Vec rx = S::load(&place_[j]) - mark.ax;
      if (mark.point) {
        const Vec column = bell(rx * rx);
        paint<kOwners>(mark, j, lanes, plane, owner, name, [&](int64_t i) {
          beside();
          return rows_[i] * column;
        });
      } else {
        paint<kOwners>(mark, j, lanes, plane, owner, name, [&](int64_t i) {
          beside();
          const Offset o = offset(mark, rx, i);
          return mark.peak * bell(o.x * o.x + o.y * o.y);
        });
      }
    }
  }

  // The box of a mark, empty again.
  void clear(const Mark<A>& mark, A* plane) const {
    for (int64_t i = mark.y0; i < mark.y1; ++i) {
      std::fill(plane + i * d_.width + mark.x0, plane + i * d_.width + mark.x1, A(0));
    }
  }

  // Adds the gradients of what the owner of these pixels drew.
  void gradient(const Mark<A>& mark, const A* plane, const A* owner, A name, const A* grad,
                A* dkeypoint, A* dscore) const {
    Vec score = {}, ax = {}, ay = {}, bx = {}, by = {};
    for (int64_t j = mark.x0; j < mark.x1; j += S::kLanes) {
      const int lanes = static_cast<int>(std::min<int64_t>(S::kLanes, mark.x1 - j));
      const Vec rx = S::load(&place_[j]) - mark.ax;
      for (int64_t i = mark.y0; i < mark.y1; ++i) {
        const int64_t at = i * d_.width + j;
        const Vec mine = load_some(owner + at, lanes);
        const Vec g = load_some(grad + at, lanes) * load_some(plane + at, lanes);
        const Vec w = mine == Vec{} + name ? g : Vec{};
        const Offset o = offset(mark, rx, i);
        score += w;
        ax += w * (1 - o.along) * o.x, ay += w * (1 - o.along) * o.y;
        bx += w * o.along * o.x, by += w * o.along * o.y;
      }
    }
    const A scale = static_cast<A>(1 / (d_.sigma * d_.sigma));
    dscore[mark.scored] += S::sum(score) / mark.peak;
    dkeypoint[2 * mark.from] += mark.turned * scale * S::sum(ax);
    dkeypoint[2 * mark.from + 1] += scale * S::sum(ay);
    if (mark.point) return;
    dkeypoint[2 * mark.to] += mark.turned * scale * S::sum(bx);
    dkeypoint[2 * mark.to + 1] += scale * S::sum(by);
  }

 private:
  struct Offset {
    Vec along, x, y;  // where on the segment the nearest point is, and the way from there
  };

  Offset offset(const Mark<A>& mark, Vec rx, int64_t row) const {
    const A ry = static_cast<A>(row) - mark.ay;
    Vec along = rx * mark.unit_x + ry * mark.unit_y;
    along = along > Vec{} ? along : Vec{};
    along = along < Vec{} + 1 ? along : Vec{} + 1;
    return {along, rx - along * mark.dx, ry - along * mark.dy};
  }

  // Too little to be a normal number is zero.
  Vec bell(Vec square) const { return exp2_nonpositive(-steepness_ * square); }

  // The rows of the mark from column j on; value(row) is what it shows there.
  template <bool kOwners, typename F>
  void paint(const Mark<A>& mark, int64_t j, int lanes, A* plane, A* owner, A name,
             const F& value_of) const {
    for (int64_t i = mark.y0; i < mark.y1; ++i) {
      const Vec value = value_of(i);
      const int64_t at = i * d_.width + j;
      const Vec before = load_some(plane + at, lanes);
      store_some(plane + at, value > before ? value : before, lanes);
      if constexpr (kOwners) {
        const Vec known = load_some(owner + at, lanes);
        store_some(owner + at, value > before ? Vec{} + name : known, lanes);
      }
    }
  }

  static Vec load_some(const A* p, int lanes) {
    return lanes == S::kLanes ? S::load(p) : S::load(p, lanes);
  }

  static void store_some(A* p, Vec v, int lanes) {
    lanes == S::kLanes ? S::store(p, v) : S::store(p, v, lanes);
  }

  void box(A a, A b, int64_t size, int64_t& low, int64_t& high) const {
    const A limit = static_cast<A>(size);
    low = static_cast<int64_t>(std::clamp(std::min(a, b) - reach_, A(0), limit));
    high = static_cast<int64_t>(std::clamp(std::trunc(std::max(a, b) + reach_) + 1, A(0), limit));
  }

  const Drawing& d_;
  const A *keypoint_, *score_;
  const A reach_, steepness_;
  const Scratch<A> rows_, place_;
  int64_t n_ = 0;
};

// A plane on its way to where it is stored; bytes are floor(255 y + 0.5). What is stored as it is
// goes past the caches, a few lines at a time beside other work: memory is never without a write.
template <typename A, typename U>
class Transfer {
 public:
  static constexpr bool kByLines = std::is_same_v<A, U>;

  Transfer() = default;
  Transfer(const A* from, U* to, int64_t count) : from_(from), to_(to), left_(count) {
    if constexpr (kByLines) {
      move((-reinterpret_cast<intptr_t>(to) & (kVectorBytes - 1)) /
           static_cast<intptr_t>(sizeof(U)));
    }
  }

  void some() {
    if constexpr (kByLines) move(4 * Simd<A>::kLanes);
  }

  void finish() {
    if constexpr (std::is_same_v<U, uint8_t>) {
      for (int64_t i = 0; i < left_; ++i) {
        const A level = 255 * from_[i] + A(0.5);
        to_[i] = static_cast<uint8_t>(static_cast<int32_t>(level < A(255) ? level : A(255)));
      }
    } else {
      stream_as(from_, to_, left_);
    }
    left_ = 0;
  }

 private:
  void move(int64_t count) {
    count = std::min(count, left_);
    stream(from_, to_, count);
    from_ += count, to_ += count, left_ -= count;
  }

  const A* from_ = nullptr;
  U* to_ = nullptr;
  int64_t left_ = 0;
};

template <typename A, typename U>
void forward(const Drawing& d, const Tensor& keypoint, const Tensor& score, U* out) {
  const Parameter<A> points(keypoint), scores(score);
  parallel(d.batch * d.maps, [&](int64_t task) {
    const int64_t n = task / d.maps, k = task % d.maps;
    Painter<A> painter(d, points.data(), scores.data());
    painter.begin(n);
    // A plane is drawn while the one before is stored, and is empty again when its turn comes.
    const Scratch<A> planes(2 * d.plane());
    std::fill_n(planes.get(), 2 * d.plane(), A(0));
    std::vector<Mark<A>> marks(2 * d.persons);
    Transfer<A, U> transfer;
    for (int64_t t = 0; t < d.frames; ++t) {
      A* plane = planes.get() + t % 2 * d.plane();
      Mark<A>* mark = marks.data() + t % 2 * d.persons;
      for (int64_t m = 0; m < d.persons; ++m) {
        if (mark[m].drawn) painter.clear(mark[m], plane);
        mark[m] = painter.mark(k, m, t);
      }
      for (int64_t m = 0; m < d.persons; ++m) {
        if (!mark[m].drawn) continue;
        painter.template draw<false>(mark[m], plane, nullptr, A(0), [&] { transfer.some(); });
      }
      transfer.finish();
      transfer = {plane, out + (task * d.frames + t) * d.plane(), d.plane()};
    }
    transfer.finish();
    stream_end();
  });
}

template <typename A, typename U>
void backward(const Drawing& d, const Tensor& grad, const Tensor& keypoint, const Tensor& score,
              A* dkeypoint, A* dscore) {
  const Parameter<A> points(keypoint), scores(score);
  const U* gradients = data<U>(grad);
  parallel(d.batch * d.frames, [&](int64_t task) {
    const int64_t n = task / d.frames, t = task % d.frames;
    Painter<A> painter(d, points.data(), scores.data());
    painter.begin(n);
    const Scratch<A> plane(d.plane()), owner(d.plane());
    const Scratch<A> converted(std::is_same_v<A, U> ? 0 : d.plane());
    std::vector<Mark<A>> marks(d.persons);
    for (int64_t k = 0; k < d.maps; ++k) {
      bool any = false;
      for (int64_t m = 0; m < d.persons; ++m) any |= (marks[m] = painter.mark(k, m, t)).drawn;
      if (!any) continue;
      std::fill_n(plane.get(), d.plane(), A(0));
      std::fill_n(owner.get(), d.plane(), A(-1));
      for (int64_t m = 0; m < d.persons; ++m) {
        if (marks[m].drawn) {
          painter.template draw<true>(marks[m], plane.get(), owner.get(), static_cast<A>(m), [] {});
        }
      }
      const U* from = gradients + ((n * d.maps + k) * d.frames + t) * d.plane();
      const A* g;
      if constexpr (std::is_same_v<A, U>) {
        g = from;
      } else {
        convert(from, converted.get(), d.plane());
        g = converted.get();
      }
      for (int64_t m = 0; m < d.persons; ++m) {
        if (!marks[m].drawn) continue;
        painter.gradient(marks[m], plane.get(), owner.get(), static_cast<A>(m), g, dkeypoint,
                         dscore);
      }
    }
  });
}

Tensor pose_heatmap(Tensor keypoint, Tensor score, OptionalTensor flip, std::vector<int64_t> pairs,
                    std::vector<int64_t> flipped, int64_t height, int64_t width, double sigma,
                    double eps, bool mirror_pixels, ScalarType dtype) {
  const Drawing drawing(keypoint, score, flip, pairs, flipped, height, width, sigma, eps,
                        mirror_pixels);
  Tensor out = torch::stable::new_empty(keypoint, drawing.shape(), dtype);
  dispatch(keypoint, kOp, [&](auto in) {
    using A = Accumulate<decltype(in)>;
    if (dtype == ScalarType::Byte) {
      return forward<A>(drawing, keypoint, score, data<uint8_t>(out));
    }
    dispatch(dtype, kOp,
             [&](auto to) { forward<A>(drawing, keypoint, score, data<decltype(to)>(out)); });
  });
  return out;
}

std::tuple<Tensor, Tensor> pose_heatmap_backward(Tensor grad, Tensor keypoint, Tensor score,
                                                 OptionalTensor flip, std::vector<int64_t> pairs,
                                                 std::vector<int64_t> flipped, int64_t height,
                                                 int64_t width, double sigma, double eps,
                                                 bool mirror_pixels, ScalarType dtype,
                                                 int64_t needs) {
  const Drawing drawing(keypoint, score, flip, pairs, flipped, height, width, sigma, eps,
                        mirror_pixels);
  SKELOPS_CHECK(grad.numel() == drawing.batch * drawing.maps * drawing.frames * drawing.plane() &&
                    grad.scalar_type() == dtype,
                kOp, "grad_out of the result's shape and dtype");
  const Tensor dense = as_contiguous(grad);
  Tensor dkeypoint = no_gradient(keypoint), dscore = no_gradient(keypoint);
  dispatch(keypoint, kOp, [&](auto in) {
    using A = Accumulate<decltype(in)>;
    std::vector<A> of_points(keypoint.numel()), of_scores(score.numel());
    dispatch(grad, kOp, [&](auto to) {
      backward<A, decltype(to)>(drawing, dense, keypoint, score, of_points.data(),
                                of_scores.data());
    });
    if (wants(needs, 0)) dkeypoint = gradient_of(keypoint, of_points);
    if (wants(needs, 1)) dscore = gradient_of(score, of_scores);
  });
  return {dkeypoint, dscore};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("pose_heatmap", TORCH_BOX(&pose_heatmap));
  m.impl("pose_heatmap_backward", TORCH_BOX(&pose_heatmap_backward));
}

}  // namespace skelops
