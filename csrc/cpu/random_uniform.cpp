// random_uniform: a tile of 64 words at a time in vector registers.
#include <algorithm>

#include "common/parallel.h"
#include "common/tensor.h"
#include "math/philox.h"

namespace skelops {
namespace {

Tensor random_uniform(Tensor draw, int64_t seed, int64_t epoch, int64_t stream, int64_t count) {
  SKELOPS_CHECK(draw.dim() == 1 && draw.scalar_type() == ScalarType::Long && count >= 0,
                "random_uniform", "draw (N,) of int64, count >= 0");
  const Tensor ids = as_contiguous(draw);
  const int64_t* id = data<int64_t>(ids);
  Tensor out = new_tensor<float>(draw, {draw.size(0), count});
  parallel(draw.size(0), [&](int64_t n) {
    const PhiloxKey key = philox_key(seed, epoch, stream, id[n]);
    float* to = data<float>(out) + n * count;
    uint32_t words[kTileWords];
    for (int64_t i = 0; i < count; i += kTileWords) {
      philox_tile(key, static_cast<uint32_t>(i / kTileWords), words);
      const int64_t some = std::min<int64_t>(kTileWords, count - i);
      for (int64_t j = 0; j < some; ++j) to[i + j] = uniform_of(words[j]);
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) { m.impl("random_uniform", TORCH_BOX(&random_uniform)); }

}  // namespace skelops
