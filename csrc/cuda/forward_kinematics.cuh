// Forward kinematics, a thread per frame.
#pragma once

#include "cuda/rigid_body.cuh"

namespace skelops {

constexpr int kRotationValues = 9;

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_kinematics_kernel(TreeTables<acc_t<T>> tables, long long frames, const T* q,
                              acc_t<T>* scratch, T* pos, T* rot) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = tables.size;
  const TreeView<acc> tree = stage_tree(tables, shared);
  const RowTile<acc> rows{reinterpret_cast<acc*>(shared + tables.bytes()), n};
  const auto memory = thread_memory(scratch, kFrameSlots * n);
  over_frames(frames, [&](long long begin, int count) {
    load_rows(q, begin, count, rows);
    __syncthreads();
    if (threadIdx.x >= count) return;
    forward_kinematics(tree, rows.row(), memory);
    T* p = pos + (begin + threadIdx.x) * 3 * n;
    T* R = rot + (begin + threadIdx.x) * kRotationValues * n;
    for (int i = 0; i < n; ++i, p += 3, R += kRotationValues) {
      for (int c = 0; c < 3; ++c) {
        p[c] = static_cast<T>(memory[i * kFrameSlots + kRotationValues + c]);
        for (int r = 0; r < 3; ++r) {
          R[3 * r + c] = static_cast<T>(memory[i * kFrameSlots + 3 * c + r]);
        }
      }
    }
  });
}

template <typename T>
__global__ void __launch_bounds__(kFrameThreads)
    forward_kinematics_backward_kernel(TreeTables<acc_t<T>> tables, long long frames,
                                       const T* grad_pos, const T* grad_rot, const T* q,
                                       acc_t<T>* scratch, T* dq) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const int n = tables.size;
  const TreeView<acc> tree = stage_tree(tables, shared);
  const RowTile<acc> rows{reinterpret_cast<acc*>(shared + tables.bytes()), n};
  const auto memory = thread_memory(scratch, 2 * kFrameSlots * n);
  const auto grad = memory.from(kFrameSlots * n);
  over_frames(frames, [&](long long begin, int count) {
    load_rows(q, begin, count, rows);
    __syncthreads();
    if (threadIdx.x < count) {
      const T* p = grad_pos + (begin + threadIdx.x) * 3 * n;
      const T* R = grad_rot + (begin + threadIdx.x) * kRotationValues * n;
      for (int i = 0; i < n; ++i, p += 3, R += kRotationValues) {
        for (int c = 0; c < 3; ++c) {
          grad[i * kFrameSlots + kRotationValues + c] = static_cast<acc>(p[c]);
          for (int r = 0; r < 3; ++r) {
            grad[i * kFrameSlots + 3 * c + r] = static_cast<acc>(R[3 * r + c]);
          }
        }
      }
      forward_kinematics(tree, rows.row(), memory);
      forward_kinematics_backward(tree, rows.row(), memory, grad, rows.row());
    }
    __syncthreads();
    store_rows(dq, begin, count, rows);
  });
}

}  // namespace skelops
