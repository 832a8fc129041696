// st_attention: online softmax over tiles of keys by queries that stay in the first-level caches. A
// row of a tile belongs to a key, so that a vector holds a value of as many queries, largest scores
// and sums are taken lane by lane, and both matrices of a product are read as they lie.
// A plan lays the tokens of a sequence out so that what a block of queries may attend to is a few
// intervals of keys; dropped keys, other frames and distant joints are then never touched.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "cpu/column_softmax.h"
#include "math/exp2.h"

namespace skelops {
namespace {

constexpr int64_t kQueries = 64;                     // of a block
constexpr int64_t kKeys = 128;                       // of a tile
constexpr int64_t kLeastQueries = kVectorBytes / 4;  // that a window does not cut further

constexpr double kLog2E = 1.4426950408889634;

struct Rules {
  int64_t heads, width, joints, window;
  bool same_joint;
  double scale;
  int64_t stride() const { return 3 * heads * width; }
};

template <typename A>
int64_t whole_vectors(int64_t count) {
  return (count + Simd<A>::kLanes - 1) / Simd<A>::kLanes * Simd<A>::kLanes;
}

// Where the sequences lie among the rows of qkv.
class Sequences {
 public:
  Sequences(const char* op, const Tensor& qkv, const OptionalTensor& cu_seqlens) {
    SKELOPS_CHECK(qkv.dim() == (cu_seqlens.has_value() ? 2 : 3), op, "qkv (N, L, 3 H D)");
    if (!cu_seqlens.has_value()) {
      rows_ = qkv.size(0) * qkv.size(1);
      for (int64_t n = 0; n <= qkv.size(0); ++n) begins_.push_back(n * qkv.size(1));
      return;
    }
    SKELOPS_CHECK(cu_seqlens->dim() == 1 && cu_seqlens->size(0) > 0, op, "cu_seqlens (S + 1,)");
    SKELOPS_CHECK(cu_seqlens->scalar_type() == ScalarType::Int, op, "cu_seqlens of int32");
    const Tensor cu = as_contiguous(*cu_seqlens);
    const int32_t* begins = data<int32_t>(cu);
    rows_ = qkv.size(0);
    begins_.assign(begins, begins + cu.numel());
    SKELOPS_CHECK(begins_.front() == 0 && begins_.back() <= rows_ &&
                      std::is_sorted(begins_.begin(), begins_.end()),
                  op, "cu_seqlens ascending from 0 to at most the rows of qkv");
  }

  int64_t count() const { return static_cast<int64_t>(begins_.size()) - 1; }
  int64_t rows() const { return rows_; }
  int64_t begin(int64_t s) const { return begins_[s]; }
  int64_t length(int64_t s) const { return begins_[s + 1] - begins_[s]; }
  int64_t end() const { return begins_.back(); }

 private:
  std::vector<int64_t> begins_;
  int64_t rows_;
};

struct Interval {
  int64_t begin, end;
};

struct Block {
  int64_t begin, end;   // queries
  int64_t first, last;  // intervals of their keys
  int32_t joint;        // of all queries, in a plan by joints
  bool differ;          // in what the window shows them
};

// Queries and keys of a sequence in the order of computation: by frames, or by joints and frames.
struct Plan {
  Plan(const Rules& rules, bool by_joint, const bool* pairs, const int32_t* tokens,
       const bool* kept, int64_t length);

