#pragma once
/// \file
/// Matrix products for few rows in bf16: a step of decoding, whose time is that of reading the weights.
#include <samba/cuda/tensor_cores.cuh>
#include <samba/cuda/vectors.cuh>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>

namespace samba::inline SAMBA_TARGET::cuda {

/// The most rows of few_rows_matmul.
inline constexpr std::int64_t few_rows = 64;

/// How few_rows_matmul divides a matrix. It depends on N and K only, so that a row of a batch has the
/// same bits for all numbers of rows and whatever its neighbours.
struct FewRowsPlan {
  int tiles;   ///< a warp computes 8 * tiles outputs: 1, 2 or 4
  int unroll;  ///< weights that a lane has under way, in 16 bytes of each tile: 4 or 8
  int warps;   ///< of a block, at most few_rows_warps
  int split;   ///< warps that share the sum of an output; it divides `warps`
};

/// The most warps of a block, for registers. A divisor of 16.
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

// What becomes of the sums of few_rows_matmul: store(row, output, sums), where there is one sum for each
// matrix. Every number is rounded as by the operations one after the other.

/// out = sum.
template <class O>
struct StoreSums {
  static constexpr int matrices = 1;
  O* out;
  std::int64_t out_stride;
  __device__ void operator()(std::int64_t row, std::int64_t n, const float (&sums)[1]) const {
    store(out + row * out_stride + n, sums[0]);
  }
};
/// out = sum, and to += factor * out.
struct AddSums {
  static constexpr int matrices = 1;
  bf16* out;
  std::int64_t out_stride;
  float* to;
  std::int64_t to_stride;
  float factor;
  __device__ void operator()(std::int64_t row, std::int64_t n, const float (&sums)[1]) const {
    const float sum = rounded<bf16>(sums[0]);
    store(out + row * out_stride + n, sum);
    to[row * to_stride + n] += factor * sum;
  }
};
/// gate = the first sum, up = the second, out = f(gate) * up; out may be gate or up.
template <class F>
struct GateSums {
  static constexpr int matrices = 2;
  kernels::SiluMulArgs<bf16> a;
  bf16 *gate, *up;
  F f;
  __device__ void operator()(std::int64_t row, std::int64_t n, const float (&sums)[2]) const {
    const float of_gate = rounded<bf16>(sums[0]), of_up = rounded<bf16>(sums[1]);
    store(gate + row * a.gate_stride + n, of_gate);
    store(up + row * a.up_stride + n, of_up);
    store(a.out + row * a.out_stride + n, f(of_gate) * of_up);
  }
};

/// The matrices of few_rows_matmul, which have the same inputs and shape, and their biases.
template <int Matrices>
struct FewRowsArgs {
  const bf16* w[Matrices];
  const float* bias[Matrices];
  const bf16* x;
  std::int64_t x_stride, rows, N, K;
};

/// What a lane does in a product of few rows. Every warp multiplies all rows with the weights of
/// 8 * Tiles outputs in its part of k. In a step of 32 k, lane 4 g + t reads, straight from memory, the
/// weights of output g of each tile, and the values of rows g, g + 8, ..., at k in [8 t, 8 t + 8): the
/// operands of two mma, in an order of k of its own that is the same for both. Of two matrices a warp
/// has as many outputs each, in 4 * Tiles columns.
template <int Tiles, int Matrices>
struct FewRowsLane {
  static constexpr int columns = 8 * Tiles, outputs = columns / Matrices;
  static_assert(Tiles % Matrices == 0);

  int split, lane, warp, g, t;
  int groups;            ///< of outputs in a block: its warps / split
  int begin, end, stop;  ///< steps of this warp; where its lane's k end
  std::int64_t first_k;  ///< of the first step
  const bf16* of_tile[Tiles];

