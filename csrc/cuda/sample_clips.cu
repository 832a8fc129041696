// CUDA kernel of skelops::sample_clips.
#define SKELOPS_HALF
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "common/launch.cuh"
#include "cuda/sample_clips.cuh"

namespace skelops {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kOp = "_sample_clips_cuda";
constexpr int64_t kMaxValues = int64_t{1} << 31;

// The data of a tensor of this dtype and shape; null for an absent one.
template <typename T>
const T* table(const OptionalTensor& t, ScalarType dtype, const std::vector<int64_t>& shape,
               const Tensor& xyz) {
  if (!t) return nullptr;
  bool fits = t->is_cuda() && t->get_device_index() == xyz.get_device_index() &&
              t->scalar_type() == dtype && t->is_contiguous() &&
              t->dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = t->size(i) == shape[i];
  SKELOPS_CHECK(fits, kOp, "contiguous tensors of matching shapes on xyz's device");
  return input<T>(*t);
}

const long long* indices(const OptionalTensor& t, const std::vector<int64_t>& shape,
                         const Tensor& xyz) {
  return table<long long>(t, ScalarType::Long, shape, xyz);
}

Tensor sample_clips(Tensor xyz, Tensor bounds, Tensor frame, Tensor blend, Tensor affine,
                    Tensor parent, std::vector<int64_t> kinds, OptionalTensor part,
                    OptionalTensor person, OptionalTensor convert, OptionalTensor convert_weight,
                    OptionalTensor order, OptionalTensor branch, OptionalTensor blur,
                    OptionalTensor noise, OptionalTensor noise_std, OptionalTensor draw,
                    int64_t seed, int64_t epoch, int64_t stream, bool keep_missing, bool unit_box,
                    ScalarType dtype) {
  SKELOPS_CHECK(xyz.is_cuda() && xyz.dim() == 4 && xyz.is_contiguous(), kOp,
                "xyz (F, M, V, C) contiguous on a CUDA device");
  SKELOPS_CHECK(frame.dim() == 2 && affine.dim() == 4 && parent.dim() == 2, kOp,
                "frame (N, T), affine (N, 2, D, D + 1) and parent (S, V)");
  const int64_t N = frame.size(0), T = frame.size(1), D = affine.size(2), C = xyz.size(3);
  const int64_t S = static_cast<int64_t>(kinds.size()), W = parent.size(1);
  const int64_t V = convert ? convert->size(0) : xyz.size(2);
  const int64_t M = person ? person->size(1) : xyz.size(1);
  SKELOPS_CHECK(D >= 1 && D <= kMaxCoordinates && C >= D && C <= D + 1, kOp,
                "1 to 3 coordinates and at most one further channel");
  SKELOPS_CHECK(S <= kMaxStreams, kOp, "at most 12 streams");
  SKELOPS_CHECK(!noise_std || draw, kOp, "draw with noise_std");
  Tensor out = torch::stable::new_empty(xyz, {N, S * C, T, W, M}, dtype);
  if (out.numel() == 0) return out;
  SKELOPS_CHECK(V > 0 && C * T * V * M < kMaxValues && S * C * T * W * M < kMaxValues, kOp,
                "less than 2^31 values per sample");

  const LaunchOn device(xyz);
  dispatch_device_type(kOp, xyz, [&](auto stored) {
    using In = decltype(stored);
    using acc = acc_t<In>;
    const ScalarType compute =
        sizeof(acc) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
    ClipBatch<In> b = {};
    b.xyz = input<In>(xyz);
    b.source_frames = xyz.size(0), b.source_persons = xyz.size(1), b.source_joints = xyz.size(2);
    b.frame_values = xyz.size(1) * xyz.size(2) * C;
    b.channels = C, b.coordinates = D, b.frames = T, b.joints = V, b.persons = M;
    b.out_joints = W, b.streams = S;
    b.averaged = convert ? convert->size(1) : 1;
    b.taps = blur ? blur->size(1) : 0;
    for (int64_t s = 0; s < S; ++s) {
      const auto kind = static_cast<unsigned long long>(kinds[s]) & ((1 << kKindBits) - 1);
      b.kinds |= kind << (kKindBits * s);
    }
    b.key = philox_key(seed, epoch, stream, 0);
    b.keep_missing = keep_missing;
    b.bounds = indices(bounds, {N, 2}, xyz);
    b.frame = indices(frame, {N, T}, xyz);
    b.parent = indices(parent, {S, W}, xyz);
    b.part = indices(part, {W}, xyz);
    b.person = indices(person, {N, M}, xyz);
    b.convert = indices(convert, {V, b.averaged}, xyz);
    b.order = indices(order, {N, V}, xyz);
    b.draw = indices(draw, {N}, xyz);
    b.branch = table<unsigned char>(branch, ScalarType::Byte, {N, V}, xyz);
    b.blend = table<acc>(blend, compute, {N, T}, xyz);
    b.affine = table<acc>(affine, compute, {N, 2, D, D + 1}, xyz);
    b.convert_weight = table<acc>(convert_weight, compute, {V, b.averaged}, xyz);
    b.blur = table<acc>(blur, compute, {N, b.taps}, xyz);
    b.noise = table<acc>(noise, compute, {N, D, T, V, M}, xyz);
    b.noise_std = table<acc>(noise_std, compute, {N, D}, xyz);
    SKELOPS_CHECK(!b.convert == !b.convert_weight && (b.part || W == V), kOp,
                  "convert with convert_weight, parents of every joint returned");

    const ClipTiles tiles(b, N);
    const int64_t blocks = N * tiles.person_tiles * tiles.frame_tiles;
    SKELOPS_CHECK(tiles.fits && blocks < kMaxValues, kOp, "a frame that fits into shared memory");
    OptionalTensor box;
    if (unit_box) {
      box = torch::stable::new_empty(xyz, {N, 2, D}, compute);
      sample_clips_box_kernel<In>
          <<<N, kClipThreads, kClipBoxValues * sizeof(acc), device.stream()>>>(b,
                                                                               output<acc>(*box));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
      b.box = input<acc>(*box);
    }
    dispatch_device_type(kOp, out, [&](auto result) {
      using Out = decltype(result);
      sample_clips_kernel<In, Out><<<blocks, kClipThreads, tiles.shared_bytes, device.stream()>>>(
          b, tiles, output<Out>(out));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(skelops, m) {
  m.def(
      "_sample_clips_cuda(Tensor xyz, Tensor bounds, Tensor frame, Tensor blend, Tensor affine, "
      "Tensor parent, int[] kinds, Tensor? part, Tensor? person, Tensor? convert, "
      "Tensor? convert_weight, Tensor? order, Tensor? branch, Tensor? blur, Tensor? noise, "
      "Tensor? noise_std, Tensor? draw, int seed, int epoch, int stream, bool keep_missing, "
      "bool unit_box, ScalarType dtype) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(skelops, CUDA, m) {
  m.impl("_sample_clips_cuda", TORCH_BOX(&sample_clips));
}

}  // namespace skelops
