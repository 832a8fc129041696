// Compiled with -include cuda_emulator.h.
#include "cuda/sample_clips.cuh"

namespace skelops {

template <>
struct Accumulator<_Float16> {
  using type = float;
};

}  // namespace skelops

using namespace skelops;

namespace {

constexpr unsigned kThreads = 32;

// Null pointers and zeros stand for what is absent; the order is that of the test's lists.
template <typename T>
ClipBatch<T> batch_of(const void* const* tensor, const long long* size) {
  using acc = acc_t<T>;
  ClipBatch<T> b = {};
  const auto next = [&](auto& pointer) {
    pointer = static_cast<std::remove_reference_t<decltype(pointer)>>(*tensor++);
  };
  next(b.xyz), next(b.bounds), next(b.frame), next(b.blend), next(b.affine), next(b.parent);
  next(b.part), next(b.person), next(b.convert), next(b.convert_weight), next(b.order);
  next(b.branch), next(b.blur), next(b.noise), next(b.noise_std), next(b.draw);
  b.source_frames = *size++;
  for (int* field : {&b.source_persons, &b.source_joints, &b.channels, &b.coordinates, &b.frames,
                     &b.joints, &b.persons, &b.out_joints, &b.streams, &b.averaged, &b.taps}) {
    *field = static_cast<int>(*size++);
  }
  b.frame_values = static_cast<long long>(b.source_persons) * b.source_joints * b.channels;
  b.kinds = size[0];
  b.key = philox_key(size[1], size[2], size[3], 0);
  b.keep_missing = size[4];
  return b;
}

template <typename T, typename Out>
void sample(const void* const* tensors, const long long* sizes, long long samples, bool unit_box,
            Out* out) {
  ClipBatch<T> b = batch_of<T>(tensors, sizes);
  std::vector<acc_t<T>> box(samples * 2 * b.coordinates, NAN);
  const unsigned count = samples;
  if (unit_box) {
    launch({count}, kThreads, [&] { sample_clips_box_kernel(b, box.data()); });
    b.box = box.data();
  }
  const ClipTiles tiles(b, samples);
  const unsigned blocks = count * tiles.person_tiles * tiles.frame_tiles;
  launch({blocks}, kThreads, [&] { sample_clips_kernel(b, tiles, out); });
}

}  // namespace

#define EXPORT(T, Out, name)                                                                \
  void sample_##name(const void* const* tensors, const long long* sizes, long long samples, \
                     bool unit_box, Out* out) {                                             \
    sample<T>(tensors, sizes, samples, unit_box, out);                                      \
  }

#define EXPORT_TILES(T, name)                                                              \
  void tiles_##name(const void* const* tensors, const long long* sizes, long long samples, \
                    int* found) {                                                          \
    const ClipTiles tiles(batch_of<T>(tensors, sizes), samples);                           \
    found[0] = tiles.fits, found[1] = tiles.shared_bytes;                                  \
    found[2] = tiles.frame_tiles, found[3] = tiles.person_tiles;                           \
  }

extern "C" {
EXPORT(float, float, float32_float32)
EXPORT(float, _Float16, float32_float16)
EXPORT(_Float16, float, float16_float32)
EXPORT(double, double, float64_float64)
EXPORT_TILES(float, float32)
EXPORT_TILES(double, float64)
}
