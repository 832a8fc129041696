// ms_temporal_conv: per sample, one product for the 1x1 transforms of all branches, then each
// branch from cache straight into its rows of the result. A temporal convolution is a product over
// (tap, channel) whose right-hand side is the padded activation shifted by whole frames.
//
// Memory: x and h are read, h and y written once; the backward reads x, h and dy and writes dx.
#include <cmath>

#include "common/gemm.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/transpose.h"
#include "cpu/unit.h"
#include "math/moments.h"

namespace skelops {
namespace {

struct TemporalTensors {
  const Tensor &x, &weight, &bias, &conv_weight, &conv_bias, &norm_weight, &norm_bias;
  const OptionalTensor &running_mean, &running_var;
  const std::vector<int64_t>&widths, &dilations;
  int64_t kernel_size, stride;
  bool replicate, training;
  double eps;
};

// A branch behind the normalisation; `row` is its first channel.
struct Branch {
  int64_t row, width, dilation, pad, taps_at;  // dilation 0: the max-pool
};

struct TemporalShape {
  explicit TemporalShape(const TemporalTensors& t)
      : batch(t.x.size(0)),
        inputs(t.x.size(1)),
        frames(t.x.size(2)),
        joints(t.x.size(3)),
        channels(t.weight.size(0)),
        taps(t.kernel_size),
        stride(t.stride),
        out_frames((frames - 1) / stride + 1) {
    const char* op = "ms_temporal_conv";
    SKELOPS_CHECK(t.x.dim() == 4 && frames > 0 && stride > 0, op, "x (N, C, T, V), T >= 1");
    SKELOPS_CHECK(t.weight.dim() == 2 && t.weight.size(1) == inputs && t.bias.numel() == channels,
                  op, "weight (C', C) and bias (C',)");
    const size_t convolutions = t.dilations.size();
    SKELOPS_CHECK(t.widths.size() == convolutions || t.widths.size() == convolutions + 1, op,
                  "a width per convolution and at most one more");
    int64_t taps_at = 0, biases = 0;
    for (size_t i = 0; i < t.widths.size(); ++i) {
      const bool convolution = i < convolutions;
      const int64_t dilation = convolution ? t.dilations[i] : 0, width = t.widths[i];
      SKELOPS_CHECK(width >= 0 && dilation >= (convolution ? 1 : 0), op, "widths, dilations >= 1");
      const int64_t pad = convolution ? dilation * (taps / 2) : 1;
      branches.push_back({normed, width, dilation, pad, taps_at});
      normed += width;
      widest = std::max(widest, width);
      widest_pad = std::max(widest_pad, branches.back().pad);
      if (convolution) taps_at += width * width * taps, biases += width;
    }
    SKELOPS_CHECK(t.conv_weight.numel() == taps_at && t.conv_bias.numel() == biases, op,
                  "conv_weight and conv_bias of the widths and the kernel size");
    SKELOPS_CHECK(
        normed <= channels && t.norm_weight.numel() == normed && t.norm_bias.numel() == normed, op,
        "norm_weight and norm_bias of the normalised channels");
  }

  int64_t frame() const { return frames * joints; }
  int64_t out_frame() const { return out_frames * joints; }
  int64_t plain() const { return channels - normed; }
  int64_t padded() const { return (frames + 2 * widest_pad) * joints; }

  int64_t batch, inputs, frames, joints, channels, taps, stride, out_frames;
  int64_t normed = 0, widest = 0, widest_pad = 0;
  std::vector<Branch> branches;
};

template <typename A>
struct Parameters {
  Parameters(const TemporalTensors& t, const TemporalShape& s)
      : weight(OptionalTensor(t.weight)),
        bias(parameter<A>(t.bias)),
        conv_bias(parameter<A>(t.conv_bias)),
        norm_weight(parameter<A>(t.norm_weight)),
        norm_bias(parameter<A>(t.norm_bias)),
        taps(t.conv_weight.numel()) {
    // (o, i, tap) -> (tap, o, i)
    const std::vector<A> stored = parameter<A>(t.conv_weight);
    for (const Branch& b : s.branches) {
      const int64_t size = b.dilation ? b.width * b.width : 0;
      for (int64_t j = 0; j < s.taps; ++j) {
        for (int64_t i = 0; i < size; ++i) {
          taps[b.taps_at + j * size + i] = stored[b.taps_at + i * s.taps + j];
        }
      }
    }
  }