  std::vector<int32_t> queries, keys;  // their rows
  std::vector<int32_t> query_frame, key_frame, key_joint;
  std::vector<Interval> intervals;
  std::vector<Block> blocks;
};

Plan::Plan(const Rules& rules, bool by_joint, const bool* pairs, const int32_t* tokens,
           const bool* kept, int64_t length)
    : queries(length) {
  const int32_t V = static_cast<int32_t>(rules.joints);
  const int64_t window = rules.window;
  const auto id = [=](int32_t i) { return tokens ? tokens[i] : i; };
  const auto group = [=](int32_t i) { return by_joint ? id(i) % V : 0; };
  std::iota(queries.begin(), queries.end(), 0);
  if (by_joint || (window >= 0 && tokens)) {
    std::stable_sort(queries.begin(), queries.end(), [&](int32_t a, int32_t b) {
      return group(a) != group(b) ? group(a) < group(b) : id(a) < id(b);
    });
  }
  const int32_t groups = by_joint ? V : 1;
  std::vector<int64_t> group_begin(groups + 1);
  for (const int32_t i : queries) {
    query_frame.push_back(id(i) / V);
    if (kept && !kept[i]) continue;
    keys.push_back(i);
    key_frame.push_back(id(i) / V);
    key_joint.push_back(id(i) % V);
    ++group_begin[group(i) + 1];
  }
  std::partial_sum(group_begin.begin(), group_begin.end(), group_begin.begin());

  for (int64_t begin = 0, end; begin < length; begin = end) {
    const int32_t joint = group(queries[begin]);
    const int64_t first_frame = query_frame[begin];
    for (end = begin + 1; end < std::min(length, begin + kQueries); ++end) {
      const bool far = window >= 0 && query_frame[end] - first_frame > window;
      if (group(queries[end]) != joint || (far && end - begin >= kLeastQueries)) break;
    }
    const int64_t last_frame = query_frame[end - 1];
    const int64_t first = intervals.size();
    for (int32_t g = 0; g < groups; ++g) {
      if (by_joint && rules.same_joint && g != joint) continue;
      if (pairs && !pairs[joint * V + g]) continue;
      Interval keys_of_group{group_begin[g], group_begin[g + 1]};
      if (window >= 0) {
        const auto from = key_frame.begin() + keys_of_group.begin;
        const auto to = key_frame.begin() + keys_of_group.end;
        keys_of_group = {
            std::lower_bound(from, to, first_frame - window) - key_frame.begin(),
            std::upper_bound(from, to, last_frame + window) - key_frame.begin(),
        };
      }
      if (keys_of_group.begin == keys_of_group.end) continue;
      if (static_cast<int64_t>(intervals.size()) > first &&
          intervals.back().end == keys_of_group.begin) {
        intervals.back().end = keys_of_group.end;
      } else {
        intervals.push_back(keys_of_group);
      }
    }
    const bool differ = window >= 0 && first_frame != last_frame;
    blocks.push_back({begin, end, first, static_cast<int64_t>(intervals.size()), joint, differ});
  }
}

// One plan for all sequences where nothing tells them apart, else one each.
class Plans {
 public:
  Plans(const char* op, const Rules& rules, bool by_joint, const Sequences& sequences,
        bool equal_lengths, const OptionalTensor& pairs, const OptionalTensor& tokens,
        const OptionalTensor& key_mask)
      : shared_(equal_lengths && !tokens.has_value() && !key_mask.has_value()) {
    const Tensor near = dense(op, pairs, ScalarType::Bool, rules.joints * rules.joints);
    const Tensor ids = dense(op, tokens, ScalarType::Int, sequences.rows());
    const Tensor mask = dense(op, key_mask, ScalarType::Bool, sequences.rows());
    const bool* near_data = pairs.has_value() ? data<bool>(near) : nullptr;
    if (tokens.has_value()) {
      const int32_t* all = data<int32_t>(ids);
      SKELOPS_CHECK(std::all_of(all, all + ids.numel(), [](int32_t i) { return i >= 0; }), op,
                    "tokens t * V + v >= 0");
    }
    const int64_t count = shared_ ? std::min<int64_t>(sequences.count(), 1) : sequences.count();
    std::vector<std::unique_ptr<Plan>> made(count);
    parallel(count, [&](int64_t s) {
      const int64_t at = sequences.begin(s);
      made[s] = std::make_unique<Plan>(
          rules, by_joint, near_data, tokens.has_value() ? data<int32_t>(ids) + at : nullptr,
          key_mask.has_value() ? data<bool>(mask) + at : nullptr, sequences.length(s));
    });
    plans_.swap(made);
  }

  const Plan& get(int64_t s) const { return *plans_[shared_ ? 0 : s]; }

  int64_t longest() const {
    size_t length = 0;
    for (const auto& plan : plans_) length = std::max(length, plan->queries.size());
    return static_cast<int64_t>(length);
  }

 private:
  static Tensor dense(const char* op, const OptionalTensor& t, ScalarType type, int64_t count) {
    if (!t.has_value()) return Tensor();
    SKELOPS_CHECK(t->scalar_type() == type && t->numel() == count, op, "masks and ids that fit");
    return as_contiguous(*t);
  }

