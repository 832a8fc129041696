// mcu_scan: a task owns some clips of one modality and walks through their frames. Weights are laid
// out once in panels of two vectors, so that the product of every frame streams them.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "cpu/panels.h"
#include "math/logistic.h"
#include "math/moments.h"
#include "math/tanh.h"

namespace skelops {
namespace {

constexpr double kEps = 1e-5;
constexpr int64_t kTileRows = 24;  // clips that share a pass over the weights
enum Gate { kReset, kUpdate, kCandidate, kGates };

struct McuTensors {
  const Tensor &pre, &weight;
  const OptionalTensor &ln_weight, &ln_bias, &h0, &reset_bias;
  bool reset_after;
};

struct McuShape {
  McuShape(const char* op, const McuTensors& t) : reset_after(t.reset_after) {
    SKELOPS_CHECK(t.pre.dim() == 4 && t.weight.dim() == 3, op,
                  "pre (S, N, T, 3 D) and weight (S, 3 D, D)");
    units = t.pre.size(0), batch = t.pre.size(1), frames = t.pre.size(2);
    width = t.weight.size(2);
    SKELOPS_CHECK(t.weight.size(0) == units && t.weight.size(1) == kGates * width &&
                      t.pre.size(3) == kGates * width,
                  op, "weight of shape (S, 3 D, D)");
    for (const OptionalTensor* norm : {&t.ln_weight, &t.ln_bias}) {
      SKELOPS_CHECK(!norm->has_value() || (*norm)->numel() == units * kGates * width, op,
                    "ln_weight and ln_bias of shape (S, 3, D)");
    }
    SKELOPS_CHECK(t.ln_weight.has_value() == t.ln_bias.has_value(), op,
                  "ln_weight and ln_bias or neither");
    SKELOPS_CHECK(!t.h0.has_value() || t.h0->numel() == units * batch * width, op,
                  "h0 of shape (S, N, D)");
    SKELOPS_CHECK(
        !t.reset_bias.has_value() || (t.reset_after && t.reset_bias->numel() == units * width), op,
        "reset_bias of shape (S, D), with reset_after");
  }

  int64_t kept() const { return kGates + (reset_after ? 1 : 0); }
  // Slices of a modality's clips; few enough to be worth a pass over the weights each.
  int64_t slices() const { return std::clamp<int64_t>(batch / 16, batch > 0, kMaxSlices); }

  int64_t units, batch, frames, width;
  bool reset_after;
};

template <typename A>
void store_some(A* p, typename Simd<A>::Vec v, int lanes) {
  if (lanes == Simd<A>::kLanes) {
    Simd<A>::store(p, v);
  } else {
    Simd<A>::store(p, v, lanes);
  }
}

// Parameters of the normalisations of one modality.
template <typename A>
struct Norm {
  Norm(const McuShape& s, const Parameter<A>& weight, const Parameter<A>& bias, int64_t unit)
      : weight(weight.present() ? weight.data() + unit * kGates * s.width : nullptr),
        bias(bias.present() ? bias.data() + unit * kGates * s.width : nullptr),
        width(s.width) {}

  // A row in place: x = (a - mean) / sigma. Returns 1 / sigma.
  A normalise(A* a) const {
    if (weight == nullptr) return A(1);
    const Moments moments = Moments::of(a, width);
    const A mean = static_cast<A>(moments.mean);
    const A rstd = static_cast<A>(1 / std::sqrt(moments.variance() + kEps));
    vectors<A>(width, [&](int64_t i, int lanes) {
      store_some(a + i, (load_some(a + i, lanes) - mean) * rstd, lanes);
    });
    return rstd;
  }

  // The argument of a gate.
  typename Simd<A>::Vec at(Gate gate, const A* x, int64_t i, int lanes) const {
    const auto v = load_some(x + i, lanes);
    if (weight == nullptr) return v;
    const int64_t place = gate * width + i;
    return v * load_some(weight + place, lanes) + load_some(bias + place, lanes);
  }

