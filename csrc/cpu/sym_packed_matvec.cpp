// sym_packed_matvec: the packed triangle is read once; each row serves its entries and, by
// symmetry, those above the diagonal.
#include "common/parallel.h"
#include "common/tensor.h"

namespace skelops {
namespace {

constexpr const char* kOp = "sym_packed_matvec";

// y = S x
template <typename A>
void multiply_packed(const A* packed, const A* x, int64_t n, A* y) {
  for (int64_t i = 0; i < n; packed += ++i) {
    A sum = packed[i] * x[i];
    const A xi = x[i];
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < i; ++j) {
      sum += packed[j] * x[j];
      y[j] += packed[j] * xi;
    }
    y[i] = sum;
  }
}

struct Sizes {
  Sizes(const Tensor& packed, const Tensor& x) : frames(x.size(0)), n(x.size(1)) {
    SKELOPS_CHECK(
        packed.dim() == 2 && packed.size(0) == frames && packed.size(1) == n * (n + 1) / 2, kOp,
        "packed (N, n (n + 1) / 2) and x (N, n)");
  }
  int64_t frames, n;
};

template <typename T>
Tensor forward(const Tensor& packed, const Tensor& x) {
  using A = Accumulate<T>;
  const Sizes s(packed, x);
  const Samples<T> matrices(packed), vectors(x);
  Tensor out = new_tensor<T>(x, {s.frames, s.n});
  const Slices slices(s.frames);
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> matrix(matrices.scratch()), vector(vectors.scratch()), y(s.n);
    for (int64_t t = slices.begin(slice); t < slices.end(slice); ++t) {
      multiply_packed(matrices.get(t, matrix.get()), vectors.get(t, vector.get()), s.n, y.get());
      convert(y.get(), data<T>(out) + t * s.n, s.n);
    }
  });
  return out;
}

template <typename T>
std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& packed, const Tensor& x,
                                    int64_t needs) {
  using A = Accumulate<T>;
  const Sizes s(packed, x);
  const bool want_packed = wants(needs, 0), want_x = wants(needs, 1);
  const Samples<T> matrices(packed), vectors(x), grads(grad);
  const int64_t size = s.n * (s.n + 1) / 2;
  Tensor dpacked = want_packed ? new_tensor<T>(x, {s.frames, size}) : no_gradient(x);
  Tensor dx = want_x ? new_tensor<T>(x, {s.frames, s.n}) : no_gradient(x);
  const Slices slices(s.frames);
  parallel(slices.count, [&](int64_t slice) {
    const Scratch<A> matrix(matrices.scratch()), vector(vectors.scratch());
    const Scratch<A> gradient(grads.scratch()), y(s.n);
    for (int64_t t = slices.begin(slice); t < slices.end(slice); ++t) {
      const A* const g = grads.get(t, gradient.get());
      if (want_x) {
        multiply_packed(matrices.get(t, matrix.get()), g, s.n, y.get());
        convert(y.get(), data<T>(dx) + t * s.n, s.n);
      }
      if (!want_packed) continue;
      const A* const v = vectors.get(t, vector.get());
      T* row = data<T>(dpacked) + t * size;
      for (int64_t i = 0; i < s.n; row += ++i) {
        for (int64_t j = 0; j < i; ++j) row[j] = static_cast<T>(g[i] * v[j] + g[j] * v[i]);
        row[i] = static_cast<T>(g[i] * v[i]);
      }
    }
  });
  return {dpacked, dx};
}

Tensor sym_packed_matvec_cpu(Tensor packed, Tensor x) {
  return dispatch(x, kOp, [&](auto type) { return forward<decltype(type)>(packed, x); });
}

std::tuple<Tensor, Tensor> sym_packed_matvec_backward_cpu(Tensor grad, Tensor packed, Tensor x,
                                                          int64_t needs) {
  return dispatch(x, kOp,
                  [&](auto type) { return backward<decltype(type)>(grad, packed, x, needs); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("sym_packed_matvec", TORCH_BOX(&sym_packed_matvec_cpu));
  m.impl("sym_packed_matvec_backward", TORCH_BOX(&sym_packed_matvec_backward_cpu));
}

}  // namespace skelops