  bool shared_;
  std::vector<std::unique_ptr<Plan>> plans_;
};

// Additive biases in units of log 2.
template <typename A>
struct Biases {
  Biases(const char* op, const Rules& rules, const OptionalTensor& joint_bias,
         const OptionalTensor& lag_bias)
      : joint(parameter<A>(joint_bias)), lag(parameter<A>(lag_bias)) {
    const int64_t pairs = rules.joints * rules.joints;
    SKELOPS_CHECK(joint.empty() || static_cast<int64_t>(joint.size()) == rules.heads * pairs, op,
                  "joint_bias (H, V, V)");
    SKELOPS_CHECK(lag.size() % rules.heads == 0, op, "lag_bias (H, 2 W + 1)");
    lags = static_cast<int64_t>(lag.size()) / rules.heads;
    SKELOPS_CHECK(lag.empty() || lags % 2 == 1, op, "lag_bias (H, 2 W + 1)");
    for (A& b : joint) b *= static_cast<A>(kLog2E);
    for (A& b : lag) b *= static_cast<A>(kLog2E);
  }

  std::vector<A> joint, lag;
  int64_t lags;
};

int32_t lag_index(int32_t query_frame, int32_t key_frame, int32_t reach) {
  return std::min(std::max(query_frame - key_frame, -reach), reach) + reach;
}

// The part of qkv, or of a gradient, that belongs to a head of a sequence.
template <typename T>
struct Head {
  T* first;
  int64_t stride, width;
  T* row(int64_t i) const { return first + i * stride; }
};

// Rows of a head in the accumulation type, padded by zeros to whole vectors.
template <typename A>
class Rows {
 public:
  Rows(int64_t count, int64_t width)
      : width_(width), pitch_(whole_vectors<A>(width)), values_(count * pitch_) {
    std::fill_n(values_.get(), count * pitch_, A(0));
  }

  A* get() const { return values_.get(); }
  A* row(int64_t i) const { return values_.get() + i * pitch_; }
  int64_t pitch() const { return pitch_; }
  void clear(int64_t begin, int64_t end) const { std::fill(row(begin), row(end), A(0)); }

  template <typename T>
  void gather(const Head<const T>& head, const int32_t* rows, int64_t count, A factor) const {
    for (int64_t i = 0; i < count; ++i) {
      const T* from = head.row(rows[i]);
      A* to = row(i);
      if constexpr (std::is_same_v<T, A>) {
        for (int64_t d = 0; d < width_; ++d) to[d] = from[d] * factor;
      } else {
        convert(from, to, width_);
        for (int64_t d = 0; d < width_; ++d) to[d] *= factor;
      }
    }
  }

  // Scales what it holds, in passing.
  template <typename T>
  void scatter(const int32_t* rows, int64_t count, A factor, const Head<T>& head) const {
    for (int64_t i = 0; i < count; ++i) {
      A* from = row(i);
      for (int64_t d = 0; d < width_; ++d) from[d] *= factor;
      convert(from, head.row(rows[i]), width_);
    }
  }

  // across[d][i] = row(i)[d], in rows of kQueries; zeros up to whole vectors of them.
  void transpose_to(A* across, int64_t count) const {
    clear(count, whole_vectors<A>(count));
    transpose(get(), whole_vectors<A>(count), pitch_, pitch_, across, kQueries);
  }

 private:
  int64_t width_, pitch_;
  Scratch<A> values_;
};

// What attention within one sequence and head works on.
template <typename A>
class Tile {
 public:
  using S = Simd<A>;

  Tile(const Rules& rules, const Biases<A>& biases, int64_t longest)
      : rules_(rules),
        biases_(biases),
        keys(longest, rules.width),
        queries(kQueries, rules.width),
        queries_across(queries.pitch() * kQueries),
        scores(kKeys * kQueries),
        joint_bias_(biases.joint.empty() ? 0 : longest) {}

  template <typename T>
  void load_keys(const Head<const T>& head, const Plan& plan) {
    plan_ = &plan;
    keys.gather(head, plan.keys.data(), plan.keys.size(), A(1));
  }