  Parameter<A> weight;
  std::vector<A> bias, conv_bias, norm_weight, norm_bias, taps;
};

template <typename A>
struct Normalisation {
  std::vector<A> mean, rstd, scale, shift;

  Normalisation(const std::vector<A>& mean, const std::vector<A>& var, const Parameters<A>& p,
                double eps)
      : mean(mean), rstd(var.size()), scale(var.size()), shift(var.size()) {
    for (size_t c = 0; c < var.size(); ++c) {
      rstd[c] = static_cast<A>(1 / std::sqrt(static_cast<double>(var[c]) + eps));
      scale[c] = p.norm_weight[c] * rstd[c];
      shift[c] = p.norm_bias[c] - mean[c] * scale[c];
    }
  }
};

// rows [begin, end) of the 1x1 transform: out (rows, count) = W x + b.
template <typename A>
void pointwise(const TemporalShape& s, const Parameters<A>& p, const A* x, int64_t count,
               int64_t begin, int64_t end, A* out) {
  Product<A> product{};
  product.m = end - begin, product.n = count, product.k = s.inputs;
  product.a = p.weight.data() + begin * s.inputs, product.a_row = s.inputs, product.a_col = 1;
  product.b = x, product.b_row = count;
  product.c = out, product.c_row = count;
  product.row_init = p.bias.data() + begin;
  multiply(product);
}

// Every stride-th frame of `rows` rows.
template <typename A>
void subsample(const TemporalShape& s, const A* from, int64_t rows, A* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < s.out_frames; ++t, to += s.joints) {
      std::copy_n(from + r * s.frame() + t * s.stride * s.joints, s.joints, to);
    }
  }
}

// relu(scale h + shift) with `pad` frames of zeros or of the border frames on both sides.
template <typename A>
void activate(const TemporalShape& s, const Normalisation<A>& norm, const A* hidden,
              const Branch& b, bool replicate, A* out) {
  const int64_t row = s.frame(), margin = b.pad * s.joints, padded = row + 2 * margin;
  for (int64_t c = 0; c < b.width; ++c) {
    const A scale = norm.scale[b.row + c], shift = norm.shift[b.row + c];
    const A* h = hidden + (b.row + c) * row;
    A* a = out + c * padded;
    for (int64_t i = 0; i < row; ++i) {
      const A v = h[i] * scale + shift;
      a[margin + i] = v < A(0) ? A(0) : v;
    }
    if (!replicate) {
      std::fill_n(a, margin, A(0));
      std::fill_n(a + margin + row, margin, A(0));
      continue;
    }
    for (int64_t i = 0; i < margin; i += s.joints) {
      std::copy_n(a + margin, s.joints, a + i);
      std::copy_n(a + row + margin - s.joints, s.joints, a + row + margin + i);
    }
  }
}

template <typename A>
void convolve(const TemporalShape& s, const Parameters<A>& p, const Branch& b, const A* shift,
              const A* activation, A* gathered, A* out) {
  const int64_t count = s.out_frame(), padded = s.frame() + 2 * b.pad * s.joints;
  Product<A> product{};
  product.m = product.k = b.width, product.n = count, product.parts = s.taps;
  product.a = p.taps.data() + b.taps_at, product.a_row = b.width, product.a_col = 1;
  product.a_part = b.width * b.width;
  product.b = activation, product.b_row = padded, product.b_part = b.dilation * s.joints;
  product.c = out, product.c_row = count;
  product.row_init = shift;
  if (s.stride > 1) {
    A* to = gathered;
    for (int64_t j = 0; j < s.taps; ++j) {
      for (int64_t c = 0; c < b.width; ++c) {
        const A* from = activation + c * padded + j * b.dilation * s.joints;
        for (int64_t t = 0; t < s.out_frames; ++t, to += s.joints) {
          std::copy_n(from + t * s.stride * s.joints, s.joints, to);
        }
      }
    }
    product.b = gathered, product.b_row = count, product.b_part = b.width * count;
  }
  multiply(product);
}

