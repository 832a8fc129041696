// Compiled with -include cuda_emulator.h.
#include "cuda/forward_dynamics.cuh"
#include "cuda/forward_kinematics.cuh"
#include "cuda/inverse_dynamics.cuh"
#include "cuda/lagrange_tau.cuh"
#include "cuda/mass_matrix.cuh"
#include "cuda/point_dynamics.cuh"
#include "cuda/tree_solve.cuh"

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
  const long long* number;  // frames, blocks, threads, n, width, then the integers of the op

  template <typename T>
  T* next() {
    return static_cast<T*>(const_cast<void*>(*tensor++));
  }
  unsigned blocks() const { return number[1]; }
  long long integer(int i) const { return number[5 + i]; }
  unsigned threads() const { return number[2]; }

  template <typename A>
  TreeTables<A> tables(bool inertia = true) {
    TreeTables<A> t = {};
    t.size = number[3];
    for (int i = 0; i < t.size; ++i) {
      t.parent[i] = integer(i), t.revolute[i] = integer(t.size + i);
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
  auto memory = call.memory<acc_t<T>>(inverse_backward::kSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { inverse_dynamics_backward_kernel(batch, grad, found); });
}

template <typename T>
void run_forward(Call call) {
  MotionBatch<T> batch = call.motion<T>();
  T* const qdd = call.next<T>();
  auto memory = call.memory<acc_t<T>>(articulated::kSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(), [&] { forward_dynamics_kernel(batch, qdd); });
}

template <typename T>
void run_forward_backward(Call call) {
  const T* const grad = call.next<const T>();
  MotionBatch<T> batch = call.motion<T>();
  const T* const saved = call.next<const T>();
  const T* const qdd = sizeof(T) == sizeof(acc_t<T>) ? saved : nullptr;
  const MotionGrads<T> found = motion_grads<T>(call);
  batch.tables.every_inertia = found.inertia;
  auto memory = call.memory<acc_t<T>>(kForwardBackwardSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { forward_dynamics_backward_kernel(batch, grad, qdd, found); });
}

template <typename T>
KinematicsBatch<T> kinematics_batch(Call& call) {
  KinematicsBatch<T> batch = {};
  batch.q = call.next<const T>(), batch.tables = call.tables<acc_t<T>>(false);
  batch.frames = call.number[0];
  return batch;
}

template <typename T>
void run_kinematics(Call call) {
  KinematicsBatch<T> batch = kinematics_batch<T>(call);
  T *const pos = call.next<T>(), *const rot = call.next<T>();
  auto memory = call.memory<acc_t<T>>(kFrameSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(), [&] { forward_kinematics_kernel(batch, pos, rot); });
}

template <typename T>
void run_kinematics_backward(Call call) {
  const T *const grad_pos = call.next<const T>(), *const grad_rot = call.next<const T>();
  KinematicsBatch<T> batch = kinematics_batch<T>(call);
  T* const dq = call.next<T>();
  auto memory = call.memory<acc_t<T>>(2 * kFrameSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { forward_kinematics_backward_kernel(batch, grad_pos, grad_rot, dq); });
}

template <typename T>
MassBatch<T> mass_batch(Call& call) {
  MassBatch<T> batch = {};
  batch.q = call.next<const T>(), batch.tables = call.tables<acc_t<T>>();
  const int n = batch.tables.size;
  batch.frames = call.number[0], batch.packed = call.integer(2 * n);
  batch.entries = batch.tables.entries();
  return batch;
}

template <typename T>
void run_mass(Call call) {
  MassBatch<T> batch = mass_batch<T>(call);
  T* const M = call.next<T>();
  std::fill_n(M, batch.frames * batch.values(), T(0));
  auto memory = call.memory<acc_t<T>>(composite::kSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(), [&] { mass_matrix_kernel(batch, M); });
}

template <typename T>
void run_mass_backward(Call call) {
  const T* const grad = call.next<const T>();
  MassBatch<T> batch = mass_batch<T>(call);
  T* const dq = call.next<T>();
  acc_t<T>* const dinertia = call.next<acc_t<T>>();
  batch.tables.every_inertia = dinertia;
  auto memory = call.memory<acc_t<T>>(composite::kBackwardSlots);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { mass_matrix_backward_kernel(batch, grad, dq, dinertia); });
}

template <typename T>
SolveBatch<T> solve_batch(Call& call) {
  SolveBatch<T> batch = {};
  batch.packed = call.next<const T>(), batch.force = call.next<const T>();
  batch.frames = call.number[0], batch.tree.size = call.number[3];
  for (int i = 0; i < batch.tree.size; ++i) batch.tree.parent[i] = call.integer(i);
  batch.entries = batch.tree.entries();
  return batch;
}

