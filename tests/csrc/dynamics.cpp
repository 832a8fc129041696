// Compiled with -include cuda_emulator.h.
#include "cuda/inverse_dynamics.cuh"

namespace skelops {

template <>
struct Accumulator<_Float16> {
  using type = float;
};

}  // namespace skelops

using namespace skelops;

namespace {

// Null pointers stand for what is absent; the order is that of the test's lists.
struct Call {
  const void* const* tensor;
  const long long* number;  // frames, blocks, threads, n, parents, joints

  template <typename T>
  T* next() {
    return static_cast<T*>(const_cast<void*>(*tensor++));
  }
  unsigned blocks() const { return number[1]; }
  unsigned threads() const { return number[2]; }

  template <typename A>
  TreeTables<A> tables(bool inertia = true) {
    TreeTables<A> t = {};
    t.size = number[3];
    for (int i = 0; i < t.size; ++i) {
      t.parent[i] = number[4 + i], t.revolute[i] = number[4 + t.size + i];
    }
    if (inertia) t.inertia = next<const A>();
    t.offset = next<const A>(), t.axis = next<const A>();
    return t;
  }

  // q, qd, drive, wrench, tree, gravity.
  template <typename T>
  MotionBatch<T> motion() {
    MotionBatch<T> batch = {};
    batch.q = next<const T>(), batch.qd = next<const T>(), batch.drive = next<const T>();
    batch.wrench = next<const T>();
    batch.tables = tables<acc_t<T>>();
    batch.gravity = next<const acc_t<T>>(), batch.frames = number[0];
    return batch;
  }

  template <typename A>
  std::vector<A> memory(long long slots) const {
    return std::vector<A>(blocks() * threads() * slots * number[3], NAN);
  }
};

template <typename T>
void run_inverse(Call call) {
  MotionBatch<T> batch = call.motion<T>();
  T* const tau = call.next<T>();
  auto memory = call.memory<acc_t<T>>(inverse::kSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(), [&] { inverse_dynamics_kernel(batch, tau); });
}

template <typename T>
MotionGrads<T> motion_grads(Call& call) {
  MotionGrads<T> found;
  found.q = call.next<T>(), found.qd = call.next<T>(), found.drive = call.next<T>();
  found.wrench = call.next<T>(), found.inertia = call.next<acc_t<T>>();
  return found;
}

template <typename T>
void run_inverse_backward(Call call) {
  const T* const grad = call.next<const T>();
  MotionBatch<T> batch = call.motion<T>();
  const MotionGrads<T> found = motion_grads<T>(call);
  batch.tables.every_inertia = found.inertia;
  auto memory = call.memory<acc_t<T>>(inverse::kBackwardSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { inverse_dynamics_backward_kernel(batch, grad, found); });
}

}  // namespace

#define EXPORT(name, function)                                                \
  void name##_float32(const void* const* tensors, const long long* numbers) { \
    function<float>({tensors, numbers});                                      \
  }                                                                           \
  void name##_float64(const void* const* tensors, const long long* numbers) { \
    function<double>({tensors, numbers});                                     \
  }                                                                           \
  void name##_float16(const void* const* tensors, const long long* numbers) { \
    function<_Float16>({tensors, numbers});                                   \
  }

extern "C" {
EXPORT(inverse_dynamics, run_inverse)
EXPORT(inverse_dynamics_backward, run_inverse_backward)
}