// Maximum over a frame and its neighbours; keeps NaN. The activation has a frame of zeros, the
// least it can be, on either side.
template <typename A>
void pool(const TemporalShape& s, const A* activation, int64_t width, A* out) {
  using S = Simd<A>;
  const int64_t V = s.joints, runs = s.stride == 1 ? 1 : s.out_frames;
  const int64_t run = s.stride == 1 ? s.frame() : V;
  for (int64_t c = 0; c < width; ++c, activation += s.frame() + 2 * V) {
    const A* a = activation;
    for (int64_t r = 0; r < runs; ++r, a += s.stride * V, out += run) {
      vectors<A>(run, [&](int64_t i, int lanes) {
        const auto before = load_some(a + i, lanes), here = load_some(a + i + V, lanes);
        const auto after = load_some(a + i + 2 * V, lanes);
        const auto first = (here > before) | (here != here) ? here : before;
        S::store(out + i, (after > first) | (after != after) ? after : first, lanes);
      });
    }
  }
}

// da += dy at the first maximum of each window. A frame beyond the border never wins: a gradient at
// zero is dropped by the rectifier.
template <typename A>
void pool_backward(const TemporalShape& s, const A* activation, const A* dy, int64_t width, A* da) {
  const int64_t V = s.joints;
  std::vector<A> unused(V);
  std::fill_n(da, width * s.frame(), A(0));
  for (int64_t c = 0; c < width; ++c, activation += s.frame() + 2 * V, da += s.frame()) {
    for (int64_t t = 0; t < s.out_frames; ++t, dy += V) {
      const int64_t centre = t * s.stride * V;
      const A *before = activation + centre, *here = before + V, *after = here + V;
      A* __restrict d_before = centre > 0 ? da + centre - V : unused.data();
      A* __restrict d_here = da + centre;
      A* __restrict d_after = centre + V < s.frame() ? da + centre + V : unused.data();
#pragma GCC ivdep
      for (int64_t v = 0; v < V; ++v) {
        const A first = here[v] > before[v] ? here[v] : before[v];
        const A last = after[v] > first ? dy[v] : A(0);
        const A rest = dy[v] - last;
        const A middle = here[v] > before[v] ? rest : A(0);
        d_after[v] += last;
        d_here[v] += middle;
        d_before[v] += rest - middle;
      }
    }
  }
}

// da (width, T * V) = the transposed convolution of dy; `stuffed` holds dy between zeros.
template <typename A>
void convolve_backward(const TemporalShape& s, const Parameters<A>& p, const Branch& b,
                       bool replicate, const A* dy, A* stuffed, A* padded_gradient, A* da) {
  const int64_t V = s.joints, row = s.frame(), length = (s.frames + 4 * b.pad) * V;
  std::fill_n(stuffed, b.width * length, A(0));
  for (int64_t c = 0; c < b.width; ++c) {
    A* to = stuffed + c * length + 2 * b.pad * V;
    for (int64_t t = 0; t < s.out_frames; ++t, dy += V) std::copy_n(dy, V, to + t * s.stride * V);
  }
  // Frames of the padded activation whose gradient counts: all of them if the borders were copies.
  const int64_t first = replicate ? 0 : b.pad, count = s.frames + (replicate ? 2 * b.pad : 0);
  Product<A> product{};
  product.m = product.k = b.width, product.n = count * V, product.parts = s.taps;
  product.a = p.taps.data() + b.taps_at, product.a_row = 1, product.a_col = b.width;
  product.a_part = b.width * b.width;
  product.b = stuffed + (first + 2 * b.pad) * V, product.b_row = length;
  product.b_part = -b.dilation * V;
  product.c = replicate ? padded_gradient : da, product.c_row = count * V;
  multiply(product);
  if (!replicate) return;
  for (int64_t c = 0; c < b.width; ++c) {
    const A* from = padded_gradient + c * count * V;
    A* to = da + c * row;
    std::copy_n(from + b.pad * V, row, to);
    for (int64_t f = 0; f < b.pad; ++f) {
      for (int64_t v = 0; v < V; ++v) {
        to[v] += from[f * V + v];
        to[row - V + v] += from[(s.frames + b.pad + f) * V + v];
      }
    }
  }
}