  // Scaled, so that their products with keys are scores in units of log 2.
  template <typename T>
  void load_queries(const Head<const T>& head, const Block& block, int64_t h) {
    block_ = &block;
    head_ = h;
    const int32_t* at = plan_->queries.data() + block.begin;
    queries.gather(head, at, count(), static_cast<A>(rules_.scale * kLog2E));
    queries.transpose_to(queries_across.get(), count());
    std::fill_n(frame_, kQueries, 0);
    std::copy_n(plan_->query_frame.data() + block.begin, count(), frame_);
    if (biases_.joint.empty()) return;
    const A* from = biases_.joint.data() + (h * rules_.joints + block.joint) * rules_.joints;
    for (int64_t i = block.first; i < block.last; ++i) {
      const Interval& interval = plan_->intervals[i];
      for (int64_t j = interval.begin; j < interval.end; ++j) {
        joint_bias_[j] = from[plan_->key_joint[j]];
      }
    }
  }

  // function(first key, keys) for the tiles of a block.
  template <typename F>
  void for_each(const F& function) const {
    for (int64_t i = block_->first; i < block_->last; ++i) {
      const Interval& interval = plan_->intervals[i];
      for (int64_t j = interval.begin; j < interval.end; j += kKeys) {
        function(j, std::min(kKeys, interval.end - j));
      }
    }
  }

  int64_t count() const { return block_->end - block_->begin; }  // of queries
  int64_t lanes() const { return whole_vectors<A>(count()); }

  // product[j][i] = init[j] + rows[first + j] . across[.][i], rows of `product` being kQueries
  // apart.
  void multiply_rows(const Rows<A>& rows, const A* across, int64_t first, int64_t keys,
                     const A* init, A* product) const {
    multiply<A>({.m = keys,
                 .n = lanes(),
                 .k = rules_.width,
                 .a = rows.row(first),
                 .a_row = rows.pitch(),
                 .a_col = 1,
                 .b = across,
                 .b_row = kQueries,
                 .c = product,
                 .c_row = kQueries,
                 .row_init = init});
  }

  // scores[j][i] in units of log 2; -infinity for pairs that do not attend.
  void compute_scores(int64_t first, int64_t n) {
    multiply_rows(keys, queries_across.get(), first, n,
                  biases_.joint.empty() ? nullptr : joint_bias_.get() + first, scores.get());
    if (biases_.lag.empty() && !block_->differ) return;
    constexpr A kNone = -std::numeric_limits<A>::infinity();
    const int32_t window = static_cast<int32_t>(rules_.window);
    const int64_t width = lanes();
    for (int64_t j = 0; j < n; ++j) {
      A* row = scores.get() + j * kQueries;
      const int32_t frame = plan_->key_frame[first + j];
      if (!biases_.lag.empty()) add_lags(frame, row);
      if (!block_->differ) continue;
      for (int64_t i = 0; i < width; ++i) {
        row[i] = std::abs(frame_[i] - frame) <= window ? row[i] : kNone;
      }
    }
  }

  // c (queries, width) (+)= left^T right, and c (keys, width) += left right of the queries.
  void multiply_keys(const A* left, const Rows<A>& right, int64_t first, int64_t n, bool accumulate,
                     const Rows<A>& c) const {
    multiply<A>({.m = count(),
                 .n = c.pitch(),
                 .k = n,
                 .a = left,
                 .a_row = 1,
                 .a_col = kQueries,
                 .b = right.row(first),
                 .b_row = right.pitch(),
                 .c = c.get(),
                 .c_row = c.pitch(),
                 .accumulate = accumulate});
  }

  void multiply_queries(const A* left, const Rows<A>& right, int64_t first, int64_t n,
                        const Rows<A>& c) const {
    multiply<A>({.m = n,
                 .n = c.pitch(),
                 .k = count(),
                 .a = left,
                 .a_row = kQueries,
                 .a_col = 1,
                 .b = right.get(),
                 .b_row = right.pitch(),
                 .c = c.row(first),
                 .c_row = c.pitch(),
                 .accumulate = true});
  }

