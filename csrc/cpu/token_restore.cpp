// token_restore: every row is written once, from a table of places in the cache.
#include <algorithm>
#include <tuple>

#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct Sizes {
  int64_t kept, width, joints, segments;
  int64_t tokens() const { return joints * segments; }
  bool keeps(int64_t id) const { return id >= 0 && id < kept; }
};

Sizes sizes_of(const Tensor& z, const Tensor& mask_token, const Tensor& ids, const Tensor& pos,
               const Tensor& temp) {
  SKELOPS_CHECK(z.dim() == 3 && pos.dim() == 2 && temp.dim() == 2, "token_restore",
                "z (N, K, D), pos (V, D), temp (T', D)");
  const Sizes s{z.size(1), z.size(2), pos.size(0), temp.size(0)};
  SKELOPS_CHECK(mask_token.numel() == s.width && pos.size(1) == s.width &&
                    temp.size(1) == s.width && ids.numel() == z.size(0) * s.tokens() &&
                    ids.scalar_type() == ScalarType::Long,
                "token_restore", "mask_token (D,), ids_restore (N, T' V)");
  return s;
}

template <typename T>
Tensor forward(const Tensor& z, const Tensor& mask_token, const Tensor& ids, const Tensor& pos,
               const Tensor& temp, const Sizes& s) {
  using A = Accumulate<T>;
  const int64_t width = s.width;
  const std::vector<A> token = parameter<A>(mask_token);
  const Parameter<A> joints(pos), times(temp);
  const Tensor index = as_contiguous(ids);
  std::vector<T> masked(s.tokens() * width);  // a row of the result for every masked token
  for (int64_t l = 0; l < s.tokens(); ++l) {
    const A* joint = joints.data() + l % s.joints * width;
    const A* time = times.data() + l / s.joints * width;
    T* row = masked.data() + l * width;
    for (int64_t d = 0; d < width; ++d) row[d] = static_cast<T>(token[d] + (joint[d] + time[d]));
  }
  const Samples<T> samples(z);
  Tensor out = new_tensor<T>(z, {z.size(0), s.tokens(), width});
  parallel(z.size(0), [&](int64_t n) {
    const Scratch<A> converted(samples.kInPlace ? 0 : width);
    const int64_t* id = data<int64_t>(index) + n * s.tokens();
    T* to = data<T>(out) + n * s.tokens() * width;
    for (int64_t t = 0, l = 0; t < s.segments; ++t) {
      const A* time = times.data() + t * width;
      for (int64_t v = 0; v < s.joints; ++v, ++l, to += width) {
        if (!s.keeps(id[l])) {
          std::copy_n(masked.data() + l * width, width, to);
          continue;
        }
        const A* from = samples.get(n, id[l] * width, width, converted.get());
        const A* joint = joints.data() + v * width;
        for (int64_t d = 0; d < width; ++d) to[d] = static_cast<T>(from[d] + (joint[d] + time[d]));
      }
    }
  });
  return out;
}

template <typename T>
Gradients backward(const Tensor& grad, const Tensor& z, const Tensor& mask_token, const Tensor& ids,
                   const Tensor& pos, const Tensor& temp, const Sizes& s, int64_t needs) {
  using A = Accumulate<T>;
  const int64_t width = s.width;
  const bool want_z = wants(needs, 0), want_token = wants(needs, 1);
  const bool want_pos = wants(needs, 2), want_temp = wants(needs, 3);
  const Samples<T> grads(grad);
  const Tensor index = as_contiguous(ids);
  Tensor dz = want_z ? new_tensor<T>(z, {z.size(0), s.kept, width}) : no_gradient(z);
  const Slices slices(z.size(0));
  Partials<A> token(slices, want_token ? width : 0);
  Partials<A> joints(slices, want_pos ? s.joints * width : 0);
  Partials<A> times(slices, want_temp ? s.segments * width : 0);
  const auto add = [width](A* sum, const A* row) {
    for (int64_t d = 0; d < width; ++d) sum[d] += row[d];
  };
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> converted(grads.kInPlace ? 0 : width);
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const int64_t* id = data<int64_t>(index) + n * s.tokens();
      T* rows = want_z ? data<T>(dz) + n * s.kept * width : nullptr;
      // Places that no token took have no gradient.
      if (want_z) std::fill_n(rows, s.kept * width, T(0));
      for (int64_t l = 0; l < s.tokens(); ++l) {
        const A* g = grads.get(n, l * width, width, converted.get());
        if (want_pos) add(joints.slice(slice) + l % s.joints * width, g);
        if (want_temp) add(times.slice(slice) + l / s.joints * width, g);
        if (!s.keeps(id[l])) {
          if (want_token) add(token.slice(slice), g);
        } else if (want_z) {
          std::copy_n(grads.raw(n) + l * width, width, rows + id[l] * width);
        }
      }
    }
  });
  const auto gradient = [&](bool wanted, const Tensor& parameter, const Partials<A>& sums) {
    return wanted ? gradient_of(parameter, sums.total()) : no_gradient(z);
  };
  return {dz, gradient(want_token, mask_token, token), gradient(want_pos, pos, joints),
          gradient(want_temp, temp, times)};
}

Tensor token_restore(Tensor z, Tensor mask_token, Tensor ids, Tensor pos, Tensor temp) {
  const Sizes s = sizes_of(z, mask_token, ids, pos, temp);
  return dispatch(z, "token_restore", [&](auto type) {
    return forward<decltype(type)>(z, mask_token, ids, pos, temp, s);
  });
}

Gradients token_restore_backward(Tensor grad, Tensor z, Tensor mask_token, Tensor ids, Tensor pos,
                                 Tensor temp, int64_t needs) {
  const Sizes s = sizes_of(z, mask_token, ids, pos, temp);
  SKELOPS_CHECK(grad.numel() == z.size(0) * s.tokens() * s.width, "token_restore_backward",
                "grad (N, L, D)");
  return dispatch(z, "token_restore_backward", [&](auto type) {
    return backward<decltype(type)>(grad, z, mask_token, ids, pos, temp, s, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("token_restore", TORCH_BOX(&token_restore));
  m.impl("token_restore_backward", TORCH_BOX(&token_restore_backward));
}

}  // namespace skelops