// dtaps (tap, o, i) += dy (o, frames) times the activation as (frames, i).
template <typename A>
void convolve_weight(const TemporalShape& s, const Branch& b, const A* dy, const A* columns,
                     A* dtaps) {
  for (int64_t j = 0; j < s.taps; ++j) {
    Product<A> product{};
    product.m = product.n = b.width;
    product.a = dy, product.a_row = s.out_frame(), product.a_col = 1;
    product.b = columns + j * b.dilation * s.joints * b.width, product.b_row = b.width;
    product.c = dtaps + j * b.width * b.width, product.c_row = b.width;
    product.accumulate = true;
    if (s.stride == 1) {
      product.k = s.out_frame();
    } else {
      product.k = s.joints, product.parts = s.out_frames;
      product.a_part = s.joints, product.b_part = s.stride * s.joints * b.width;
    }
    multiply(product);
  }
}

// h of a sample: kept by the forward, or computed again.
template <typename T>
class Hidden {
 public:
  using A = Accumulate<T>;
  Hidden(const TemporalShape& s, const Parameters<A>& p, const Tensor& kept)
      : s_(s), p_(p), kept_(kept), is_kept_(kept.numel() > 0) {}

  int64_t scratch() const { return is_kept_ && Samples<T>::kInPlace ? 0 : s_.normed * s_.frame(); }

  const A* get(int64_t n, const A* x, A* scratch) const {
    if (is_kept_) return kept_.get(n, scratch);
    pointwise(s_, p_, x, s_.frame(), 0, s_.normed, scratch);
    return scratch;
  }

 private:
  const TemporalShape& s_;
  const Parameters<A>& p_;
  Samples<T> kept_;
  bool is_kept_;
};

