#pragma once
/// \file
/// Matrix products for few rows in bf16: a step of decoding, whose time is that of reading the weights.
#include <samba/cuda/tensor_cores.cuh>
#include <samba/kernels/matmul.hpp>

namespace samba::inline SAMBA_TARGET::cuda {

/// The most rows of few_rows_matmul.
inline constexpr std::int64_t few_rows = 16;

/// How few_rows_matmul divides a matrix. It depends on N and K only, so that a row of a batch has the
/// same bits for all numbers of rows and whatever its neighbours.
struct FewRowsPlan {
  int tiles;   ///< a warp computes 8 * tiles outputs: 1, 2 or 4
  int unroll;  ///< weights that a lane has under way, in 16 bytes of each tile: 4 or 8
  int warps;   ///< of a block, at most few_rows_warps
  int split;   ///< warps that share the sum of an output; it divides `warps`
};

/// The most warps of a block, for registers.
constexpr int few_rows_warps(int tiles, int unroll) { return tiles * unroll >= 16 ? 8 : 16; }

/// 16 outputs in a block, and as many warps for them as give each of 132 processors 16 warps, with 64 KB
/// under way; 8 outputs where the whole matrix is small, or has many. Measured: docs/cuda.md.
constexpr FewRowsPlan few_rows_plan(std::int64_t N, std::int64_t K) {
  if (N < 1024) return {1, 8, 16, 16};
  if (N >= 32768) return {1, 8, 4, 4};
  const std::int64_t steps = (K + 31) / 32, per_processor = (N / 16 + 131) / 132;
  int split = 1;
  while (split < 16 && split * 4 < steps && split * per_processor < 16) split *= 2;
  if (split == 1) return {1, 4, 4, 4};
  return {2, 4, split < 4 ? 4 : split, split};
}

/// 16 bytes of weights, which are read once. A relaxed load stays where it is written; the compiler moves
/// others behind wait_for_earlier().
__device__ inline uint4 load_weights(const bf16* from) {
  uint4 w;
  asm volatile("ld.relaxed.gpu.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
               : "l"(from));
  return w;
}

/// Products of at most 8 rows, or of 16 if Both. Every warp multiplies all rows with the weights of
/// 8 * Tiles outputs in its part of k, straight from memory. In a step of 32 k, lane 4 g + t reads the
/// weights of output g of each tile, and the values of rows g and g + 8, at k in [8 t, 8 t + 8): the
/// operands of two mma, in an order of k of its own that is the same for both. The parts of an output
/// are added in order. A lane has `Unroll` steps under way, the first of them before earlier kernels
/// have ended.
/// Shared memory: (warps, 16, 8 * Tiles) floats. Bytes: N * K * 2, and rows * K * 2 in each block, which
/// come from the L2 cache.
template <bool Both, int Tiles, int Unroll, class O>
__global__ void __launch_bounds__(32 * few_rows_warps(Tiles, Unroll))
    few_rows_matmul(kernels::MatmulArgs<RowMajor<bf16>, bf16, O> a, int split) {
  let_next_start();
  constexpr int columns = 8 * Tiles;
  extern __shared__ float parts[];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32,
            warps = static_cast<int>(blockDim.x) / 32;
  const int g = lane / 4, t = lane % 4;
  const int groups = warps / split;  // of outputs
  const std::int64_t first_n = (std::int64_t{blockIdx.x} * groups + warp / split) * columns;
  const int steps = static_cast<int>((a.K + 31) / 32), per_part = (steps + split - 1) / split;
  const int begin = warp % split * per_part,
            end = begin + per_part < steps ? begin + per_part : steps;

  // Outputs and rows past the last are read as the last, and not written. Where k ends, zeros follow.
  const int last = static_cast<int>((a.K - 8 * t + 31) / 32), stop = end < last ? end : last;
  const std::int64_t first_k = std::int64_t{begin} * 32 + 8 * t;
  const bf16* of_tile[Tiles];
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile) {
    const std::int64_t n = first_n + 8 * tile + g;
    of_tile[tile] = a.w + (n < a.N ? n : a.N - 1) * a.K + first_k;
  }
  const auto row = [&](std::int64_t i) {
    return a.x + (i < a.rows ? i : a.rows - 1) * a.x_stride + first_k;
  };
  const bf16 *of_row = row(g), *of_row8 = row(g + 8);
  const uint4 zero{0, 0, 0, 0};
  const auto weights = [&](int step, int tile, int ahead) {
    return step < stop ? load_weights(of_tile[tile] + ahead * 32) : zero;
  };
  const auto values = [&](int step, const bf16* from, int ahead) {
    return step < stop ? *reinterpret_cast<const uint4*>(from + ahead * 32) : zero;
  };

