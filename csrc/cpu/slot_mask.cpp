// slot_mask: a copy of the clip with zeros at the selected slots.
#include <tuple>
#include <type_traits>

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/select.h"

namespace skelops {
namespace {

template <typename A>
void choose(const Tensor& noise, int64_t masked, const Tensor& mask) {
  const int64_t slots = noise.size(1);
  const Parameter<A> numbers{noise};
  parallel(noise.size(0), [&](int64_t n) {
    const A* u = numbers.data() + n * slots;
    const Scratch<OrderedKey<A>> key(slots);
    for (int64_t i = 0; i < slots; ++i) key[i] = ordered(u[i]);
    bool* kept = data<bool>(mask) + n * slots;
    for_each_chosen(key.get(), slots, masked, [&](int64_t i, bool chosen) { kept[i] = !chosen; });
  });
}

// out = x where kept, else 0
template <typename T>
void zero_masked(const Tensor& x, const Tensor& mask, const Tensor& out) {
  const int64_t channels = x.size(3);
  const Samples<T> samples(x);
  const int64_t slots = channels == 0 ? 0 : samples.size() / channels;
  parallel(x.size(0), [&](int64_t n) {
    const bool* kept = data<bool>(mask) + n * slots;
    const T* from = samples.raw(n);
    T* to = data<T>(out) + n * samples.size();
    const auto copy = [&](auto width) {
      for (int64_t i = 0; i < slots; ++i) {
        for (int64_t c = 0; c < width; ++c) {
          to[i * width + c] = kept[i] ? from[i * width + c] : T(0);
        }
      }
    };
    channels == 3 ? copy(std::integral_constant<int64_t, 3>()) : copy(channels);
  });
}

std::tuple<Tensor, Tensor> slot_mask(Tensor x, Tensor noise, int64_t masked) {
  SKELOPS_CHECK(x.dim() == 4 && noise.dim() == 2 && noise.size(0) == x.size(0) &&
                    noise.size(1) == x.size(1) * x.size(2) && masked >= 0 &&
                    masked <= noise.size(1),
                "slot_mask", "x (N, T, V, C), noise (N, T V), masked in 0..T V");
  const std::vector<int64_t> slots{x.size(0), x.size(1), x.size(2)};
  Tensor mask = new_tensor<bool>(x, slots);
  if (noise.scalar_type() == ScalarType::Double) {
    choose<double>(noise, masked, mask);
  } else {
    choose<float>(noise, masked, mask);
  }
  return dispatch(x, "slot_mask", [&](auto type) {
    using T = decltype(type);
    Tensor out = new_tensor<T>(x, {slots[0], slots[1], slots[2], x.size(3)});
    zero_masked<T>(x, mask, out);
    return std::tuple<Tensor, Tensor>{out, mask};
  });
}

Tensor slot_mask_backward(Tensor grad, Tensor x, Tensor /*noise*/, int64_t /*masked*/, Tensor mask,
                          int64_t needs) {
  SKELOPS_CHECK(grad.dim() == 4 && grad.numel() == x.numel() &&
                    mask.numel() == grad.size(0) * grad.size(1) * grad.size(2),
                "slot_mask_backward", "grad (N, T, V, C) and mask (N, T, V)");
  if (!wants(needs, 0)) return no_gradient(grad);
  const Tensor kept = as_contiguous(mask);
  return dispatch(grad, "slot_mask_backward", [&](auto type) {
    using T = decltype(type);
    Tensor out = new_tensor<T>(grad, {grad.size(0), grad.size(1), grad.size(2), grad.size(3)});
    zero_masked<T>(grad, kept, out);
    return out;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("slot_mask", TORCH_BOX(&slot_mask));
  m.impl("slot_mask_backward", TORCH_BOX(&slot_mask_backward));
}

}  // namespace skelops