template <typename T>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const TemporalTensors& t, bool keep,
                                                   const Tail<T>* tail = nullptr) {
  using A = Accumulate<T>;
  const TemporalShape s(t);
  const Parameters<A> p(t, s);
  const Samples<T> inputs(t.x);
  const int64_t row = s.frame(), out_row = s.out_frame();
  Tensor out = new_tensor<T>(t.x, {s.batch, s.channels, s.out_frames, s.joints});
  Tensor hidden =
      keep ? new_tensor<T>(t.x, {s.batch, s.normed, s.frames, s.joints}) : no_gradient(t.x);
  const int64_t statistics = t.training ? s.normed : 0;
  Tensor mean_out = new_tensor<A>(t.x, {statistics}), var_out = new_tensor<A>(t.x, {statistics});

  std::vector<A> mean, var;
  if (t.training) {
    std::vector<Moments> moments(s.batch * s.normed);
    parallel(s.batch, [&](int64_t n) {
      const Scratch<A> converted(inputs.scratch());
      const bool direct = keep && inputs.kInPlace;
      const Scratch<A> own(direct ? 0 : s.normed * row);
      T* kept = keep ? data<T>(hidden) + n * s.normed * row : nullptr;
      A* h = direct ? reinterpret_cast<A*>(kept) : own.get();
      pointwise(s, p, inputs.get(n, converted.get()), row, 0, s.normed, h);
      for (int64_t c = 0; c < s.normed; ++c) {
        moments[n * s.normed + c] = Moments::of(h + c * row, row);
      }
      if (keep && !direct) convert(h, kept, s.normed * row);
    });
    for (int64_t c = 0; c < s.normed; ++c) {
      Moments all;
      for (int64_t n = 0; n < s.batch; ++n) all.merge(moments[n * s.normed + c]);
      mean.push_back(static_cast<A>(all.mean));
      var.push_back(static_cast<A>(all.variance()));
    }
    std::copy(mean.begin(), mean.end(), data<A>(mean_out));
    std::copy(var.begin(), var.end(), data<A>(var_out));
  } else {
    mean = parameter<A>(t.running_mean), var = parameter<A>(t.running_var);
  }

  const Normalisation<A> norm(mean, var, p, t.eps);
  const Hidden<T> source(s, p, keep && t.training ? hidden : no_gradient(t.x));
  parallel(s.batch, [&](int64_t n) {
    const Scratch<A> converted(inputs.scratch()), own(source.scratch());
    const Scratch<A> activation(s.widest * s.padded());
    const Scratch<A> gathered(s.stride > 1 ? s.widest * s.taps * out_row : 0);
    const Scratch<A> strided(s.stride > 1 && s.plain() > 0 ? s.inputs * out_row : 0);
    const Scratch<A> result(inputs.kInPlace ? 0 : s.channels * out_row);
    const A* x = inputs.get(n, converted.get());
    const A* h = source.get(n, x, own.get());
    if (keep && !t.training) convert(h, data<T>(hidden) + n * s.normed * row, s.normed * row);
    T* to = data<T>(out) + n * s.channels * out_row;
    A* y = inputs.kInPlace ? reinterpret_cast<A*>(to) : result.get();
    const A* shift = p.conv_bias.data();
    for (const Branch& b : s.branches) {
      A* y_branch = y + b.row * out_row;
      activate(s, norm, h, b, t.replicate, activation.get());
      if (b.dilation == 0) {
        pool(s, activation.get(), b.width, y_branch);
        continue;
      }
      convolve(s, p, b, shift, activation.get(), gathered.get(), y_branch);
      shift += b.width;
    }
    if (s.plain() > 0) {
      if (s.stride > 1) subsample(s, x, s.inputs, strided.get());
      pointwise(s, p, s.stride > 1 ? strided.get() : x, out_row, s.normed, s.channels,
                y + s.normed * out_row);
    }
    if (tail != nullptr) tail->apply(n, 0, s.channels, y);
    if (!inputs.kInPlace) convert(y, to, s.channels * out_row);
  });
  return {out, hidden, mean_out, var_out};
}

