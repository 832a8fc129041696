// Runs header-free device code on the CPU: one thread per CUDA thread, a barrier per block, blocks
// one after the other. Shared memory starts as NaN, so that a value nobody staged is noticed.
#pragma once

#include <math.h>

#include <barrier>
#include <cstring>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

inline thread_local dim3 threadIdx;
inline dim3 blockIdx, blockDim, gridDim;
inline std::barrier<>* block_barrier;

inline void sincospi(double x, double* sine, double* cosine) {
  *sine = sin(M_PI * x);
  *cosine = cos(M_PI * x);
}

inline void sincospi(float x, float* sine, float* cosine) {
  *sine = static_cast<float>(sin(M_PI * x));
  *cosine = static_cast<float>(cos(M_PI * x));
}

inline void __syncthreads() { block_barrier->arrive_and_wait(); }

namespace skelops {
alignas(32) unsigned char shared[48 * 1024];
}

template <typename Kernel>
void launch(dim3 grid, unsigned threads, Kernel kernel) {
  gridDim = grid;
  blockDim = {threads};
  for (unsigned block = 0; block < grid.x * grid.y; ++block) {
    blockIdx = {block % grid.x, block / grid.x};
    std::memset(skelops::shared, 0xff, sizeof(skelops::shared));
    std::barrier<> barrier(threads);
    block_barrier = &barrier;
    std::vector<std::thread> team;
    for (unsigned thread = 0; thread < threads; ++thread) {
      team.emplace_back([&, thread] {
        threadIdx = {thread};
        kernel();
        barrier.arrive_and_drop();
      });
    }
    for (std::thread& member : team) member.join();
  }
}