  // Adds what the gradient of the scores of a tile contributes to those of the biases.
  void add_bias_gradients(const A* d_scores, int64_t first, int64_t n, A* joint, A* lag) const {
    const int32_t reach = static_cast<int32_t>(biases_.lags / 2);
    for (int64_t j = 0; j < n; ++j) {
      const A* row = d_scores + j * kQueries;
      const int32_t frame = plan_->key_frame[first + j];
      A sum = 0;
      for (int64_t i = 0; i < count(); ++i) sum += row[i];
      if (joint) joint[block_->joint * rules_.joints + plan_->key_joint[first + j]] += sum;
      for (int64_t i = 0; lag && i < count(); ++i)
        lag[lag_index(frame_[i], frame, reach)] += row[i];
    }
  }

 private:
  void add_lags(int32_t frame, A* row) const {
    const int32_t reach = static_cast<int32_t>(biases_.lags / 2);
    const Row<A> table(biases_.lag.data() + head_ * biases_.lags, biases_.lags);
    int32_t index[S::kLanes];
    for (int64_t i = 0; i < lanes(); i += S::kLanes) {
      for (int l = 0; l < S::kLanes; ++l) index[l] = lag_index(frame_[i + l], frame, reach);
      S::store(row + i, S::load(row + i) + table.pick(index));
    }
  }

  const Rules& rules_;
  const Biases<A>& biases_;
  const Plan* plan_ = nullptr;
  const Block* block_ = nullptr;
  int64_t head_ = 0;

 public:
  const Rows<A> keys, queries;
  const Scratch<A> queries_across, scores;

 private:
  const Scratch<A> joint_bias_;  // of the keys
  int32_t frame_[kQueries];      // of the queries
};

// Of rows that are padded by zeros.
template <typename A>
A dot(const A* a, const A* b, int64_t count) {
  using S = Simd<A>;
  typename S::Vec total = {};
  for (int64_t i = 0; i < count; i += S::kLanes) total += S::load(a + i) * S::load(b + i);
  return S::sum(total);
}

// Softmax and its product with the values of one block of queries, tile by tile.
template <typename A>
class OnlineSoftmax {
 public:
  using S = Simd<A>;

  explicit OnlineSoftmax(int64_t width) : out(kQueries, width) {}

  void begin() {
    empty_ = true;
    std::fill_n(largest_, kQueries, kNone);
    std::fill_n(total_, kQueries, A(0));
  }

  void add(const Tile<A>& tile, const Rows<A>& values, int64_t first, int64_t keys) {
    for (int64_t i = 0; i < tile.lanes(); i += S::kLanes) add_lanes(tile.scores.get(), i, keys);
    for (int64_t i = 0; !empty_ && i < tile.count(); ++i) {
      if (shrink_[i] == A(1)) continue;
      for (int64_t d = 0; d < out.pitch(); ++d) out.row(i)[d] *= shrink_[i];
    }
    tile.multiply_keys(tile.scores.get(), values, first, keys, !empty_, out);
    empty_ = false;
  }

  // Divides by the denominators and returns their logarithms in base 2; +infinity where there is no
  // key, so that every probability made from it is 0.
  void end(int64_t count, A* lse) {
    if (empty_) out.clear(0, count);
    for (int64_t i = 0; i < count; ++i) {
      const bool none = total_[i] == A(0);
      const A factor = none ? A(0) : A(1) / total_[i];
      for (int64_t d = 0; d < out.pitch(); ++d) out.row(i)[d] *= factor;
      lse[i] = none ? -kNone : largest_[i] + std::log2(total_[i]);
    }
  }

 private:
  // A vector of queries: scores become powers of two relative to the largest of all so far.
  void add_lanes(A* scores, int64_t i, int64_t keys) {
    const auto before = S::load(largest_ + i);
    const auto most = column_maximum(scores + i, keys, kQueries, before);
    const auto shift = most == kNone ? typename S::Vec{} : most;
    const auto sum =
        column_exponentials(scores + i, keys, kQueries, typename S::Vec{} + A(1), shift);
    const auto shrink = exp2_nonpositive(before - shift);
    S::store(shrink_ + i, shrink);
    S::store(total_ + i, S::load(total_ + i) * shrink + sum);
    S::store(largest_ + i, most);
  }

  static constexpr A kNone = -std::numeric_limits<A>::infinity();
  bool empty_ = true;
  A largest_[kQueries], total_[kQueries], shrink_[kQueries];

