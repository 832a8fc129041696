// What the kernels on frames of a skeleton share: a thread takes a frame through its tree.
//
// The tree is staged in shared memory, which all threads of a warp read at the same address. So are
// the frames of a block, read and written side by side, in rows of odd length: neighbouring threads
// walk along their rows without bank conflicts. Working memory of the sweeps is global, slots of
// neighbouring threads side by side; blocks go on to further frames, so that it does not grow.
#pragma once

#include "common/device.cuh"
#include "math/rigid_body.h"

namespace skelops {

constexpr int kMaxBodies = 128;
constexpr int kFrameThreads = 64;

// What is staged in shared memory ends where four values of any type may begin.
__host__ __device__ constexpr int quad_bytes(int bytes) { return ceil_div(bytes, 32) * 32; }

// Parents, as a kernel's parameter.
struct TreePattern {
  int size;
  signed char parent[kMaxBodies];

  // Of a packed mass matrix: one per body and ancestor.
  __host__ __device__ int entries() const {
    int count = 0;
    for (int i = 0; i < size; ++i) {
      for (int j = i; j >= 0; j = parent[j]) ++count;
    }
    return count;
  }
  __host__ __device__ int pattern_bytes() const { return quad_bytes((2 * size + 1) * sizeof(int)); }
};

// In shared memory: parents, and where the rows of a packed mass matrix begin.
struct StagedPattern {
  const int *parent, *begin;
};

__device__ inline StagedPattern stage_pattern(const TreePattern& pattern, unsigned char* memory) {
  const int n = pattern.size;
  int *const parent = reinterpret_cast<int*>(memory), *const begin = parent + n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) parent[i] = pattern.parent[i];
  if (threadIdx.x == 0) {
    begin[0] = 0;
    for (int i = 0; i < n; ++i) {
      begin[i + 1] = begin[i] + 1;
      for (int j = pattern.parent[i]; j >= 0; j = pattern.parent[j]) ++begin[i + 1];
    }
  }
  return {parent, begin};
}

// The tables of a tree: joints in the kernel's parameters, values on the device.
template <typename A>
struct TreeTables : TreePattern {
  bool every_inertia;                // bodies without an inertia want its gradient as well
  const A *inertia, *offset, *axis;  // inertia: null for zeros
  bool revolute[kMaxBodies];

  // In shared memory.
  __host__ __device__ int bytes() const {
    return quad_bytes(size * (16 * sizeof(A) + 2 * sizeof(int)));
  }
};

template <typename A>
__device__ void copy_or_zero(A* to, const A* from, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from ? from[i] : A(0);
}

template <typename A>
__device__ TreeView<A> stage_tree(const TreeTables<A>& tables, unsigned char* memory) {
  const int n = tables.size;
  A* const inertia = reinterpret_cast<A*>(memory);
  A *const offset = inertia + kInertiaSize * n, *const axis = offset + 3 * n;
  int *const parent = reinterpret_cast<int*>(axis + 3 * n), *const kind = parent + n;
  copy_or_zero(inertia, tables.inertia, kInertiaSize * n);
  copy_or_zero(offset, tables.offset, 3 * n);
  copy_or_zero(axis, tables.axis, 3 * n);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    parent[i] = tables.parent[i];
    kind[i] =
        joint_kind(tables.revolute[i], axis + 3 * i, offset + 3 * i, inertia + kInertiaSize * i) |
        (tables.every_inertia ? kMassive : 0) | (branches(tables.parent, n, i) ? kBranches : 0);
  }
  return {n, parent, kind, axis, offset, inertia};
}

__host__ __device__ constexpr int row_stride(int width) { return width | 1; }

// A value per frame and column, staged for the frames of a block.
template <typename A>
struct RowTile {
  A* values;
  int width;

  __device__ bool dense() const { return row_stride(width) == width; }
  __device__ A& at(int row, int column) const { return values[row * row_stride(width) + column]; }
  __device__ A* row() const { return values + threadIdx.x * row_stride(width); }
  __device__ RowTile next(int columns) const {
    return {values + blockDim.x * row_stride(width), columns};
  }
};

// function(row, column) for every value of `count` rows.
template <typename F>
__device__ void over_rows(int count, int width, const F& function) {
  const int rows = blockDim.x / width, columns = blockDim.x % width;
  int row = threadIdx.x / width, column = threadIdx.x % width;
  while (row < count) {
    function(row, column);
    row += rows, column += columns;
    if (column >= width) column -= width, ++row;
  }
}