  __device__ FewRowsLane(const FewRowsArgs<Matrices>& a, int split)
      : split(split),
        lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        g(lane / 4),
        t(lane % 4),
        groups(static_cast<int>(blockDim.x) / 32 / split) {
    const int steps = static_cast<int>((a.K + 31) / 32), part = few_rows_part(steps, split);
    begin = warp % split * part;
    end = begin + part < steps ? begin + part : steps;
    const int last = static_cast<int>((a.K - 8 * t + 31) / 32);
    stop = end < last ? end : last;
    first_k = std::int64_t{begin} * 32 + 8 * t;
    const std::int64_t first_n = (std::int64_t{blockIdx.x} * groups + warp / split) * outputs;
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      const std::int64_t n = first_n + 8 * tile % outputs + g;
      of_tile[tile] = a.w[8 * tile / outputs] + (n < a.N ? n : a.N - 1) * a.K + first_k;
    }
  }
  /// Steps of a part of k.
  static __device__ int few_rows_part(int steps, int split) { return (steps + split - 1) / split; }

  /// The weights of a step, which is `offset` steps after those that of_tile points to. Outputs past
  /// the last are read as the last, and not written. Where k ends, zeros follow.
  __device__ uint4 weights(int step, int tile, int offset) const {
    return step < stop ? load_weights(of_tile[tile] + offset * 32) : uint4{0, 0, 0, 0};
  }
  __device__ void advance(int steps) {
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) of_tile[tile] += steps * 32;
  }

  /// sums += the products of a step: of 16 rows, whose values are v and, of those 8 below, v8.
  __device__ static void multiply(float (&sums)[Tiles][4], const uint4& v, const uint4& v8,
                                  const uint4 (&w)[Tiles]) {
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) {
      multiply_add(sums[tile], {v.x, v8.x, v.y, v8.y}, w[tile].x, w[tile].y);
      multiply_add(sums[tile], {v.z, v8.z, v.w, v8.w}, w[tile].z, w[tile].w);
    }
  }

  /// Adds the parts of 16 rows in order, and passes the sums on. All threads of the block call it.
  /// parts: (warps, 16, columns).
  template <class Then>
  __device__ void finish(float* parts, const float (&sums)[Tiles][4], int first_row,
                         const FewRowsArgs<Matrices>& a, const Then& then) const {
    // A lane has outputs 2 t and 2 t + 1 of rows g and g + 8.
    float* const part = parts + warp * 16 * columns;
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        part[(g + i / 2 * 8) * columns + tile * 8 + 2 * t + i % 2] = sums[tile][i];
    __syncthreads();
    const int left = static_cast<int>(a.rows) - first_row, rows = left < 16 ? left : 16;
    for (int at = static_cast<int>(threadIdx.x); at < groups * rows * outputs;
         at += static_cast<int>(blockDim.x)) {
      const int column = at % outputs, row = at / outputs % rows, group = at / outputs / rows;
      const std::int64_t n = (std::int64_t{blockIdx.x} * groups + group) * outputs + column;
      if (n >= a.N) continue;
      float of_all[Matrices] = {};
#pragma unroll
      for (int m = 0; m < Matrices; ++m) {
        for (int i = 0; i < split; ++i)
          of_all[m] += parts[((group * split + i) * 16 + row) * columns + m * outputs + column];
        if (a.bias[m]) of_all[m] += a.bias[m][n];
      }
      then(first_row + row, n, of_all);
    }
  }
};

