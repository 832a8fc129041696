// masked_patch_embed: the patches of the chosen tokens are gathered, then one product per clip.
#include <algorithm>
#include <tuple>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

struct Sizes {
  int64_t frames, joints, channels, segment, width, kept;
  int64_t patch() const { return channels * segment; }
  int64_t segments() const { return frames / segment; }
  int64_t tokens() const { return segments() * joints; }
};

// The tokens of every clip: as given, or all of them.
class Ids {
 public:
  Ids(const OptionalTensor& maybe, const Sizes& sizes)
      : all_(!maybe.has_value()), kept_(sizes.kept) {
    if (all_) return;
    tensor_ = as_contiguous(*maybe);
    const int64_t* id = skelops::data<int64_t>(*tensor_);
    const bool inside = std::all_of(id, id + tensor_->numel(),
                                    [&](int64_t l) { return l >= 0 && l < sizes.tokens(); });
    SKELOPS_CHECK(inside, "masked_patch_embed", "ids in [0, L)");
    data_ = id;
  }
  int64_t operator()(int64_t n, int64_t k) const { return all_ ? k : data_[n * kept_ + k]; }

 private:
  OptionalTensor tensor_;
  const int64_t* data_ = nullptr;
  bool all_;
  int64_t kept_;
};

// function(i, offset) for the values i = c u + j of a token's patch.
template <typename F>
void for_each_value(const Sizes& s, int64_t token, const F& function) {
  const int64_t row = s.joints * s.channels;
  const int64_t origin = token / s.joints * s.segment * row + token % s.joints * s.channels;
  for (int64_t c = 0, i = 0; c < s.channels; ++c) {
    for (int64_t j = 0; j < s.segment; ++j, ++i) function(i, origin + j * row + c);
  }
}

// Patches of the tokens of clip n, (K, C u).
template <typename A>
void gather(const A* x, const Sizes& s, const Ids& ids, int64_t n, A* patches) {
  for (int64_t k = 0; k < s.kept; ++k, patches += s.patch()) {
    for_each_value(s, ids(n, k), [&](int64_t i, int64_t at) { patches[i] = x[at]; });
  }
}

Sizes sizes_of(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& pos, const OptionalTensor& temp, const OptionalTensor& ids) {
  const bool fits = x.dim() == 4 && weight.dim() == 4 && weight.size(1) == x.size(3) &&
                    weight.size(2) > 0 && weight.size(3) == 1 && x.size(1) % weight.size(2) == 0;
  SKELOPS_CHECK(fits, "masked_patch_embed", "x (N, T, V, C), weight (D, C, u, 1)");
  Sizes s{x.size(1), x.size(2), x.size(3), weight.size(2), weight.size(0), 0};
  s.kept = ids.has_value() ? ids->size(1) : s.tokens();
  SKELOPS_CHECK((!bias.has_value() || bias->numel() == s.width) &&
                    (!pos.has_value() || pos->numel() == s.joints * s.width) &&
                    (!temp.has_value() || temp->numel() == s.segments() * s.width) &&
                    (!ids.has_value() || ids->numel() == x.size(0) * s.kept),
                "masked_patch_embed", "bias (D,), pos (V, D), temp (T / u, D), ids (N, K)");
  return s;
}

