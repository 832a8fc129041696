// part_mask: rows are copied from x or from the token; gradients take the same two ways back.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"
#include "cpu/joint_mask.h"

namespace skelops {
namespace {

void check(const Tensor& x, const Tensor& token, const Tensor& mask) {
  SKELOPS_CHECK(x.dim() == 4 && token.numel() == x.size(3), "part_mask",
                "x (N, T, V, C), token (C,)");
  check_joint_mask("part_mask", mask, x.size(0), x.size(2));
}

Tensor part_mask(Tensor x, Tensor token, Tensor mask) {
  check(x, token, mask);
  const int64_t frames = x.size(1), joints = x.size(2), channels = x.size(3);
  const JointMask kept(mask);
  return dispatch(x, "part_mask", [&](auto type) {
    using T = decltype(type);
    const Samples<T> samples(x);
    const Tensor row = as_contiguous(token);
    Tensor out = new_tensor<T>(x, {x.size(0), frames, joints, channels});
    parallel(x.size(0), [&](int64_t n) {
      const T* from = samples.raw(n);
      T* to = data<T>(out) + n * samples.size();
      for (int64_t t = 0; t < frames; ++t) {
        for (int64_t v = 0; v < joints; ++v, from += channels, to += channels) {
          std::memcpy(to, kept.row(n)[v] ? from : data<T>(row), channels * sizeof(T));
        }
      }
    });
    return out;
  });
}

std::tuple<Tensor, Tensor> part_mask_backward(Tensor grad, Tensor x, Tensor token, Tensor mask,
                                              int64_t needs) {
  check(grad, token, mask);
  const int64_t batch = grad.size(0), frames = grad.size(1), joints = grad.size(2);
  const int64_t channels = grad.size(3);
  const bool want_x = wants(needs, 0), want_token = wants(needs, 1);
  const JointMask kept(mask);
  return dispatch(grad, "part_mask_backward", [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const Samples<T> grads(grad);
    Tensor dx = want_x ? new_tensor<T>(grad, {batch, frames, joints, channels}) : no_gradient(x);
    const Slices slices(batch);
    Partials<A> sums(slices, channels);
    parallel(slices.count, [&](int64_t s) {
      const Scratch<A> converted(grads.kInPlace ? 0 : channels);
      A* sum = sums.slice(s);
      for (int64_t n = slices.begin(s); n < slices.end(s); ++n) {
        for (int64_t i = 0; i < frames * joints; ++i) {
          const bool keep = kept.row(n)[i % joints];
          if (want_x) {
            T* to = data<T>(dx) + n * grads.size() + i * channels;
            if (keep) {
              std::memcpy(to, grads.raw(n) + i * channels, channels * sizeof(T));
            } else {
              std::fill_n(to, channels, T(0));
            }
          }
          if (keep || !want_token) continue;
          const A* g = grads.get(n, i * channels, channels, converted.get());
          for (int64_t c = 0; c < channels; ++c) sum[c] += g[c];
        }
      }
    });
    Tensor dtoken = want_token ? gradient_of(token, sums.total()) : no_gradient(x);
    return std::tuple<Tensor, Tensor>{dx, dtoken};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("part_mask", TORCH_BOX(&part_mask));
  m.impl("part_mask_backward", TORCH_BOX(&part_mask_backward));
}

}  // namespace skelops