/// Products of at most 8 rows, or of 16 if Both: see FewRowsLane. A lane has `Unroll` steps under way,
/// the first of them before earlier kernels have ended.
/// Shared memory: (warps, 16, 8 * Tiles) floats. Bytes: N * K * 2, and rows * K * 2 in each block, which
/// come from the L2 cache.
template <bool Both, int Tiles, int Unroll, class Then>
__global__ void __launch_bounds__(32 * few_rows_warps(Tiles, Unroll))
    few_rows_matmul(FewRowsArgs<Then::matrices> a, int split, Then then) {
  let_next_start();
  extern __shared__ float parts[];
  FewRowsLane<Tiles, Then::matrices> lane(a, split);
  const int rows = static_cast<int>(a.rows);
  const uint4 zero{0, 0, 0, 0};
  const auto row = [&](int i) {  // rows past the last are read as the last, and not written
    return a.x + (i < rows ? i : rows - 1) * a.x_stride + lane.first_k;
  };
  const bf16 *of_row = row(lane.g), *of_row8 = row(lane.g + 8);
  const auto values = [&](int step, const bf16* from, int offset) {
    return step < lane.stop ? *reinterpret_cast<const uint4*>(from + offset * 32) : zero;
  };

  uint4 w[Unroll][Tiles], x[Unroll], x8[Both ? Unroll : 1];
#pragma unroll
  for (int u = 0; u < Unroll; ++u)
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) w[u][tile] = lane.weights(lane.begin + u, tile, u);
  wait_for_earlier();
#pragma unroll
  for (int u = 0; u < Unroll; ++u) {
    x[u] = values(lane.begin + u, of_row, u);
    if constexpr (Both) x8[u] = values(lane.begin + u, of_row8, u);
  }
  float sums[Tiles][4] = {};
#pragma unroll 1
  for (int first = lane.begin; first < lane.end; first += Unroll) {
    of_row += Unroll * 32;
    of_row8 += Unroll * 32;
    lane.advance(Unroll);
#pragma unroll
    for (int u = 0; u < Unroll; ++u) {
      const int next = first + u + Unroll;
      lane.multiply(sums, x[u], Both ? x8[Both ? u : 0] : zero, w[u]);
#pragma unroll
      for (int tile = 0; tile < Tiles; ++tile) w[u][tile] = lane.weights(next, tile, u);
      x[u] = values(next, of_row, u);
      if constexpr (Both) x8[u] = values(next, of_row8, u);
    }
  }
  lane.finish(parts, sums, 0, a, then);
}

/// The shared memory of many_rows_matmul: values of some steps of every part of k, in which the parts of
/// sums are put later.
inline constexpr int many_rows_stages = 3, many_rows_warps = 16;
constexpr std::size_t many_rows_shared_bytes(int tiles, int split) {
  const std::size_t values = std::size_t{many_rows_stages} * split * few_rows * 64,
                    parts = std::size_t{many_rows_warps} * 16 * 8 * tiles * sizeof(float);
  return values > parts ? values : parts;
}