 public:
  const Rows<A> out;
};

// Everything that the arguments say, checked.
struct Problem {
  Problem(const char* op, const Tensor& qkv, const OptionalTensor& joint_bias,
          const OptionalTensor& pairs, const OptionalTensor& tokens, const OptionalTensor& key_mask,
          const OptionalTensor& cu_seqlens, int64_t heads, int64_t joints, int64_t window,
          bool same_joint, double scale)
      : sequences(op, qkv, cu_seqlens),
        rules(checked(op, qkv, heads, joints, window, same_joint, scale)),
        plans(op, rules, same_joint || pairs.has_value() || joint_bias.has_value(), sequences,
              !cu_seqlens.has_value(), pairs, tokens, key_mask),
        slices(sequences.count()) {}

  template <typename T>
  Head<T> head(T* base, int64_t s, int64_t part, int64_t parts, int64_t h) const {
    const int64_t stride = parts * rules.heads * rules.width;
    T* first = base + sequences.begin(s) * stride + (part * rules.heads + h) * rules.width;
    return {first, stride, rules.width};
  }

  // function(slice and head, sequences of the slice, head), in parallel.
  template <typename F>
  void for_each(const F& function) const {
    parallel(slices.count * rules.heads, [&](int64_t task) {
      const int64_t slice = task / rules.heads;
      function(task, slices.begin(slice), slices.end(slice), task % rules.heads);
    });
  }

  const Sequences sequences;
  const Rules rules;
  const Plans plans;
  const Slices slices;