template <typename T>
void run_solve(Call call) {
  SolveBatch<T> batch = solve_batch<T>(call);
  T* const x = call.next<T>();
  auto memory = call.memory<acc_t<T>>(batch.tree.size);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(), [&] { tree_solve_kernel(batch, x); });
}

template <typename T>
void run_solve_backward(Call call) {
  const T* const grad = call.next<const T>();
  SolveBatch<T> batch = solve_batch<T>(call);
  T *const dpacked = call.next<T>(), *const dforce = call.next<T>();
  auto memory = call.memory<acc_t<T>>(batch.tree.size);
  batch.scratch = memory.data();
  launch({call.blocks()}, call.threads(),
         [&] { tree_solve_backward_kernel(batch, grad, dpacked, dforce); });
}

template <typename T>
PointBatch<T> point_batch(Call& call) {
  PointBatch<T> batch = {};
  batch.x = call.next<const T>(), batch.v = call.next<const T>();
  batch.force = call.next<const T>(), batch.mass = call.next<const acc_t<T>>();
  const int n = batch.joints = call.number[3];
  batch.frames = call.number[0], batch.root = call.integer(n);
  for (int j = 0; j < n; ++j) batch.parent[j] = call.integer(j);
  batch.order[0] = batch.root;
  for (int at = 0, end = 1; at < end; ++at) {
    for (int j = 0; j < n; ++j) {
      if (j != batch.root && batch.parent[j] == batch.order[at]) batch.order[end++] = j;
    }
  }
  return batch;
}

template <typename T>
void run_points(Call call) {
  PointBatch<T> batch = point_batch<T>(call);
  T *const acceleration = call.next<T>(), *const multiplier = call.next<T>();
  auto memory = call.memory<acc_t<T>>(points::kSlots);
  batch.scratch = memory.data();
  const auto kernel =
      call.number[4] == 3 ? point_dynamics_kernel<3, T> : point_dynamics_kernel<2, T>;
  launch({call.blocks()}, call.threads(), [&] { kernel(batch, acceleration, multiplier); });
}

template <typename T>
void run_points_backward(Call call) {
  const T *const grad_acc = call.next<const T>(), *const grad_multiplier = call.next<const T>();
  PointBatch<T> batch = point_batch<T>(call);
  PointGrads<T> found;
  found.x = call.next<T>(), found.v = call.next<T>(), found.force = call.next<T>();
  found.mass = call.next<acc_t<T>>();
  auto memory = call.memory<acc_t<T>>(points::kSlots);
  batch.scratch = memory.data();
  const auto kernel = call.number[4] == 3 ? point_dynamics_backward_kernel<3, T>
                                          : point_dynamics_backward_kernel<2, T>;
  launch({call.blocks()}, call.threads(), [&] { kernel(batch, grad_acc, grad_multiplier, found); });
}

template <typename T>
LagrangeBatch<T> lagrange_batch(Call& call) {
  LagrangeBatch<T> batch = {};
  batch.clip_frames = call.number[3], batch.d = call.number[4];
  batch.frames = call.number[0] * batch.clip_frames;
  batch.lower = call.next<const T>(), batch.skew = call.next<const T>();
  batch.qd = call.next<const T>(), batch.qdd = call.next<const T>();
  return batch;
}

template <typename T>
void run_lagrange(Call call) {
  const LagrangeBatch<T> batch = lagrange_batch<T>(call);
  T *const tau = call.next<T>(), *const kinetic = call.next<T>();
  launch({call.blocks()}, call.threads(), [&] { lagrange_tau_kernel(batch, tau, kinetic); });
}

template <typename T>
void run_lagrange_backward(Call call) {
  const T *const grad_tau = call.next<const T>(), *const grad_kinetic = call.next<const T>();
  const LagrangeBatch<T> batch = lagrange_batch<T>(call);
  LagrangeGrads<T> found;
  found.lower = call.next<T>(), found.skew = call.next<T>();
  found.qd = call.next<T>(), found.qdd = call.next<T>();
  launch({call.blocks()}, call.threads(),
         [&] { lagrange_tau_backward_kernel(batch, grad_tau, grad_kinetic, found); });
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
EXPORT(forward_dynamics, run_forward)
EXPORT(forward_dynamics_backward, run_forward_backward)
EXPORT(forward_kinematics, run_kinematics)
EXPORT(forward_kinematics_backward, run_kinematics_backward)
EXPORT(lagrange_tau, run_lagrange)
EXPORT(lagrange_tau_backward, run_lagrange_backward)
EXPORT(mass_matrix, run_mass)
EXPORT(mass_matrix_backward, run_mass_backward)
EXPORT(point_dynamics, run_points)
EXPORT(point_dynamics_backward, run_points_backward)
EXPORT(tree_solve, run_solve)
EXPORT(tree_solve_backward, run_solve_backward)
}