// Four values at a time where they are aligned; whether they are.
template <typename A>
__device__ bool copy_quads(A* to, const A* from, int count) {
  const auto address =
      reinterpret_cast<unsigned long long>(to) | reinterpret_cast<unsigned long long>(from);
  if (address % sizeof(Quad<A>)) return false;
  for (int i = threadIdx.x; i < count / 4; i += blockDim.x) {
    reinterpret_cast<Quad<A>*>(to)[i] = load_quad(from + 4 * i);
  }
  for (int i = count / 4 * 4 + threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
  return true;
}

// Absent rows read as zeros.
template <typename T>
__device__ void load_rows(const T* from, long long begin, int count,
                          const RowTile<acc_t<T>>& tile) {
  using acc = acc_t<T>;
  const T* const first = from ? from + begin * tile.width : nullptr;
  if constexpr (sizeof(T) == sizeof(acc)) {
    if (first && tile.dense() && copy_quads(tile.values, first, count * tile.width)) return;
  }
  over_rows(count, tile.width, [&](int row, int column) {
    tile.at(row, column) = first ? static_cast<acc>(first[row * tile.width + column]) : acc(0);
  });
}

template <typename T>
__device__ void store_rows(T* to, long long begin, int count, const RowTile<acc_t<T>>& tile) {
  T* const first = to + begin * tile.width;
  if constexpr (sizeof(T) == sizeof(acc_t<T>)) {
    if (tile.dense() && copy_quads(first, tile.values, count * tile.width)) return;
  }
  over_rows(count, tile.width, [&](int row, int column) {
    first[row * tile.width + column] = static_cast<T>(tile.at(row, column));
  });
}

// Rows too long for shared memory go through it in pieces: value(k) of a thread's frame.
constexpr int kPieceColumns = 45;

template <typename T, typename F>
__device__ void store_pieces(T* to, long long begin, int count, int width, acc_t<T>* shared,
                             const F& value) {
  for (int first = 0; first < width; first += kPieceColumns) {
    const RowTile<acc_t<T>> piece{shared, least(kPieceColumns, width - first)};
    __syncthreads();
    for (int k = 0; threadIdx.x < count && k < piece.width; ++k) piece.row()[k] = value(first + k);
    __syncthreads();
    over_rows(count, piece.width, [&](int row, int column) {
      to[(begin + row) * width + first + column] = static_cast<T>(piece.at(row, column));
    });
  }
}

// put(k, value) of a thread's frame.
template <typename T, typename F>
__device__ void load_pieces(const T* from, long long begin, int count, int width, acc_t<T>* shared,
                            const F& put) {
  for (int first = 0; first < width; first += kPieceColumns) {
    const RowTile<acc_t<T>> piece{shared, least(kPieceColumns, width - first)};
    __syncthreads();
    over_rows(count, piece.width, [&](int row, int column) {
      piece.at(row, column) = static_cast<acc_t<T>>(from[(begin + row) * width + first + column]);
    });
    __syncthreads();
    for (int k = 0; threadIdx.x < count && k < piece.width; ++k) put(first + k, piece.row()[k]);
  }
}

// function(begin, count) for the frames of every tile of this block.
template <typename F>
__device__ void over_frames(long long frames, const F& function) {
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long begin = static_cast<long long>(blockIdx.x) * blockDim.x; begin < frames;
       begin += step) {
    const long long left = frames - begin;
    __syncthreads();
    function(begin, static_cast<int>(left < blockDim.x ? left : blockDim.x));
  }
}

// `slots` values of every thread of the grid.
template <typename A>
__device__ Memory<A, true> thread_memory(A* memory, long long slots) {
  return {memory + blockIdx.x * slots * blockDim.x + threadIdx.x, blockDim.x};
}

// A thread's share of a parameter's gradient, at first zero: partial (blocks, size, threads).
template <typename A>
__device__ Memory<A, true> gradient_share(A* partial, int size) {
  const Memory<A, true> share = thread_memory(partial, size);
  for (int i = 0; partial && i < size; ++i) share[i] = A(0);
  return share;
}

template <typename A>
__device__ Vec3<A> minus_gravity(const A* gravity) {
  return gravity ? Vec3<A>{-gravity[0], -gravity[1], -gravity[2]} : Vec3<A>{};
}

// Frames in motion; null: zeros.
template <typename T>
struct MotionBatch {
  using acc = acc_t<T>;
  TreeTables<acc> tables;
  long long frames;
  const T *q, *qd;
  const T* drive;   // accelerations or forces
  const T* wrench;  // (frames, n, 6)
  const acc* gravity;
  acc* scratch;

  __device__ const T* wrench_of(long long frame) const {
    return wrench ? wrench + frame * 6 * tables.size : nullptr;
  }
};

// A result (frames, n), solve(tree, q, qd, drive, wrench, -gravity, memory, result) of every frame.
template <typename T, typename F>
__device__ void solve_motion(const MotionBatch<T>& batch, unsigned char* shared, int slots, T* to,
                             const F& solve) {
  using acc = acc_t<T>;
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const RowTile<acc> q{reinterpret_cast<acc*>(shared + batch.tables.bytes()), n};
  const RowTile<acc> qd = q.next(n), drive = qd.next(n);
  const Vec3<acc> world = minus_gravity(batch.gravity);
  const auto memory = thread_memory(batch.scratch, slots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, q);
    load_rows(batch.qd, begin, count, qd);
    load_rows(batch.drive, begin, count, drive);
    __syncthreads();
    if (threadIdx.x < count) {
      solve(tree, q.row(), qd.row(), drive.row(), batch.wrench_of(begin + threadIdx.x), world,
            memory, drive.row());
    }
    __syncthreads();
    store_rows(to, begin, count, drive);
  });
}

// Null: not wanted.
template <typename T>
struct MotionGrads {
  T *q, *qd, *drive, *wrench;
  acc_t<T>* inertia;  // partial sums
};

}  // namespace skelops