template <typename T>
Tensor forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
               const OptionalTensor& pos, const OptionalTensor& temp, const OptionalTensor& index,
               const Sizes& s) {
  using A = Accumulate<T>;
  const Samples<T> clips(x);
  const Ids ids(index, s);
  const Parameter<A> w(weight), times(temp);
  const std::vector<A> b = parameter<A>(bias);
  std::vector<A> columns(s.patch() * s.width);  // weight transposed
  for (int64_t d = 0; d < s.width; ++d) {
    for (int64_t i = 0; i < s.patch(); ++i) columns[i * s.width + d] = w.data()[d * s.patch() + i];
  }
  std::vector<A> joints = parameter<A>(pos);  // and bias
  if (joints.empty()) joints.resize(s.joints * s.width);
  for (size_t i = 0; !b.empty() && i < joints.size(); ++i) joints[i] += b[i % s.width];

  Tensor out = new_tensor<T>(x, {x.size(0), s.kept, s.width});
  parallel(x.size(0), [&](int64_t n) {
    const Scratch<A> clip(clips.scratch()), patches(s.kept * s.patch());
    const Scratch<A> wide(clips.kInPlace ? 0 : s.kept * s.width);
    T* to = data<T>(out) + n * s.kept * s.width;
    A* y = clips.kInPlace ? reinterpret_cast<A*>(to) : wide.get();
    gather(clips.get(n, clip.get()), s, ids, n, patches.get());
    for (int64_t k = 0; k < s.kept; ++k) {
      const int64_t token = ids(n, k);
      const A* joint = joints.data() + token % s.joints * s.width;
      A* row = y + k * s.width;
      if (times.present()) {
        const A* time = times.data() + token / s.joints * s.width;
        for (int64_t d = 0; d < s.width; ++d) row[d] = joint[d] + time[d];
      } else {
        std::copy_n(joint, s.width, row);
      }
    }
    multiply<A>({.m = s.kept,
                 .n = s.width,
                 .k = s.patch(),
                 .a = patches.get(),
                 .a_row = s.patch(),
                 .a_col = 1,
                 .b = columns.data(),
                 .b_row = s.width,
                 .c = y,
                 .c_row = s.width,
                 .accumulate = true});
    if (!clips.kInPlace) convert(y, to, s.kept * s.width);
  });
  return out;
}

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                   const OptionalTensor& bias, const OptionalTensor& pos,
                   const OptionalTensor& temp, const OptionalTensor& index, const Sizes& s,
                   int64_t needs) {
  using A = Accumulate<T>;
  const bool want_x = wants(needs, 0), want_weight = wants(needs, 1), want_bias = wants(needs, 2);
  const bool want_joints = wants(needs, 3) || want_bias, want_times = wants(needs, 4);
  const Samples<T> clips(x), grads(grad);
  const Ids ids(index, s);
  const Parameter<A> w(weight);
  Tensor dx =
      want_x ? new_tensor<T>(x, {x.size(0), s.frames, s.joints, s.channels}) : no_gradient(x);
  const Slices slices(x.size(0));
  Partials<A> columns(slices, want_weight ? s.patch() * s.width : 0);
  Partials<A> joints(slices, want_joints ? s.joints * s.width : 0);
  Partials<A> times(slices, want_times ? s.segments() * s.width : 0);
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> clip(want_weight ? clips.scratch() : 0), wide(grads.scratch());
    const Scratch<A> patches(s.kept * s.patch()), dclip(want_x ? clips.size() : 0);
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* g = grads.get(n, wide.get());
      for (int64_t k = 0; k < s.kept && (want_joints || want_times); ++k) {
        const A* row = g + k * s.width;
        const int64_t token = ids(n, k);
        if (want_joints) {
          A* sum = joints.slice(slice) + token % s.joints * s.width;
          for (int64_t d = 0; d < s.width; ++d) sum[d] += row[d];
        }
        if (want_times) {
          A* sum = times.slice(slice) + token / s.joints * s.width;
          for (int64_t d = 0; d < s.width; ++d) sum[d] += row[d];
        }
      }
      if (want_weight) {
        gather(clips.get(n, clip.get()), s, ids, n, patches.get());
        multiply<A>({.m = s.patch(),
                     .n = s.width,
                     .k = s.kept,
                     .a = patches.get(),
                     .a_row = 1,
                     .a_col = s.patch(),
                     .b = g,
                     .b_row = s.width,
                     .c = columns.slice(slice),
                     .c_row = s.width,
                     .accumulate = true});
      }
      if (want_x) {
        multiply<A>({.m = s.kept,
                     .n = s.patch(),
                     .k = s.width,
                     .a = g,
                     .a_row = s.width,
                     .a_col = 1,
                     .b = w.data(),
                     .b_row = s.patch(),
                     .c = patches.get(),
                     .c_row = s.patch()});
        std::fill_n(dclip.get(), clips.size(), A(0));
        for (int64_t k = 0; k < s.kept; ++k) {
          const A* row = patches.get() + k * s.patch();
          for_each_value(s, ids(n, k), [&](int64_t i, int64_t at) { dclip[at] += row[i]; });
        }
        convert(dclip.get(), data<T>(dx) + n * clips.size(), clips.size());
      }
    }
  });

  const auto gradient = [&](bool wanted, const OptionalTensor& parameter, const auto& sum) {
    return wanted ? gradient_of<A>(*parameter, sum()) : no_gradient(x);
  };
  const std::vector<A> per_joint = joints.total();
  Tensor dweight = gradient(want_weight, weight, [&] {
    const std::vector<A> sum = columns.total();
    std::vector<A> rows(sum.size());
    for (int64_t d = 0; d < s.width; ++d) {
      for (int64_t i = 0; i < s.patch(); ++i) rows[d * s.patch() + i] = sum[i * s.width + d];
    }
    return rows;
  });
  Tensor dbias = gradient(want_bias, bias, [&] {
    std::vector<A> sum(s.width);
    for (size_t i = 0; i < per_joint.size(); ++i) sum[i % s.width] += per_joint[i];
    return sum;
  });
  Tensor dpos = gradient(wants(needs, 3), pos, [&] { return per_joint; });
  Tensor dtemp = gradient(want_times, temp, [&] { return times.total(); });
  return {dx, dweight, dbias, dpos, dtemp};
}

Tensor masked_patch_embed(Tensor x, Tensor weight, OptionalTensor bias, OptionalTensor pos,
                          OptionalTensor temp, OptionalTensor ids) {
  const Sizes s = sizes_of(x, weight, bias, pos, temp, ids);
  return dispatch(x, "masked_patch_embed", [&](auto type) {
    return forward<decltype(type)>(x, weight, bias, pos, temp, ids, s);
  });
}

Gradients masked_patch_embed_backward(Tensor grad, Tensor x, Tensor weight, OptionalTensor bias,
                                      OptionalTensor pos, OptionalTensor temp, OptionalTensor ids,
                                      int64_t needs) {
  const Sizes s = sizes_of(x, weight, bias, pos, temp, ids);
  SKELOPS_CHECK(grad.numel() == x.size(0) * s.kept * s.width, "masked_patch_embed_backward",
                "grad (N, K, D)");
  return dispatch(x, "masked_patch_embed_backward", [&](auto type) {
    return backward<decltype(type)>(grad, x, weight, bias, pos, temp, ids, s, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("masked_patch_embed", TORCH_BOX(&masked_patch_embed));
  m.impl("masked_patch_embed_backward", TORCH_BOX(&masked_patch_embed_backward));
}

}  // namespace skelops