  const A *weight, *bias;
  int64_t width;
};

using Results = std::tuple<Tensor, Tensor, Tensor>;

template <typename T>
Results forward(const McuTensors& t) {
  using A = Accumulate<T>;
  const McuShape s("mcu_scan", t);
  const int64_t D = s.width, kept = s.kept();
  const Tensor input = as_contiguous(t.pre);
  const Parameter<A> weights(t.weight), ln_weight(t.ln_weight), ln_bias(t.ln_bias), start(t.h0);
  const Parameter<A> reset_bias(t.reset_bias);
  Tensor out = new_tensor<T>(t.pre, {s.units, s.batch, s.frames, D});
  Tensor notes = new_tensor<A>(t.pre, {s.units, s.batch, s.frames, kept, D});
  Tensor rstd = new_tensor<A>(t.pre, {s.units, s.batch, s.frames, kGates});

  std::vector<Panels<A>> panels;
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (int64_t gate = 0; gate < kGates; ++gate) panels.emplace_back(D, D);
  }
  parallel(kGates * s.units,
           [&](int64_t i) { panels[i].copy_transposed(weights.data() + i * D * D); });

  const int64_t slices = s.slices();
  parallel(s.units * slices, [&](int64_t task) {
    const int64_t unit = task / slices, slice = task % slices;
    const Panels<A>* const of_gate = &panels[kGates * unit];
    const Norm<A> norm(s, ln_weight, ln_bias, unit);
    const Scratch<A> h(kTileRows * D), side(kTileRows * D), product(kTileRows * D), converted(D);
    const int64_t end = (slice + 1) * s.batch / slices;
    for (int64_t n = slice * s.batch / slices; n < end; n += kTileRows) {
      const int64_t rows = std::min(kTileRows, end - n), first = unit * s.batch + n;
      if (start.present()) {
        std::copy_n(start.data() + first * D, rows * D, h.get());
      } else {
        std::fill_n(h.get(), rows * D, A(0));
      }
      for (int64_t f = 0; f < s.frames; ++f) {
        const auto at = [&](int64_t row) { return (first + row) * s.frames + f; };
        const bool odd = f % 2 != 0;
        // The normalised argument of a gate.
        const auto argument = [&](Gate gate, const A* states) {
          const bool biased = gate == kCandidate && reset_bias.present();
          for (int64_t row = 0; biased && row < rows; ++row) {
            std::copy_n(reset_bias.data() + unit * D, D, product.get() + row * D);
          }
          of_gate[gate].times(rows, states, D, 1, product.get(), D, biased, odd);
          for (int64_t row = 0; row < rows; ++row) {
            A *x = data<A>(notes) + at(row) * kept * D, *own = x + gate * D;
            const A* m = product.get() + row * D;
            convert(data<T>(input) + (at(row) * kGates + gate) * D, converted.get(), D);
            const bool reset = gate == kCandidate && s.reset_after;
            if (reset) std::copy_n(m, D, x + kGates * D);
            vectors<A>(D, [&](int64_t i, int lanes) {
              auto v = load_some(m + i, lanes);
              if (reset) v *= logistic(norm.at(kReset, x, i, lanes));
              store_some(own + i, v + load_some(&converted[i], lanes), lanes);
            });
            data<A>(rstd)[at(row) * kGates + gate] = norm.normalise(own);
          }
        };
        if (odd) argument(kUpdate, h.get());
        argument(kReset, h.get());
        for (int64_t row = 0; !s.reset_after && row < rows; ++row) {
          const A* x = data<A>(notes) + at(row) * kept * D;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto r = logistic(norm.at(kReset, x, i, lanes));
            store_some(&side[row * D + i], r * load_some(&h[row * D + i], lanes), lanes);
          });
        }
        argument(kCandidate, s.reset_after ? h.get() : side.get());
        if (!odd) argument(kUpdate, h.get());
        for (int64_t row = 0; row < rows; ++row) {
          const A* x = data<A>(notes) + at(row) * kept * D;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto z = logistic(norm.at(kUpdate, x + kUpdate * D, i, lanes));
            const auto candidates = tanh(norm.at(kCandidate, x + kCandidate * D, i, lanes));
            const auto state = load_some(&h[row * D + i], lanes);
            store_some(&h[row * D + i], state + z * (candidates - state), lanes);
          });
          convert(h.get() + row * D, data<T>(out) + at(row) * D, D);
        }
      }
    }
  });
  return {out, notes, rstd};
}