  uint4 w[Unroll][Tiles], x[Unroll], x8[Both ? Unroll : 1];
#pragma unroll
  for (int u = 0; u < Unroll; ++u)
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) w[u][tile] = weights(begin + u, tile, u);
  wait_for_earlier();
#pragma unroll
  for (int u = 0; u < Unroll; ++u) {
    x[u] = values(begin + u, of_row, u);
    if constexpr (Both) x8[u] = values(begin + u, of_row8, u);
  }

  float sums[Tiles][4] = {};
#pragma unroll 1
  for (int first = begin; first < end; first += Unroll) {
    of_row += Unroll * 32;
    of_row8 += Unroll * 32;
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) of_tile[tile] += Unroll * 32;
#pragma unroll
    for (int u = 0; u < Unroll; ++u) {
      const int next = first + u + Unroll;
      const uint4 v = x[u], v8 = Both ? x8[Both ? u : 0] : zero;
#pragma unroll
      for (int tile = 0; tile < Tiles; ++tile) {
        const uint4 m = w[u][tile];
        multiply_add(sums[tile], {v.x, v8.x, v.y, v8.y}, m.x, m.y);
        multiply_add(sums[tile], {v.z, v8.z, v.w, v8.w}, m.z, m.w);
        w[u][tile] = weights(next, tile, u);
      }
      x[u] = values(next, of_row, u);
      if constexpr (Both) x8[u] = values(next, of_row8, u);
    }
  }

  // A lane has outputs 2 t and 2 t + 1 of rows g and g + 8.
  float* const part = parts + warp * 16 * columns;
#pragma unroll
  for (int tile = 0; tile < Tiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      part[(g + i / 2 * 8) * columns + tile * 8 + 2 * t + i % 2] = sums[tile][i];
  __syncthreads();
  const int rows = static_cast<int>(a.rows);
  for (int at = static_cast<int>(threadIdx.x); at < groups * rows * columns;
       at += static_cast<int>(blockDim.x)) {
    const int column = at % columns, row = at / columns % rows, group = at / columns / rows;
    const std::int64_t n = (std::int64_t{blockIdx.x} * groups + group) * columns + column;
    if (n >= a.N) continue;
    float sum = 0;
    for (int i = 0; i < split; ++i)
      sum += parts[((group * split + i) * 16 + row) * columns + column];
    if (a.bias) sum += a.bias[n];
    store(a.out + row * a.out_stride + n, sum);
  }
}

/// Whether matmul_few_rows takes these arguments.
template <class O>
bool has_few_rows(const kernels::MatmulArgs<RowMajor<bf16>, bf16, O>& a) {
  const auto addresses =
      reinterpret_cast<std::uintptr_t>(a.w) | reinterpret_cast<std::uintptr_t>(a.x);
  return a.rows <= few_rows && a.K % 8 == 0 && a.x_stride % 8 == 0 && addresses % 16 == 0;
}

/// Products for few rows by a plan.
template <class O>
void matmul_few_rows(const Cuda& device, const kernels::MatmulArgs<RowMajor<bf16>, bf16, O>& a,
                     const FewRowsPlan& plan) {
  constexpr const char* name = "matmul for few rows";
  const auto by_tiles = [&]<int Tiles, int Unroll>() {
    const std::int64_t outputs = std::int64_t{8} * Tiles * (plan.warps / plan.split);
    const auto shared = static_cast<std::size_t>(plan.warps) * 16 * 8 * Tiles * sizeof(float);
    launch_kernel(device, name,
                  a.rows <= 8 ? few_rows_matmul<false, Tiles, Unroll, O>
                              : few_rows_matmul<true, Tiles, Unroll, O>,
                  blocks(a.N, outputs), static_cast<unsigned>(plan.warps * 32), shared, a,
                  plan.split);
  };
  if (plan.tiles == 1)
    return plan.unroll == 4 ? by_tiles.template operator()<1, 4>()
                            : by_tiles.template operator()<1, 8>();
  if (plan.tiles == 2)
    return plan.unroll == 4 ? by_tiles.template operator()<2, 4>()
                            : by_tiles.template operator()<2, 8>();
  by_tiles.template operator()<4, 4>();
}

}  // namespace samba::inline SAMBA_TARGET::cuda
