// temporal_shift: frames are copied as they are, whatever their type.
#include <cstring>

#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

Tensor temporal_shift(Tensor x, int64_t fold, bool reverse) {
  SKELOPS_CHECK(x.dim() >= 3 && fold >= 0 && 2 * fold <= x.size(1), "temporal_shift",
                "x (N, C, T, ...) and fold of at most C / 2");
  const Tensor from = as_contiguous(x);
  const auto sizes = x.sizes();
  Tensor out = torch::stable::new_empty(x, sizes);
  if (out.numel() == 0) return out;
  const int64_t channels = x.size(1), planes = x.size(0) * channels;
  const int64_t plane = out.numel() / planes * x.element_size(), frame = plane / x.size(2);
  const char* in = static_cast<const char*>(from.data_ptr());
  char* to = static_cast<char*>(out.data_ptr());
  parallel(planes, [&](int64_t i) {
    const int64_t c = i % channels;
    const char* source = in + i * plane;
    char* target = to + i * plane;
    if (c >= 2 * fold) {
      std::memcpy(target, source, plane);
    } else if ((c < fold) != reverse) {
      std::memcpy(target, source + frame, plane - frame);
      std::memset(target + plane - frame, 0, frame);
    } else {
      std::memset(target, 0, frame);
      std::memcpy(target + frame, source, plane - frame);
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("temporal_shift", TORCH_BOX(&temporal_shift)); }

}  // namespace skelops