enum Gradient { kPre, kWeight, kLnWeight, kLnBias, kStart, kResetBias };
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Back through activation and normalisation of a row: dy becomes da. Adds to the gradients of the
// normalisation's parameters.
template <typename A>
void back_through_norm(const Norm<A>& norm, Gate gate, const A* x, A rstd, A* dy, A* dweight,
                       A* dbias) {
  using Vec = typename Simd<A>::Vec;
  if (norm.weight == nullptr) return;
  const int64_t D = norm.width;
  const A* weight = norm.weight + gate * D;
  Vec sum = {}, along = {};
  vectors<A>(D, [&](int64_t i, int lanes) {
    const Vec g = load_some(dy + i, lanes), v = load_some(x + i, lanes);
    A *dw = dweight + gate * D + i, *db = dbias + gate * D + i;
    store_some(dw, load_some(dw, lanes) + g * v, lanes);
    store_some(db, load_some(db, lanes) + g, lanes);
    const Vec scaled = g * load_some(weight + i, lanes);
    sum += scaled, along += scaled * v;
  });
  const A mean = Simd<A>::sum(sum) / A(D), slope = Simd<A>::sum(along) / A(D);
  vectors<A>(D, [&](int64_t i, int lanes) {
    const Vec scaled = load_some(dy + i, lanes) * load_some(weight + i, lanes);
    store_some(dy + i, rstd * (scaled - mean - load_some(x + i, lanes) * slope), lanes);
  });
}