// Gradients in the order of the schema.
enum Gradient { kX, kWeight, kBias, kConvWeight, kConvBias, kNormWeight, kNormBias };
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
Gradients backward(const Tensor& grad, const TemporalTensors& t, const Tensor& hidden,
                   const Tensor& mean, const Tensor& var, int64_t needs) {
  using A = Accumulate<T>;
  const TemporalShape s(t);
  const Parameters<A> p(t, s);
  const Samples<T> inputs(t.x), grads(grad);
  const int64_t row = s.frame(), out_row = s.out_frame(), V = s.joints;
  const auto want = [needs](int i) { return wants(needs, i); };
  const bool want_hidden = want(kX) || want(kWeight) || want(kBias);
  const Normalisation<A> norm(parameter<A>(t.training ? OptionalTensor(mean) : t.running_mean),
                              parameter<A>(t.training ? OptionalTensor(var) : t.running_var), p,
                              t.eps);
  const Hidden<T> source(s, p, hidden);
  Tensor dx = want(kX) ? new_tensor<T>(t.x, {s.batch, s.inputs, s.frames, V}) : no_gradient(t.x);
  const Slices slices(s.batch);
  Partials<A> dtaps(slices, want(kConvWeight) ? t.conv_weight.numel() : 0);
  Partials<A> dshift(slices, want(kConvBias) ? t.conv_bias.numel() : 0);
  Partials<A> dweight(slices, want(kWeight) ? s.channels * s.inputs : 0);
  Partials<A> dbias(slices, want(kBias) ? s.channels : 0);
  Partials<double> totals(slices, 2 * s.normed);
  // Gradients behind the normalisation, kept from the first pass to the second.
  std::vector<std::unique_ptr<A[]>> normed_gradients(s.batch);

  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> x_converted(inputs.scratch()), g_converted(grads.scratch());
    const Scratch<A> own(source.scratch()), activation(s.widest * s.padded());
    const Scratch<A> columns(want(kConvWeight) ? s.widest * s.padded() : 0);
    const Scratch<A> stuffed(s.widest * (s.frames + 4 * s.widest_pad) * V);
    const Scratch<A> padded_gradient(t.replicate ? s.widest * s.padded() : 0);
    for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
      const A* h = source.get(n, inputs.get(n, x_converted.get()), own.get());
      const A* dy = grads.get(n, g_converted.get());
      normed_gradients[n].reset(new A[s.normed * row]);
      int64_t shift = 0;
      for (const Branch& b : s.branches) {
        A* d = normed_gradients[n].get() + b.row * row;
        const A* dy_branch = dy + b.row * out_row;
        if (b.dilation == 0) {
          activate(s, norm, h, b, false, activation.get());
          pool_backward(s, activation.get(), dy_branch, b.width, d);
        } else {
          if (want(kConvWeight)) {
            activate(s, norm, h, b, t.replicate, activation.get());
            transpose(activation.get(), b.width, row + 2 * b.pad * V, columns.get());
            convolve_weight(s, b, dy_branch, columns.get(), dtaps.slice(slice) + b.taps_at);
          }
          for (int64_t c = 0; c < b.width && want(kConvBias); ++c) {
            dshift.slice(slice)[shift + c] += sum(dy_branch + c * out_row, out_row);
          }
          shift += b.width;
          convolve_backward(s, p, b, t.replicate, dy_branch, stuffed.get(), padded_gradient.get(),
                            d);
        }
        for (int64_t c = 0; c < b.width; ++c) {
          const int64_t channel = b.row + c;
          const A scale = norm.scale[channel], offset = norm.shift[channel];
          const A centre = norm.mean[channel];
          const A* h_row = h + channel * row;
          A* d_row = d + c * row;
          for (int64_t i = 0; i < row; ++i) {
            d_row[i] = h_row[i] * scale + offset > A(0) ? d_row[i] : A(0);
          }
          double* total = totals.slice(slice) + 2 * channel;
          total[0] += sum(d_row, row);
          total[1] += reduce<A>(row, [=](int64_t i, int lanes) {
            return load_some(d_row + i, lanes) * (load_some(h_row + i, lanes) - centre);
          });
        }
      }
    }
  });

  const std::vector<double> total = totals.total();
  const double count = static_cast<double>(s.batch * row);
  if (want_hidden) {
    parallel(slices.count, [&](int64_t slice) {
      const Scratch<A> x_converted(inputs.scratch()), g_converted(grads.scratch());
      const Scratch<A> own(source.scratch());
      const Scratch<A> columns(want(kWeight) ? s.inputs * row : 0);
      const Scratch<A> strided(s.stride > 1 && s.plain() > 0 ? s.inputs * out_row : 0);
      const Scratch<A> dx_sample(inputs.kInPlace ? 0 : s.inputs * row);
      for (int64_t n = slices.begin(slice); n < slices.end(slice); ++n) {
        const A* x = inputs.get(n, x_converted.get());
        const A* h = source.get(n, x, own.get());
        const A* dy_plain = grads.get(n, g_converted.get()) + s.normed * out_row;
        A* d = normed_gradients[n].get();
        for (int64_t c = 0; c < s.normed; ++c) {
          const A mean_d = t.training ? static_cast<A>(total[2 * c] / count) : A(0);
          const A slope =
              t.training ? static_cast<A>(total[2 * c + 1] / count) * norm.rstd[c] * norm.rstd[c]
                         : A(0);
          const A centre = norm.mean[c], scale = norm.scale[c];
          A* d_row = d + c * row;
          const A* h_row = h + c * row;
          for (int64_t i = 0; i < row; ++i) {
            d_row[i] = ((d_row[i] - mean_d) - (h_row[i] - centre) * slope) * scale;
          }
        }
        if (want(kBias)) {
          A* to = dbias.slice(slice);
          for (int64_t c = 0; c < s.normed; ++c) to[c] += sum(d + c * row, row);
          for (int64_t c = 0; c < s.plain(); ++c) {
            to[s.normed + c] += sum(dy_plain + c * out_row, out_row);
          }
        }
        if (want(kWeight)) {
          transpose(x, s.inputs, row, columns.get());
          Product<A> product{};
          product.n = s.inputs, product.accumulate = true;
          product.b = columns.get(), product.b_row = s.inputs;
          product.c_row = s.inputs, product.a_col = 1;
          product.m = s.normed, product.k = row, product.a = d, product.a_row = row;
          product.c = dweight.slice(slice);
          multiply(product);
          product.m = s.plain(), product.k = V, product.parts = s.out_frames;
          product.a = dy_plain, product.a_row = out_row;
          product.a_part = V, product.b_part = s.stride * V * s.inputs;
          product.c += s.normed * s.inputs;
          multiply(product);
        }
        if (want(kX)) {
          T* to = data<T>(dx) + n * s.inputs * row;
          A* dx_n = inputs.kInPlace ? reinterpret_cast<A*>(to) : dx_sample.get();
          Product<A> product{};
          product.m = s.inputs, product.a_row = 1, product.a_col = s.inputs;
          product.n = row, product.k = s.normed;
          product.a = p.weight.data(), product.b = d, product.b_row = row;
          product.c = dx_n, product.c_row = row;
          multiply(product);
          product.k = s.plain(), product.a += s.normed * s.inputs;
          product.b = dy_plain, product.b_row = out_row, product.n = out_row;
          if (s.stride == 1) {
            product.accumulate = true;
            multiply(product);
          } else if (s.plain() > 0) {
            product.c = strided.get(), product.c_row = out_row;
            multiply(product);
            const A* from = strided.get();
            for (int64_t c = 0; c < s.inputs; ++c) {
              for (int64_t f = 0; f < s.out_frames; ++f, from += V) {
                A* frame = dx_n + c * row + f * s.stride * V;
                for (int64_t v = 0; v < V; ++v) frame[v] += from[v];
              }
            }
          }
          if (!inputs.kInPlace) convert(dx_n, to, s.inputs * row);
        }
        normed_gradients[n].reset();
      }
    });
  }

  Tensor dw = no_gradient(t.x), db = no_gradient(t.x), dk = no_gradient(t.x);
  Tensor dc = no_gradient(t.x), dg = no_gradient(t.x), dh = no_gradient(t.x);
  if (want(kWeight)) dw = gradient_of(t.weight, dweight.total());
  if (want(kBias)) db = gradient_of(t.bias, dbias.total());
  if (want(kConvBias)) dc = gradient_of(t.conv_bias, dshift.total());
  if (want(kConvWeight)) {
    const std::vector<A> by_tap = dtaps.total();
    std::vector<A> stored(by_tap.size());
    for (const Branch& b : s.branches) {
      const int64_t size = b.dilation ? b.width * b.width : 0;
      for (int64_t j = 0; j < s.taps; ++j) {
        for (int64_t i = 0; i < size; ++i) {
          stored[b.taps_at + i * s.taps + j] = by_tap[b.taps_at + j * size + i];
        }
      }
    }
    dk = gradient_of(t.conv_weight, stored);
  }
  std::vector<A> along(s.normed), sums(s.normed);
  for (int64_t c = 0; c < s.normed; ++c) {
    sums[c] = static_cast<A>(total[2 * c]);
    along[c] = static_cast<A>(total[2 * c + 1] * norm.rstd[c]);
  }
  if (want(kNormWeight)) dg = gradient_of(t.norm_weight, along);
  if (want(kNormBias)) dh = gradient_of(t.norm_bias, sums);
  return {dx, dw, db, dk, dc, dg, dh};
}