 private:
  static Rules checked(const char* op, const Tensor& qkv, int64_t heads, int64_t joints,
                       int64_t window, bool same_joint, double scale) {
    const int64_t channels = qkv.size(qkv.dim() - 1);
    SKELOPS_CHECK(heads > 0 && channels > 0 && channels % (3 * heads) == 0, op,
                  "qkv of 3 H D channels");
    SKELOPS_CHECK(joints > 0, op, "joints >= 1");
    return {heads, channels / (3 * heads), joints, window, same_joint, scale};
  }
};

template <typename T>
std::tuple<Tensor, Tensor> forward(const Problem& problem, const Tensor& qkv_,
                                   const OptionalTensor& joint_bias,
                                   const OptionalTensor& lag_bias) {
  using A = Accumulate<T>;
  const Rules& rules = problem.rules;
  const Sequences& sequences = problem.sequences;
  const Biases<A> biases("st_attention", rules, joint_bias, lag_bias);
  const Tensor qkv = as_contiguous(qkv_);
  const auto sizes = qkv.sizes();
  std::vector<int64_t> out_shape(sizes.begin(), sizes.end());
  std::vector<int64_t> lse_shape(1, rules.heads);
  lse_shape.insert(lse_shape.end(), sizes.begin(), sizes.end() - 1);
  out_shape.back() = rules.heads * rules.width;
  Tensor out = new_tensor<T>(qkv, out_shape), lse = new_tensor<A>(qkv, lse_shape);
  const T* in = data<T>(qkv);
  const int64_t longest = problem.plans.longest(), rows = sequences.rows();

  problem.for_each([&](int64_t, int64_t first, int64_t last, int64_t h) {
    Tile<A> tile(rules, biases, longest);
    OnlineSoftmax<A> softmax(rules.width);
    const Rows<A> values(longest, rules.width);
    A logarithms[kQueries];
    for (int64_t s = first; s < last; ++s) {
      const Plan& plan = problem.plans.get(s);
      tile.load_keys(problem.head(in, s, 1, 3, h), plan);
      values.gather(problem.head(in, s, 2, 3, h), plan.keys.data(), plan.keys.size(), A(1));
      A* lse_s = data<A>(lse) + h * rows + sequences.begin(s);
      for (const Block& block : plan.blocks) {
        tile.load_queries(problem.head(in, s, 0, 3, h), block, h);
        softmax.begin();
        tile.for_each([&](int64_t j, int64_t count) {
          tile.compute_scores(j, count);
          softmax.add(tile, values, j, count);
        });
        softmax.end(tile.count(), logarithms);
        const int32_t* at = plan.queries.data() + block.begin;
        softmax.out.scatter(at, tile.count(), A(1), problem.head(data<T>(out), s, 0, 1, h));
        for (int64_t i = 0; i < tile.count(); ++i) lse_s[at[i]] = logarithms[i];
      }
    }
    std::fill(data<A>(lse) + h * rows + sequences.end(), data<A>(lse) + (h + 1) * rows, A(0));
  });
  std::fill(data<T>(out) + sequences.end() * out_shape.back(), data<T>(out) + out.numel(), T(0));
  return {out, lse};
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Problem& problem, const Tensor& grad_,
                                            const Tensor& qkv_, const OptionalTensor& joint_bias,
                                            const OptionalTensor& lag_bias, const Tensor& out_,
                                            const Tensor& lse_, int64_t needs) {
  using A = Accumulate<T>;
  using S = Simd<A>;
  const char* op = "st_attention_backward";
  const Rules& rules = problem.rules;
  const Sequences& sequences = problem.sequences;
  const Biases<A> biases(op, rules, joint_bias, lag_bias);
  const int64_t longest = problem.plans.longest(), rows = sequences.rows(), width = rules.width;
  const Tensor qkv = as_contiguous(qkv_), grad = as_contiguous(grad_);
  const Tensor out = as_contiguous(out_), lse = as_contiguous(lse_);
  SKELOPS_CHECK(grad.scalar_type() == kScalarType<T> && out.scalar_type() == kScalarType<T> &&
                    lse.scalar_type() == kScalarType<A> && lse.numel() == rows * rules.heads &&
                    grad.numel() == rows * rules.heads * width && out.numel() == grad.numel(),
                op, "gradient, output and lse that fit qkv");
  const bool want_qkv = wants(needs, 0), want_joint = wants(needs, 1), want_lag = wants(needs, 2);
  const auto sizes = qkv.sizes();
  Tensor dqkv = want_qkv ? new_tensor<T>(qkv, std::vector<int64_t>(sizes.begin(), sizes.end()))
                         : no_gradient(qkv);
  const int64_t pairs = rules.joints * rules.joints, tasks = problem.slices.count * rules.heads;
  std::vector<A> djoint(want_joint ? tasks * pairs : 0), dlag(want_lag ? tasks * biases.lags : 0);
  const T *in = data<T>(qkv), *grads = data<T>(grad), *outs = data<T>(out);

  problem.for_each([&](int64_t task, int64_t first, int64_t last, int64_t h) {
    Tile<A> tile(rules, biases, longest);
    const Rows<A> values(longest, width), d_keys(longest, width), d_values(longest, width);
    const Rows<A> d_queries(kQueries, width), d_out(kQueries, width);
    const Scratch<A> d_out_across(d_out.pitch() * kQueries), d_scores(kKeys * kQueries);
    A* const joint = want_joint ? djoint.data() + task * pairs : nullptr;
    A* const lag = want_lag ? dlag.data() + task * biases.lags : nullptr;
    A shift[kQueries] = {}, delta[kQueries] = {};
    for (int64_t s = first; s < last; ++s) {
      const Plan& plan = problem.plans.get(s);
      const int64_t keys = plan.keys.size();
      tile.load_keys(problem.head(in, s, 1, 3, h), plan);
      values.gather(problem.head(in, s, 2, 3, h), plan.keys.data(), keys, A(1));
      d_keys.clear(0, keys);
      d_values.clear(0, keys);
      const A* lse_s = data<A>(lse) + h * rows + sequences.begin(s);
      for (const Block& block : plan.blocks) {
        const int32_t* at = plan.queries.data() + block.begin;
        tile.load_queries(problem.head(in, s, 0, 3, h), block, h);
        const int64_t count = tile.count(), lanes = tile.lanes();
        // The output passes through the memory of dq, which is not needed yet.
        d_queries.gather(problem.head(outs, s, 0, 1, h), at, count, A(1));
        d_out.gather(problem.head(grads, s, 0, 1, h), at, count, A(1));
        d_out.transpose_to(d_out_across.get(), count);
        for (int64_t i = 0; i < count; ++i) {
          shift[i] = lse_s[at[i]];
          delta[i] = dot(d_out.row(i), d_queries.row(i), d_out.pitch());
        }
        bool empty = true;
        tile.for_each([&](int64_t j, int64_t n) {
          tile.compute_scores(j, n);
          tile.multiply_rows(values, d_out_across.get(), j, n, nullptr, d_scores.get());
          for (int64_t k = 0; k < n * kQueries; k += kQueries) {
            for (int64_t i = 0; i < lanes; i += S::kLanes) {
              A *p = tile.scores.get() + k + i, *ds = d_scores.get() + k + i;
              const auto e = exp2_nonpositive(S::load(p) - S::load(shift + i));
              S::store(p, e);
              S::store(ds, e * (S::load(ds) - S::load(delta + i)));
            }
          }
          if (joint || lag) tile.add_bias_gradients(d_scores.get(), j, n, joint, lag);
          if (!want_qkv) return;
          tile.multiply_queries(tile.scores.get(), d_out, j, n, d_values);
          tile.multiply_queries(d_scores.get(), tile.queries, j, n, d_keys);
          tile.multiply_keys(d_scores.get(), tile.keys, j, n, !empty, d_queries);
          empty = false;
        });
        if (!want_qkv) continue;
        if (empty) d_queries.clear(0, count);
        d_queries.scatter(at, count, static_cast<A>(rules.scale),
                          problem.head(data<T>(dqkv), s, 0, 3, h));
      }
      if (!want_qkv) continue;
      const Head<T> to_keys = problem.head(data<T>(dqkv), s, 1, 3, h);
      const Head<T> to_values = problem.head(data<T>(dqkv), s, 2, 3, h);
      if (keys < sequences.length(s)) {  // tokens that none attends to
        for (int64_t i = 0; i < sequences.length(s); ++i) {
          std::fill_n(to_keys.row(i), width, T(0));
          std::fill_n(to_values.row(i), width, T(0));
        }
      }
      d_keys.scatter(plan.keys.data(), keys, static_cast<A>(1 / kLog2E), to_keys);
      d_values.scatter(plan.keys.data(), keys, A(1), to_values);
    }
  });
  if (want_qkv) {
    std::fill(data<T>(dqkv) + sequences.end() * rules.stride(), data<T>(dqkv) + dqkv.numel(), T(0));
  }
  const auto total = [&](const std::vector<A>& parts, const Tensor& bias) {
    std::vector<A> sum(bias.numel());
    for (size_t i = 0; i < parts.size(); ++i) sum[i % sum.size()] += parts[i];
    return gradient_of(bias, sum);
  };
  return {dqkv, want_joint ? total(djoint, *joint_bias) : no_gradient(qkv),
          want_lag ? total(dlag, *lag_bias) : no_gradient(qkv)};
}

std::tuple<Tensor, Tensor> st_attention(Tensor qkv, OptionalTensor joint_bias,
                                        OptionalTensor lag_bias, OptionalTensor pairs,
                                        OptionalTensor tokens, OptionalTensor key_mask,
                                        OptionalTensor cu_seqlens, int64_t heads, int64_t joints,
                                        int64_t window, bool same_joint, int64_t, double scale) {
  const char* op = "st_attention";
  const Problem problem(op, qkv, joint_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints,
                        window, same_joint, scale);
  return dispatch(qkv, op, [&](auto type) {
    return forward<decltype(type)>(problem, qkv, joint_bias, lag_bias);
  });
}

std::tuple<Tensor, Tensor, Tensor> st_attention_backward(
    Tensor grad, Tensor qkv, OptionalTensor joint_bias, OptionalTensor lag_bias,
    OptionalTensor pairs, OptionalTensor tokens, OptionalTensor key_mask, OptionalTensor cu_seqlens,
    int64_t heads, int64_t joints, int64_t window, bool same_joint, int64_t, double scale,
    Tensor out, Tensor lse, int64_t needs) {
  const char* op = "st_attention_backward";
  const Problem problem(op, qkv, joint_bias, pairs, tokens, key_mask, cu_seqlens, heads, joints,
                        window, same_joint, scale);
  return dispatch(qkv, op, [&](auto type) {
    return backward<decltype(type)>(problem, grad, qkv, joint_bias, lag_bias, out, lse, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("st_attention", TORCH_BOX(&st_attention));
  m.impl("st_attention_backward", TORCH_BOX(&st_attention_backward));
}

}  // namespace skelops
