// Aggregation over the joints of a graph, and its gradient with respect to the graph.
//   z[n, r, u] = sum_k sum_v A[k, u, v] x[n, k, r, v],  r = (c, t), A (K, V, V) or (N, K, V, V);
//   transposed: A[k, v, u] instead. All tensors are contiguous.
#pragma once

#include "common/device.cuh"

namespace skelops {

constexpr int kBlockThreads = 128;
constexpr int kJointChunk = 32;  // input joints that are staged at a time

// A thread owns 4 rows x 4 joints of z. A block owns `rows` rows of one sample.
struct AggregatePlan {
  int quads;         // groups of 4 output joints
  int rows;          // a multiple of 4
  int row_stride;    // of the staged rows, padded
  int chunk;         // input joints per stage
  int chunk_values;  // of A, per stage
  int a_values;      // of A in shared memory: all stages if they fit, else one
  bool resident;
  int shared_values;

  __host__ __device__ AggregatePlan(int subsets, int joints, int value_bytes)
      : quads(ceil_div(joints, 4)),
        rows(kBlockThreads / quads * 4),
        row_stride(rows + 4),
        chunk(least(joints, kJointChunk)),
        chunk_values(chunk * quads * 4) {
    const int in = chunk * row_stride, out = rows * joints, staged = in > out ? in : out;
    const long long stages = static_cast<long long>(subsets) * ceil_div(joints, chunk);
    resident = (stages * chunk_values + staged) * value_bytes <= kSharedBytes;
    a_values = resident ? static_cast<int>(stages) * chunk_values : chunk_values;
    shared_values = a_values + staged;
  }
};

// tile[v][u] = A[u, first + v], or A[first + v, u] if transposed.
template <typename T>
__device__ void stage_graph(acc_t<T>* tile, const T* a, int joints, int first, int width,
                            int stride, bool transposed) {
  for (int i = threadIdx.x; i < width * joints; i += kBlockThreads) {
    const int u = transposed ? i % joints : i / width;
    const int v = transposed ? i / joints : i % width;
    const int at = transposed ? (first + v) * joints + u : u * joints + first + v;
    tile[v * stride + u] = static_cast<acc_t<T>>(a[at]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    graph_aggregate_kernel(const T* x, const T* a, T* z, long long batch, int subsets,
                           long long rows, int joints, bool per_sample, bool transposed) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const AggregatePlan plan(subsets, joints, sizeof(acc));
  acc* const a_tile = reinterpret_cast<acc*>(shared);
  acc* const row_tile = a_tile + plan.a_values;  // x as [v][row], then z as [row][u]
  const int u0 = threadIdx.x % plan.quads * 4, row0 = threadIdx.x / plan.quads * 4;
  const bool active = row0 < plan.rows;
  const long long graph_values = static_cast<long long>(joints) * joints;

  for (long long n = blockIdx.y; n < batch; n += gridDim.y) {
    const T* graph = a + (per_sample ? n * subsets * graph_values : 0);
    if (plan.resident) {
      acc* tile = a_tile;
      for (int k = 0; k < subsets; ++k) {
        for (int first = 0; first < joints; first += plan.chunk, tile += plan.chunk_values) {
          stage_graph(tile, graph + k * graph_values, joints, first,
                      least(plan.chunk, joints - first), plan.quads * 4, transposed);
        }
      }
    }
    for (long long begin = static_cast<long long>(blockIdx.x) * plan.rows; begin < rows;
         begin += static_cast<long long>(gridDim.x) * plan.rows) {
      const int height = static_cast<int>(rows - begin < plan.rows ? rows - begin : plan.rows);
      acc sum[4][4] = {};
      const acc* tile = a_tile;
      for (int k = 0; k < subsets; ++k) {
        const T* source = x + ((n * subsets + k) * rows + begin) * joints;
        for (int first = 0; first < joints; first += plan.chunk) {
          const int width = least(plan.chunk, joints - first);
          __syncthreads();
          if (!plan.resident) {
            stage_graph(a_tile, graph + k * graph_values, joints, first, width, plan.quads * 4,
                        transposed);
          }
          for (int i = threadIdx.x; i < height * width; i += kBlockThreads) {
            const int row = i / width, v = i % width;
            row_tile[v * plan.row_stride + row] =
                static_cast<acc>(source[row * joints + first + v]);
          }
          __syncthreads();
          if (active) {
            for (int v = 0; v < width; ++v) {
              add_outer(sum, load_quad(row_tile + v * plan.row_stride + row0),
                        load_quad(tile + v * plan.quads * 4 + u0));
            }
          }
          if (plan.resident) tile += plan.chunk_values;
        }
      }
      __syncthreads();
      for (int i = 0; active && i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
          if (u0 + j < joints) row_tile[(row0 + i) * joints + u0 + j] = sum[i][j];
        }
      }
      __syncthreads();
      T* target = z + (n * rows + begin) * joints;
      for (int i = threadIdx.x; i < height * joints; i += kBlockThreads) {
        target[i] = static_cast<T>(row_tile[i]);
      }
    }
    __syncthreads();
  }
}

// A thread owns 4 x 4 entries of dA[n, k] and every `groups`-th row of its block's share.
struct GraphGradPlan {
  int quads;
  int tiles;  // 4 x 4 entries each
  int block_tiles;
  int groups;
  int rows;  // staged at a time

  __host__ __device__ explicit GraphGradPlan(int joints)
      : quads(ceil_div(joints, 4)),
        tiles(quads * quads),
        block_tiles(least(tiles, kBlockThreads)),
        groups(kBlockThreads / block_tiles),
        rows(512 / quads) {}

  __host__ __device__ int shared_values() const { return 2 * rows * quads * 4; }
};

// partial (N, splits * groups, K, V, V); its sum over dim 1 is dA[n, k, u, v] = sum_r grad[n, r, u]
// x[n, k, r, v], or x and grad swapped if transposed. gridDim.x = N * K * splits,
// gridDim.y = ceil(tiles / block_tiles).
template <typename T>
__global__ void __launch_bounds__(kBlockThreads)
    graph_aggregate_grad_a_kernel(const T* grad, const T* x, acc_t<T>* partial, int subsets,
                                  long long rows, int joints, int splits, bool transposed) {
  using acc = acc_t<T>;
  alignas(32) extern __shared__ unsigned char shared[];
  const GraphGradPlan plan(joints);
  const int stride = plan.quads * 4;
  acc* const grad_tile = reinterpret_cast<acc*>(shared);
  acc* const x_tile = grad_tile + plan.rows * stride;
  const acc* const left = transposed ? x_tile : grad_tile;
  const acc* const right = transposed ? grad_tile : x_tile;

  const int group = threadIdx.x / plan.block_tiles;
  const int tile = blockIdx.y * plan.block_tiles + threadIdx.x % plan.block_tiles;
  const int u0 = tile / plan.quads * 4, v0 = tile % plan.quads * 4;
  const bool active = group < plan.groups && tile < plan.tiles;
  const long long split = blockIdx.x % splits, k = blockIdx.x / splits % subsets;
  const long long n = blockIdx.x / splits / subsets;

  acc sum[4][4] = {};
  for (long long begin = split * plan.rows; begin < rows;
       begin += static_cast<long long>(splits) * plan.rows) {
    const int height = static_cast<int>(rows - begin < plan.rows ? rows - begin : plan.rows);
    const T* grad_rows = grad + (n * rows + begin) * joints;
    const T* x_rows = x + ((n * subsets + k) * rows + begin) * joints;
    __syncthreads();
    for (int i = threadIdx.x; i < height * joints; i += kBlockThreads) {
      const int at = i / joints * stride + i % joints;
      grad_tile[at] = static_cast<acc>(grad_rows[i]);
      x_tile[at] = static_cast<acc>(x_rows[i]);
    }
    __syncthreads();
    for (int row = group; active && row < height; row += plan.groups) {
      add_outer(sum, load_quad(left + row * stride + u0), load_quad(right + row * stride + v0));
    }
  }
  if (!active) return;
  acc* target =
      partial + (((n * splits + split) * plan.groups + group) * subsets + k) * joints * joints;
  for (int i = 0; i < 4 && u0 + i < joints; ++i) {
    for (int j = 0; j < 4 && v0 + j < joints; ++j) {
      target[(u0 + i) * joints + v0 + j] = sum[i][j];
    }
  }
}

}  // namespace skelops