/// The same for up to 64 rows, to the same bits, by blocks of 16 warps: they share the values, which
/// come to shared memory some steps ahead, and of which 16 rows of a step are 64 bytes each, one after
/// the other.
template <int Tiles, int Unroll, class Then>
__global__ void __launch_bounds__(32 * many_rows_warps)
    many_rows_matmul(FewRowsArgs<Then::matrices> a, int split, Then then) {
  let_next_start();
  constexpr int pairs = static_cast<int>(few_rows) / 16, stages = many_rows_stages,
                step_bytes = static_cast<int>(few_rows) * 64;
  extern __shared__ uint4 many_rows_memory[];
  FewRowsLane<Tiles, Then::matrices> lane(a, split);
  const int rows = static_cast<int>(a.rows), all_steps = static_cast<int>((a.K + 31) / 32),
            steps = lane.few_rows_part(all_steps, split);
  const auto memory = static_cast<unsigned>(__cvta_generic_to_shared(many_rows_memory));

  uint4 w[Unroll][Tiles];
#pragma unroll
  for (int u = 0; u < Unroll; ++u)
#pragma unroll
    for (int tile = 0; tile < Tiles; ++tile) w[u][tile] = lane.weights(lane.begin + u, tile, u);
  wait_for_earlier();
  const auto copy_step = [&](int step) {
    const unsigned stage = memory + static_cast<unsigned>(step % stages * split * step_bytes);
    for (int at = static_cast<int>(threadIdx.x); step < steps && at < split * rows * 4;
         at += 32 * many_rows_warps) {
      const int chunk = at % 4, row = at / 4 % rows, part = at / 4 / rows;
      const std::int64_t k = (std::int64_t{part} * steps + step) * 32 + chunk * 8;
      copy_async(stage + static_cast<unsigned>(part * step_bytes + row * 64 + chunk * 16),
                 a.x + row * a.x_stride + (k < a.K ? k : 0), k < a.K);
    }
    commit_copies();
  };
#pragma unroll
  for (int step = 0; step < stages - 1; ++step) copy_step(step);

  float sums[pairs][Tiles][4] = {};
  const int own = lane.warp % split * step_bytes + lane.g * 64 + lane.t * 16;
#pragma unroll 1
  for (int first = 0; first < steps; first += Unroll) {
    lane.advance(Unroll);
#pragma unroll
    for (int u = 0; u < Unroll; ++u) {
      const int step = first + u;
      if (step >= steps) break;
      wait_for_copies<stages - 2>();
      __syncthreads();  // the values of this step are there; those before it have been read
      copy_step(step + stages - 1);
      const auto* const values = reinterpret_cast<const unsigned char*>(many_rows_memory) +
                                 step % stages * split * step_bytes + own;
#pragma unroll
      for (int p = 0; p < pairs; ++p)
        if (16 * p < rows)
          lane.multiply(sums[p], *reinterpret_cast<const uint4*>(values + p * 1024),
                        *reinterpret_cast<const uint4*>(values + p * 1024 + 512), w[u]);
#pragma unroll
      for (int tile = 0; tile < Tiles; ++tile)
        w[u][tile] = lane.weights(lane.begin + step + Unroll, tile, u);
    }
  }
  wait_for_copies<0>();
#pragma unroll
  for (int p = 0; p < pairs; ++p)
    if (16 * p < rows) {
      __syncthreads();
      lane.finish(reinterpret_cast<float*>(many_rows_memory), sums[p], 16 * p, a, then);
    }
}

/// Whether few_rows_matmul takes these arguments.
template <class O>
bool has_few_rows(const kernels::MatmulArgs<RowMajor<bf16>, bf16, O>& a) {
  return a.rows <= few_rows && rows_aligned<8>(a.w, a.K) && rows_aligned<8>(a.x, a.x_stride);
}

/// Launches few_rows_matmul, or many_rows_matmul for more than 16 rows, by a plan. Any: also by plans that
/// neither few_rows_plan nor gated_plan has.
template <bool Any = false, class Then>
void launch_few_rows(const Cuda& device, const FewRowsArgs<Then::matrices>& a,
                     const FewRowsPlan& plan, const Then& then) {
  const auto by_tiles = [&]<int Tiles, int Unroll>() {
    const auto grid = [&](int warps) {
      return blocks(a.N, std::int64_t{8} * Tiles / Then::matrices * (warps / plan.split));
    };
    if (a.rows <= 16) {
      const auto shared = static_cast<std::size_t>(plan.warps) * 16 * 8 * Tiles * sizeof(float);
      launch_kernel(device, "matmul for few rows",
                    a.rows <= 8 ? few_rows_matmul<false, Tiles, Unroll, Then>
                                : few_rows_matmul<true, Tiles, Unroll, Then>,
                    grid(plan.warps), static_cast<unsigned>(plan.warps * 32), shared, a, plan.split,
                    then);
      return;
    }
    const auto kernel = many_rows_matmul<Tiles, Unroll, Then>;
    const std::size_t shared = many_rows_shared_bytes(Tiles, plan.split);
    if (shared > 48 * 1024)
      check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(many_rows_shared_bytes(Tiles, 16))),
                 "cudaFuncSetAttribute");
    launch_kernel(device, "matmul for some rows", kernel, grid(many_rows_warps),
                  32 * many_rows_warps, shared, a, plan.split, then);
  };
  if constexpr (Then::matrices == 1) {
    if (plan.tiles == 1)
      return plan.unroll == 4 ? by_tiles.template operator()<1, 4>()
                              : by_tiles.template operator()<1, 8>();
    if constexpr (Any) {
      if (plan.tiles == 4) return by_tiles.template operator()<4, 4>();
      if (plan.unroll == 8) return by_tiles.template operator()<2, 8>();
    }
  }
  by_tiles.template operator()<2, 4>();
}

