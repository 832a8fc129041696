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
  const Tensor input = torch::stable::contiguous(t.pre);
  const Parameter<A> weights(t.weight), ln_weight(t.ln_weight), ln_bias(t.ln_bias), start(t.h0);
  const Parameter<A> reset_bias(t.reset_bias);
  Tensor out = new_tensor<T>(t.pre, {s.units, s.batch, s.frames, D});
  Tensor notes = new_tensor<A>(t.pre, {s.units, s.batch, s.frames, kept, D});
  Tensor rstd = new_tensor<A>(t.pre, {s.units, s.batch, s.frames, kGates});

  std::vector<Panels<A>> panels;
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (const int64_t gates : {2, 1}) panels.emplace_back(D, gates * D);
  }
  parallel(2 * s.units, [&](int64_t i) {
    const int64_t gate = i % 2 == 0 ? kReset : kCandidate;
    panels[i].copy_transposed(weights.data() + (i / 2 * kGates + gate) * D * D);
  });

  const int64_t slices = s.slices();
  parallel(s.units * slices, [&](int64_t task) {
    const int64_t unit = task / slices, slice = task % slices;
    const Panels<A>&both = panels[2 * unit], &candidate = panels[2 * unit + 1];
    const Norm<A> norm(s, ln_weight, ln_bias, unit);
    const Scratch<A> h(kTileRows * D), side(kTileRows * D), gates(kTileRows * 2 * D);
    const Scratch<A> third(kTileRows * D), converted(kGates * D);
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
        both.times(rows, h.get(), D, 1, gates.get(), 2 * D, false);
        for (int64_t row = 0; row < rows; ++row) {
          const T* raw = data<T>(input) + at(row) * kGates * D;
          A* x = data<A>(notes) + at(row) * kept * D;
          A* factor = data<A>(rstd) + at(row) * kGates;
          const A* product = gates.get() + row * 2 * D;
          convert(raw, converted.get(), 2 * D);
          vectors<A>(2 * D, [&](int64_t i, int lanes) {
            store_some(x + i, load_some(product + i, lanes) + load_some(&converted[i], lanes),
                       lanes);
          });
          for (const Gate gate : {kReset, kUpdate}) factor[gate] = norm.normalise(x + gate * D);
          A* of_row = side.get() + row * D;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto state = load_some(&h[row * D + i], lanes);
            const auto r = logistic(norm.at(kReset, x, i, lanes));
            store_some(of_row + i, s.reset_after ? state : r * state, lanes);
          });
        }
        for (int64_t row = 0; reset_bias.present() && row < rows; ++row) {
          std::copy_n(reset_bias.data() + unit * D, D, third.get() + row * D);
        }
        candidate.times(rows, side.get(), D, 1, third.get(), D, reset_bias.present());
        for (int64_t row = 0; row < rows; ++row) {
          const T* raw = data<T>(input) + at(row) * kGates * D + kCandidate * D;
          A* x = data<A>(notes) + at(row) * kept * D;
          A* n_x = x + kCandidate * D;
          const A* product = third.get() + row * D;
          if (s.reset_after) std::copy_n(product, D, x + kGates * D);
          convert(raw, converted.get(), D);
          vectors<A>(D, [&](int64_t i, int lanes) {
            auto m = load_some(product + i, lanes);
            if (s.reset_after) m *= logistic(norm.at(kReset, x, i, lanes));
            store_some(n_x + i, m + load_some(&converted[i], lanes), lanes);
          });
          data<A>(rstd)[at(row) * kGates + kCandidate] = norm.normalise(n_x);
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto z = logistic(norm.at(kUpdate, x + D, i, lanes));
            const auto candidates = tanh(norm.at(kCandidate, n_x, i, lanes));
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
  const Tensor grads = torch::stable::contiguous(grad), h = torch::stable::contiguous(states);
  const Tensor x_all = torch::stable::contiguous(notes), factors = torch::stable::contiguous(rstd);
  const Parameter<A> weights(t.weight), ln_weight(t.ln_weight), ln_bias(t.ln_bias), start(t.h0);
  Tensor dpre = want(kPre) ? new_tensor<T>(t.pre, {s.units, s.batch, s.frames, kGates * D})
                           : no_gradient(t.pre);
  std::vector<A> dstart(want(kStart) ? s.units * s.batch * D : 0);
  const int64_t slices = s.slices(), tasks = s.units * slices, table = kGates * D;
  const bool want_weight = want(kWeight);
  std::vector<A> dweight(want_weight ? tasks * table * D : 0), dnorm(tasks * 2 * table);
  std::vector<A> dbias(want(kResetBias) ? tasks * D : 0);

  std::vector<Panels<A>> panels;
  for (int64_t unit = 0; unit < s.units; ++unit) {
    for (const int64_t gates : {2, 1}) panels.emplace_back(gates * D, D);
  }
  parallel(2 * s.units, [&](int64_t i) {
    const int64_t gate = i % 2 == 0 ? kReset : kCandidate;
    panels[i].copy(weights.data() + (i / 2 * kGates + gate) * D * D);
  });

  parallel(tasks, [&](int64_t task) {
    const int64_t unit = task / slices, slice = task % slices;
    const Panels<A>&both = panels[2 * unit], &candidate = panels[2 * unit + 1];
    const Norm<A> norm(s, ln_weight, ln_bias, unit);
    A *dln_weight = dnorm.data() + task * 2 * table, *dln_bias = dln_weight + table;
    // Of a tile: arguments' gradients and the states they are multiplied with, frame after frame.
    const int64_t tile = kTileRows * s.frames;
    const Scratch<A> da(tile * table), dm(tile * D), before(tile * D), reset(tile * D);
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
          A* d = da.get() + place(row) * table;
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
          A *product = dm.get() + place(row) * D, *side = reset.get() + place(row) * D;
          vectors<A>(D, [&](int64_t i, int lanes) {
            const auto r = logistic(norm.at(kReset, x, i, lanes));
            const auto dn = load_some(d + kCandidate * D + i, lanes);
            const auto state = load_some(prev + i, lanes);
            store_some(product + i, s.reset_after ? dn * r : dn, lanes);
            store_some(side + i, s.reset_after ? state : r * state, lanes);
          });
        }
        candidate.times(rows, dm.get() + place(0) * D, D, 1, dside.get(), D, false);
        for (int64_t row = 0; row < rows; ++row) {
          const A* x = data<A>(x_all) + at(row) * kept * D;
          const A* prev = before.get() + place(row) * D;
          A* d = da.get() + place(row) * table;
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
        both.times(rows, da.get() + place(0) * table, table, 1, dh.get(), D, true);
        for (int64_t row = 0; want(kPre) && row < rows; ++row) {
          convert(da.get() + place(row) * table, data<T>(dpre) + at(row) * table, table);
        }
      }
      if (want(kStart)) std::copy_n(dh.get(), rows * D, dstart.data() + first * D);
      for (int64_t row = 0; want(kResetBias) && row < rows * s.frames; ++row) {
        for (int64_t i = 0; i < D; ++i) dbias[task * D + i] += dm[row * D + i];
      }
      if (want_weight && s.frames > 0) {
        A* to = dweight.data() + task * table * D;
        Panels<A> operand(rows * s.frames, D);
        operand.copy(before.get());
        operand.times(2 * D, da.get(), 1, table, to, D, true);
        operand.copy(reset.get());
        operand.times(D, dm.get(), 1, D, to + 2 * D * D, D, true);
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
  Tensor dU = no_gradient(t.pre), dh0 = no_gradient(t.pre);
  Tensor dlw = no_gradient(t.pre), dlb = no_gradient(t.pre), drb = no_gradient(t.pre);
  if (want_weight) dU = gradient_of(t.weight, total(dweight, 0, table * D));
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