template <typename T>
Gradients backward(const Tensor& grad, const McuTensors& t, const Tensor& states,
                   const Tensor& notes, const Tensor& rstd, int64_t needs) {
  using A = Accumulate<T>;
  const McuShape s("mcu_scan_backward", t);
  const int64_t D = s.width, kept = s.kept(), all = s.units * s.batch * s.frames;
  SKELOPS_CHECK(grad.numel() == all * D && states.numel() == all * D &&
                    notes.numel() == all * kept * D && rstd.numel() == all * kGates,
                "mcu_scan_backward", "grad and saved results of the shapes of the forward's");
  const auto want = [needs](int i) { return wants(needs, i); };
  const Tensor grads = as_contiguous(grad), h = as_contiguous(states);
  const Tensor x_all = as_contiguous(notes), factors = as_contiguous(rstd);
  const Parameter<A> weights(t.weight), ln_weight(t.ln_weight), ln_bias(t.ln_bias), start(t.h0);
  Tensor dpre = want(kPre) ? new_tensor<T>(t.pre, {s.units, s.batch, s.frames, kGates * D})
                           : no_gradient(t.pre);
  std::vector<A> dstart(want(kStart) ? s.units * s.batch * D : 0);
  const int64_t slices = s.slices(), tasks = s.units * slices, table = kGates * D;
  const bool want_weight = want(kWeight);
  // A modality's only slice writes the gradient of its weights where it is returned.
  const bool in_place = std::is_same_v<A, T> && slices == 1 && s.frames > 0;
  Tensor dU = want_weight && in_place ? new_tensor<A>(t.weight, {s.units, table, D})
                                      : no_gradient(t.weight);
  std::vector<A> parts(want_weight && !in_place ? tasks * table * D : 0);
  A* const dweight = in_place ? data<A>(dU) : parts.data();
  std::vector<A> dnorm(tasks * 2 * table);
  std::vector<A> dbias(want(kResetBias) ? tasks * D : 0);

  std::vector<Panels<A>> panels;
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (int64_t gate = 0; gate < kGates; ++gate) panels.emplace_back(D, D);
  }
  parallel(kGates * s.units, [&](int64_t i) { panels[i].copy(weights.data() + i * D * D); });

  parallel(tasks, [&](int64_t task) {
    const int64_t unit = task / slices, slice = task % slices;
    const Panels<A>* const of_gate = &panels[kGates * unit];
    const Norm<A> norm(s, ln_weight, ln_bias, unit);
    A *dln_weight = dnorm.data() + task * 2 * table, *dln_bias = dln_weight + table;
    // Of a tile: arguments' gradients and the states they are multiplied with, frame after frame.
    const int64_t tile = kTileRows * s.frames;
    const int64_t stride = table + D + Simd<A>::kLanes;  // rows in different sets of the cache
    const Scratch<A> da(tile * stride), before(tile * D), reset(tile * D);
    const Scratch<A> dh(kTileRows * D), dside(kTileRows * D), converted(D);
    const int64_t end = (slice + 1) * s.batch / slices;
    for (int64_t n = slice * s.batch / slices; n < end; n += kTileRows) {
      const int64_t rows = std::min(kTileRows, end - n), first = unit * s.batch + n;
      std::fill_n(dh.get(), rows * D, A(0));
      for (int64_t f = s.frames - 1; f >= 0; --f) {
        const auto at = [&](int64_t row) { return (first + row) * s.frames + f; };
        const auto place = [&](int64_t row) { return f * rows + row; };
        for (int64_t row = 0; row < rows; ++row) {
          const A* x = data<A>(x_all) + at(row) * kept * D;
          const A* factor = data<A>(factors) + at(row) * kGates;
          A* prev = before.get() + place(row) * D;
          if (f > 0) {
            convert(data<T>(h) + (at(row) - 1) * D, prev, D);
          } else if (start.present()) {
            std::copy_n(start.data() + (first + row) * D, D, prev);
          } else {
            std::fill_n(prev, D, A(0));
          }
          A* d = da.get() + place(row) * stride;
          convert(data<T>(grads) + at(row) * D, converted.get(), D);
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto g = load_some(&dh[row * D + i], lanes) + load_some(&converted[i], lanes);
            const auto z = logistic(norm.at(kUpdate, x + D, i, lanes));
            const auto c = tanh(norm.at(kCandidate, x + kCandidate * D, i, lanes));
            const auto state = load_some(prev + i, lanes);
            store_some(d + kUpdate * D + i, g * (c - state) * z * (A(1) - z), lanes);
            store_some(d + kCandidate * D + i, g * z * (A(1) - c * c), lanes);
            store_some(&dh[row * D + i], g * (A(1) - z), lanes);
          });
          for (const Gate gate : {kUpdate, kCandidate}) {
            back_through_norm(norm, gate, x + gate * D, factor[gate], d + gate * D, dln_weight,
                              dln_bias);
          }
          A *product = d + table, *side = reset.get() + place(row) * D;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto r = logistic(norm.at(kReset, x, i, lanes));
            const auto dn = load_some(d + kCandidate * D + i, lanes);
            const auto state = load_some(prev + i, lanes);
            store_some(product + i, s.reset_after ? dn * r : dn, lanes);
            store_some(side + i, s.reset_after ? state : r * state, lanes);
          });
        }
        const bool odd = f % 2 != 0;
        const auto add_to_state = [&](Gate gate) {
          const A* of_argument = da.get() + place(0) * stride + gate * D;
          of_gate[gate].times(rows, of_argument, stride, 1, dh.get(), D, true, odd);
        };
        if (odd) add_to_state(kUpdate);
        of_gate[kCandidate].times(rows, da.get() + place(0) * stride + table, stride, 1,
                                  dside.get(), D, false, odd);
        for (int64_t row = 0; row < rows; ++row) {
          const A* x = data<A>(x_all) + at(row) * kept * D;
          const A* prev = before.get() + place(row) * D;
          A* d = da.get() + place(row) * stride;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto r = logistic(norm.at(kReset, x, i, lanes));
            const auto g = load_some(&dside[row * D + i], lanes);
            const auto dr = s.reset_after ? load_some(d + kCandidate * D + i, lanes) *
                                                load_some(x + kGates * D + i, lanes)
                                          : g * load_some(prev + i, lanes);
            store_some(d + i, dr * r * (A(1) - r), lanes);
            A* to = &dh[row * D + i];
            store_some(to, load_some(to, lanes) + (s.reset_after ? g : g * r), lanes);
          });
          back_through_norm(norm, kReset, x, data<A>(factors)[at(row) * kGates], d, dln_weight,
                            dln_bias);
        }
        add_to_state(kReset);
        if (!odd) add_to_state(kUpdate);
        for (int64_t row = 0; want(kPre) && row < rows; ++row) {
          convert(da.get() + place(row) * stride, data<T>(dpre) + at(row) * table, table);
        }
      }
      if (want(kStart)) std::copy_n(dh.get(), rows * D, dstart.data() + first * D);
      for (int64_t row = 0; want(kResetBias) && row < rows * s.frames; ++row) {
        for (int64_t i = 0; i < D; ++i) dbias[task * D + i] += da[row * stride + table + i];
      }
      if (want_weight && s.frames > 0) {
        A* to = dweight + task * table * D;
        const bool accumulate = !in_place || n > 0;
        Panels<A> operand(rows * s.frames, D);
        operand.copy(before.get());
        operand.times(2 * D, da.get(), 1, stride, to, D, accumulate);
        operand.copy(reset.get());
        operand.times(D, da.get() + table, 1, stride, to + 2 * D * D, D, accumulate);
      }
    }
  });

  const auto total = [&](const std::vector<A>& parts, int64_t begin, int64_t size) {
    std::vector<A> sum(s.units * size);
    for (int64_t task = 0; task < tasks; ++task) {
      A* to = sum.data() + task / slices * size;
      const A* from = parts.data() + task * (parts.size() / tasks) + begin;
      for (int64_t i = 0; i < size; ++i) to[i] += from[i];
    }
    return sum;
  };
  Tensor dh0 = no_gradient(t.pre);
  Tensor dlw = no_gradient(t.pre), dlb = no_gradient(t.pre), drb = no_gradient(t.pre);
  if (want_weight && !in_place) dU = gradient_of(t.weight, total(parts, 0, table * D));
  if (want(kLnWeight)) dlw = gradient_of(*t.ln_weight, total(dnorm, 0, table));
  if (want(kLnBias)) dlb = gradient_of(*t.ln_bias, total(dnorm, table, table));
  if (want(kStart)) dh0 = gradient_of(*t.h0, dstart);
  if (want(kResetBias)) drb = gradient_of(*t.reset_bias, total(dbias, 0, D));
  return {dpre, dU, dlw, dlb, dh0, drb};
}

Results mcu_scan(Tensor pre, Tensor weight, OptionalTensor ln_weight, OptionalTensor ln_bias,
                 OptionalTensor h0, OptionalTensor reset_bias, bool reset_after) {
  const McuTensors t{pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after};
  return dispatch(pre, "mcu_scan", [&](auto type) { return forward<decltype(type)>(t); });
}

Gradients mcu_scan_backward(Tensor grad, Tensor pre, Tensor weight, OptionalTensor ln_weight,
                            OptionalTensor ln_bias, OptionalTensor h0, OptionalTensor reset_bias,
                            bool reset_after, Tensor states, Tensor notes, Tensor rstd,
                            int64_t needs) {
  const McuTensors t{pre, weight, ln_weight, ln_bias, h0, reset_bias, reset_after};
  return dispatch(pre, "mcu_scan_backward", [&](auto type) {
    return backward<decltype(type)>(grad, t, states, notes, rstd, needs);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(skelops, CPU, m) {
  m.impl("mcu_scan", TORCH_BOX(&mcu_scan));
  m.impl("mcu_scan_backward", TORCH_BOX(&mcu_scan_backward));
}

}  // namespace skelops