/// Products for few rows by a plan.
template <bool Any = false, class O>
void matmul_few_rows(const Cuda& device, const kernels::MatmulArgs<RowMajor<bf16>, bf16, O>& a,
                     const FewRowsPlan& plan) {
  launch_few_rows<Any>(device, {{a.w}, {a.bias}, a.x, a.x_stride, a.rows, a.N, a.K}, plan,
                       StoreSums<O>{a.out, a.out_stride});
}

/// The plan of two matrices with N outputs each: k is divided as for one, so sums have the same bits.
constexpr FewRowsPlan gated_plan(std::int64_t N, std::int64_t K) {
  const FewRowsPlan plan = few_rows_plan(N, K);
  return {2, 4, plan.warps, plan.split};
}

using NarrowProduct = kernels::MatmulArgs<RowMajor<bf16>, bf16, bf16>;

/// A product of few rows waits for the operation after it; one with the same input and shape as the
/// only one that waits, too.
inline void defer_product(const Cuda& device, const NarrowProduct& a) {
  const NarrowProduct* const first = deferred<NarrowProduct>(device, 0, 1);
  defer(device, a,
        first && first->x == a.x && first->x_stride == a.x_stride && first->rows == a.rows &&
            first->N == a.N && first->K == a.K);
}

/// The sum, if the product that waits computes its term: both as one kernel, and true.
template <class R, class E>
bool product_and_sum(const Cuda& device, const kernels::AddArgs<R, E>& a) {
  if constexpr (std::is_same_v<R, float> && std::is_same_v<E, bf16>) {
    const NarrowProduct* const waits = deferred<NarrowProduct>(device, 0, 1);
    if (!waits || waits->out != a.term || waits->out_stride != a.term_stride ||
        waits->rows != a.rows || waits->N != a.columns)
      return false;
    const NarrowProduct p = *waits;
    take_deferred(device);
    launch_few_rows(device, {{p.w}, {p.bias}, p.x, p.x_stride, p.rows, p.N, p.K},
                    few_rows_plan(p.N, p.K),
                    AddSums{p.out, p.out_stride, a.to, a.to_stride, a.factor});
    return true;
  }
  return false;
}

/// The gate, if the products that wait compute its inputs: all three as one kernel, and true.
template <class E, class F>
bool gated_products(const Cuda& device, const kernels::SiluMulArgs<E>& a, F f) {
  if constexpr (std::is_same_v<E, bf16>) {
    const NarrowProduct *const first = deferred<NarrowProduct>(device, 0, 2),
                               *const second = deferred<NarrowProduct>(device, 1, 2);
    if (!first || !second || first->out != a.gate || first->out_stride != a.gate_stride ||
        second->out != a.up || second->out_stride != a.up_stride || first->rows != a.rows ||
        first->N != a.columns)
      return false;
    const NarrowProduct gate = *first, up = *second;
    take_deferred(device);
    launch_few_rows(
        device,
        {{gate.w, up.w}, {gate.bias, up.bias}, gate.x, gate.x_stride, gate.rows, gate.N, gate.K},
        gated_plan(gate.N, gate.K), GateSums<F>{a, gate.out, up.out, f});
    return true;
  }
  return false;
}

}  // namespace samba::inline SAMBA_TARGET::cuda
