// Forward kinematics, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"

namespace skelops {

constexpr int kRotationValues = 9;

// Of value k of the rotations (n, 3, 3) and of the positions (n, 3), in a thread's memory.
__device__ inline int rotation_slot(int k) {
  const int entry = k % kRotationValues;
  return k / kRotationValues * kFrameSlots + entry % 3 * 3 + entry / 3;
}
__device__ inline int position_slot(int k) { return k / 3 * kFrameSlots + kRotationValues + k % 3; }

template <typename T>
struct KinematicsBatch {
  using acc = acc_t<T>;
  TreeTables<acc> tables;
  long long frames;
  const T* q;
  acc* scratch;
};

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_kinematics_kernel(KinematicsBatch<T> batch, T* pos, T* rot) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const RowTile<acc> rows{reinterpret_cast<acc*>(shared + batch.tables.bytes()), n};
  acc* const piece = rows.next(kPieceColumns).values;
  const auto memory = thread_memory(batch.scratch, kFrameSlots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, rows);
    __syncthreads();
    if (threadIdx.x < count) forward_kinematics(tree, rows.row(), memory);
    store_pieces(pos, begin, count, 3 * n, piece, [&](int k) { return memory[position_slot(k)]; });
    store_pieces(rot, begin, count, kRotationValues * n, piece,
                 [&](int k) { return memory[rotation_slot(k)]; });
  });
}

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_kinematics_backward_kernel(KinematicsBatch<T> batch, const T* grad_pos,
                                       const T* grad_rot, T* dq) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = batch.tables.size;
  const TreeView<acc> tree = stage_tree(batch.tables, shared);
  const RowTile<acc> rows{reinterpret_cast<acc*>(shared + batch.tables.bytes()), n};
  acc* const piece = rows.next(kPieceColumns).values;
  const auto memory = thread_memory(batch.scratch, 2 * kFrameSlots * n);
  const auto grad = memory.from(kFrameSlots * n);
  over_frames(batch.frames, [&](long long begin, int count) {
    load_rows(batch.q, begin, count, rows);
    load_pieces(grad_pos, begin, count, 3 * n, piece,
                [&](int k, const acc& value) { grad[position_slot(k)] = value; });
    load_pieces(grad_rot, begin, count, kRotationValues * n, piece,
                [&](int k, const acc& value) { grad[rotation_slot(k)] = value; });
    if (threadIdx.x < count) {
      forward_kinematics(tree, rows.row(), memory);
      forward_kinematics_backward(tree, rows.row(), memory, grad, rows.row());
    }
    __syncthreads();
    store_rows(dq, begin, count, rows);
  });
}

}  // namespace skelops