using IntList = std::vector<int64_t>;

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_temporal_conv(
    Tensor x, Tensor weight, Tensor bias, Tensor conv_weight, Tensor conv_bias, Tensor norm_weight,
    Tensor norm_bias, OptionalTensor running_mean, OptionalTensor running_var, IntList widths,
    IntList dilations, int64_t kernel_size, int64_t stride, bool replicate, bool training,
    bool keep, double eps) {
  const TemporalTensors t{x,         weight,       bias,        conv_weight, conv_bias, norm_weight,
                          norm_bias, running_mean, running_var, widths,      dilations, kernel_size,
                          stride,    replicate,    training,    eps};
  return dispatch(x, "ms_temporal_conv",
                  [&](auto type) { return forward<decltype(type)>(t, keep); });
}

Tensor ms_temporal_unit(Tensor x, TensorList weight, TensorList bias, TensorList conv_weight,
                        TensorList conv_bias, TensorList inner_norm, IntList widths,
                        IntList dilations, int64_t kernel_size, int64_t stride, bool replicate,
                        double inner_eps, TensorList norm, OptionalTensor residual, bool relu,
                        double eps) {
  constexpr const char* op = "ms_temporal_unit";
  SKELOPS_CHECK(x.dim() == 4 && x.size(2) > 0 && stride > 0, op, "x (N, C, T, V), T >= 1");
  const int64_t channels = numel(bias), taps = numel(conv_weight), shifts = numel(conv_bias);
  const auto some = [&](const TensorList& pieces, int64_t count) {
    return pieces.empty() ? no_gradient(x) : joined(op, pieces, {count});
  };
  const Tensor w = joined(op, weight, {channels, x.size(1)}), b = joined(op, bias, {channels});
  const Tensor cw = some(conv_weight, taps), cb = some(conv_bias, shifts);
  const NormPieces inner(op, inner_norm);
  SKELOPS_CHECK(!inner.empty(), op, "a normalisation of the convolutions");
  const Tensor g = inner.part(op, 0), h = inner.part(op, 1);
  const OptionalTensor mean = inner.part(op, 2), var = inner.part(op, 3);
  const TemporalTensors t{x,   w,      b,         cw,          cb,     g,         h,     mean,
                          var, widths, dilations, kernel_size, stride, replicate, false, inner_eps};
  return dispatch(x, op, [&](auto type) {
    using T = decltype(type);
    const TailTensors end{norm, residual, relu, eps};
    const int64_t row = ((x.size(2) - 1) / stride + 1) * x.size(3);
    const Tail<T> tail(op, x, end, x.size(0), channels, row);
    return std::get<0>(forward<T>(t, false, &tail));
  });
}

Gradients ms_temporal_conv_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias,
                                    Tensor conv_weight, Tensor conv_bias, Tensor norm_weight,
                                    Tensor norm_bias, OptionalTensor running_mean,
                                    OptionalTensor running_var, IntList widths, IntList dilations,
                                    int64_t kernel_size, int64_t stride, bool replicate,
                                    bool training, bool keep, double eps, Tensor hidden,
                                    Tensor mean, Tensor var, int64_t needs) {
  (void)keep;
  const TemporalTensors t{x,         weight,       bias,        conv_weight, conv_bias, norm_weight,
                          norm_bias, running_mean, running_var, widths,      dilations, kernel_size,
                          stride,    replicate,    training,    eps};
  return dispatch(x, "ms_temporal_conv_backward", [&](auto type) {
    return backward<decltype(type)>(grad, t, hidden, mean, var, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("ms_temporal_conv", TORCH_BOX(&ms_temporal_conv));
  m.impl("ms_temporal_conv_backward", TORCH_BOX(&ms_temporal_conv_backward));
  m.impl("ms_temporal_unit", TORCH_BOX(&ms_temporal_unit));
}

}  // namespace skelops
