#pragma once
#include <samba/cuda/vectors.cuh>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// How the work of a scan is divided. states: of a channel in one thread, a multiple of 4; also the
/// order in which C h is added up. tile: tokens between two barriers, a multiple of 16.
/// polynomial: 2^x is a polynomial for every fourth state of that many tokens in four, so for
/// polynomial / 16 of all. helpers: warps beside those that scan, such that they take whole tiles.
template <int States, int Tile, int Polynomial, int Helpers>
struct ScanPlan {
  static constexpr int states = States, tile = Tile, polynomial = Polynomial, helpers = Helpers;
  static_assert(states % 4 == 0 && tile % 16 == 0 && tile % (2 * helpers) == 0);
};

/// At most 16 warps scan; only numbers rounded to bf16 have polynomials.
template <int N, class E>
using DefaultScanPlan =
    ScanPlan<(N <= 64 ? 4 : (N + 63) / 64 * 4), 16, (std::is_same_v<E, bf16> ? 1 : 0), 4>;

/// A as the exponent's factor, and the decay exp(delta A).
template <class E>
__device__ float scan_rate(float A) {
  return std::is_same_v<E, float> ? A : __fmul_rn(A, log2_e);
}
template <class E>
__device__ float scan_decay(float delta, float rate, bool polynomial) {
  const float x = __fmul_rn(delta, rate);
  if constexpr (std::is_same_v<E, float>) return expf(x);
  return polynomial ? exp2_polynomial(x) : fast_exp2(x);
}

/// A token of some states of a channel; returns their part of C h. in: delta, and delta x.
template <class Plan, class E>
__device__ float scan_token(float (&h)[Plan::states], const float (&rate)[Plan::states], float2 in,
                            const float (&B)[Plan::states], const float (&C)[Plan::states],
                            int token) {
  float sum = 0;
#pragma unroll
  for (int s = 0; s < Plan::states; ++s) {
    const bool polynomial = s % 4 == 3 && token % 4 < Plan::polynomial;
    h[s] = __fmaf_rn(scan_decay<E>(in.x, rate[s], polynomial), h[s], __fmul_rn(in.y, B[s]));
    sum = s ? __fmaf_rn(C[s], h[s], sum) : __fmul_rn(C[s], h[s]);
  }
  return sum;
}

template <int N, class Plan>
inline constexpr int scan_groups = (N + Plan::states - 1) / Plan::states;

/// The channels of a block, a lane each.
inline constexpr int scan_channels = 32;

/// Which exponentials are polynomials depends on the position, so that any split of a sequence gives the
/// same bits: a segment begins with so many tokens of its first tile that change nothing.
__device__ inline int scan_lead(const Segment& segment) {
  return static_cast<int>(segment.position % 4);
}

/// A tile in shared memory: what the helpers prepare, and the sums that they finish.
template <int N, class Plan>
struct alignas(16) ScanStage {
  static constexpr int groups = scan_groups<N, Plan>, padded = groups * Plan::states;
  float2 in[Plan::tile][scan_channels];  ///< delta, and delta x
  float B[Plan::tile][padded], C[Plan::tile][padded];
  float sums[groups][Plan::tile][scan_channels];
};

/// A barrier of all threads of the block, which different warps may reach in different code.
__device__ inline void scan_barrier() { asm volatile("bar.sync 0;" ::: "memory"); }

/// The warps that scan: one for each group of states, a lane for each channel. rows: with the lead.
/// Before the segment's first row and behind its last one delta and B are zero, which leaves states as
/// they are, bit by bit.
template <int N, class Plan, class E>
__device__ void scan_states(ScanStage<N, Plan>* stages, std::int64_t rows,
                            const kernels::SelectiveScanArgs<float, E>& a, float* state) {
  constexpr int S = Plan::states;
  const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
  const std::int64_t c = blockIdx.x * std::int64_t{scan_channels} + lane;
  float rate[S], h[S];
#pragma unroll
  for (int s = 0; s < S; ++s) {
    const std::int64_t n = group * S + s;
    const bool exists = n < N && c < a.channels;
    rate[s] = exists ? scan_rate<E>(a.A[n * a.channels + c]) : 0.f;
    h[s] = exists ? state[n * a.channels + c] : 0.f;
  }
  const auto tiles = static_cast<int>((rows + Plan::tile - 1) / Plan::tile);
  scan_barrier();  // the first tile is prepared
  for (int tile = 0; tile < tiles; ++tile) {
    ScanStage<N, Plan>& stage = stages[tile % 2];
    const auto token = [&](int t) {
      float B[S], C[S];
#pragma unroll
      for (int s = 0; s < S; s += 4) {
        const float4 b = *reinterpret_cast<const float4*>(&stage.B[t][group * S + s]);
        const float4 d = *reinterpret_cast<const float4*>(&stage.C[t][group * S + s]);
        B[s] = b.x, B[s + 1] = b.y, B[s + 2] = b.z, B[s + 3] = b.w;
        C[s] = d.x, C[s + 1] = d.y, C[s + 2] = d.z, C[s + 3] = d.w;
      }
      return scan_token<Plan, E>(h, rate, stage.in[t][lane], B, C, t);
    };
    const std::int64_t left = rows - std::int64_t{tile} * Plan::tile;
    const int n = left < Plan::tile ? static_cast<int>(left) : Plan::tile;
    int t = 0;
    for (; t + 16 <= n; t += 16) {  // sums wait in registers: loads need not follow stores
      float sums[16];
#pragma unroll
      for (int u = 0; u < 16; ++u) sums[u] = token(t + u);
#pragma unroll
      for (int u = 0; u < 16; ++u) stage.sums[group][t + u][lane] = sums[u];
    }
    for (; t < n; t += 4) {
      float sums[4];
#pragma unroll
      for (int u = 0; u < 4; ++u) sums[u] = token(t + u);
#pragma unroll
      for (int u = 0; u < 4; ++u) stage.sums[group][t + u][lane] = sums[u];
    }
    scan_barrier();
  }
  scan_barrier();  // the last tile is finished
#pragma unroll
  for (int s = 0; s < S; ++s) {
    const std::int64_t n = group * S + s;
    if (n < N && c < a.channels) state[n * a.channels + c] = h[s];
  }
}

/// The other warps: a thread has two channels of every so many tokens. At step k they load tile
/// k + 1 and what ends tile k - 1 into registers, prepare tile k and finish tile k - 2.
template <int N, class Plan, bool Paired, class E>
__device__ void scan_rows(ScanStage<N, Plan>* stages, const Segment& segment,
                          const kernels::SelectiveScanArgs<float, E>& a) {
  constexpr int groups = scan_groups<N, Plan>, padded = ScanStage<N, Plan>::padded,
                threads = Plan::helpers * 32, each = Plan::tile * 16 / threads,
                coefficients = Plan::tile * padded,
                each_BC = (coefficients + threads - 1) / threads;
  using Two = Packed<E, 2>;
  struct Inputs {
    Two dt[each], x[each];
    E B[each_BC], C[each_BC];
  };
  struct Gates {
    Two x[each], z[each];
  };
  const int thread = threadIdx.x - groups * 32, pair = thread % 16, first = thread / 16;
  const std::int64_t c = blockIdx.x * std::int64_t{scan_channels} + 2 * pair,
                     count = a.channels - c;
  float D[2] = {}, dt_bias[2] = {};
  for (int i = 0; i < 2; ++i)
    if (i < count) D[i] = a.D[c + i], dt_bias[i] = a.dt_bias[c + i];
  const int lead = scan_lead(segment);
  const auto tiles = static_cast<int>((segment.rows + lead + Plan::tile - 1) / Plan::tile);

  // Token i of this thread in a tile; its row in the segment; whether there is anything at it.
  const auto token = [&](int i) { return first + i * (threads / 16); };
  const auto row = [&](int tile, int i) {
    return std::int64_t{tile} * Plan::tile + token(i) - lead;
  };
  const auto exists = [&](std::int64_t t) { return t >= 0 && t < segment.rows && count > 0; };
  const auto load = [&](const E* from, std::int64_t stride, std::int64_t t) {
    return exists(t) ? load_packed<Paired, 2>(from + (segment.first_row + t) * stride + c, count)
                     : Two{};
  };
  const auto load_inputs = [&](int tile, Inputs& in) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      in.dt[i] = load(a.dt, a.dt_stride, row(tile, i));
      in.x[i] = load(a.x, a.x_stride, row(tile, i));
    }
#pragma unroll
    for (int i = 0; i < each_BC; ++i) {
      const int k = thread + i * threads, n = k % padded;
      const std::int64_t t = std::int64_t{tile} * Plan::tile + k / padded - lead;
      const bool inside = k < coefficients && n < N && t >= 0 && t < segment.rows;
      in.B[i] = inside ? a.B[(segment.first_row + t) * a.B_stride + n] : E{};
      in.C[i] = inside ? a.C[(segment.first_row + t) * a.C_stride + n] : E{};
    }
  };
  const auto load_gates = [&](int tile, Gates& gates) {
#pragma unroll
    for (int i = 0; i < each; ++i) {
      gates.x[i] = load(a.x, a.x_stride, row(tile, i));
      if (a.z) gates.z[i] = load(a.z, a.z_stride, row(tile, i));
    }
  };
  const auto prepare = [&](int tile, const Inputs& in) {
    ScanStage<N, Plan>& stage = stages[tile % 2];
#pragma unroll
    for (int i = 0; i < each; ++i) {
      float4 out{};
      if (exists(row(tile, i))) {
        out.x = softplus_for<E>(__fadd_rn(in.dt[i][0], dt_bias[0]));
        out.y = __fmul_rn(out.x, in.x[i][0]);
        out.z = softplus_for<E>(__fadd_rn(in.dt[i][1], dt_bias[1]));
        out.w = __fmul_rn(out.z, in.x[i][1]);
      }
      *reinterpret_cast<float4*>(&stage.in[token(i)][2 * pair]) = out;
    }
#pragma unroll
    for (int i = 0; i < each_BC; ++i) {
      const int k = thread + i * threads;
      if (k >= coefficients) break;
      (&stage.B[0][0])[k] = number(in.B[i]);
      (&stage.C[0][0])[k] = number(in.C[i]);
    }
  };
  const auto finish = [&](int tile, const Gates& gates) {
    const ScanStage<N, Plan>& stage = stages[tile % 2];
#pragma unroll
    for (int i = 0; i < each; ++i) {
      const std::int64_t t = row(tile, i);
      if (!exists(t)) continue;
      float y[2] = {};
#pragma unroll
      for (int g = 0; g < groups; ++g) {
        const float2 sum = *reinterpret_cast<const float2*>(&stage.sums[g][token(i)][2 * pair]);
        y[0] = g ? __fadd_rn(y[0], sum.x) : sum.x;
        y[1] = g ? __fadd_rn(y[1], sum.y) : sum.y;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) y[j] = __fmaf_rn(D[j], gates.x[i][j], y[j]);
      const std::int64_t to = segment.first_row + t;
      if (a.before_gate)
        store_packed<Paired>(a.before_gate + to * a.before_gate_stride + c, y, count);
      if (a.z) {
#pragma unroll
        for (int j = 0; j < 2; ++j) y[j] = __fmul_rn(y[j], silu_for<E>(gates.z[i][j]));
      }
      store_packed<Paired>(a.y + to * a.y_stride + c, y, count);
    }
  };

  Inputs next;
  Gates gates;
  load_inputs(0, next);
  for (int step = 0; step < tiles + 2; ++step) {
    const Inputs now = next;
    const Gates ending = gates;
    if (step + 1 < tiles) load_inputs(step + 1, next);
    if (step >= 1 && step <= tiles) load_gates(step - 1, gates);
    if (step < tiles) prepare(step, now);
    if (step >= 2) finish(step - 2, ending);
    scan_barrier();
  }
}

/// The scan of one segment and 32 channels by a block. Shared memory holds two tiles: one is scanned
/// while the helpers finish the tile before and prepare the one after it. Every number is loaded
/// from memory once, but for x, whose second load mostly finds it in a cache: 8 bytes for a token of
/// a channel in bf16 with a gate, and N + 4 results of the special function unit, which is what
/// limits the scan.
template <class Plan, bool Paired, int N, class E>
__global__ void __launch_bounds__(32 * (scan_groups<N, Plan> + Plan::helpers))
    selective_scan(const Segment* segments, kernels::SelectiveScanArgs<float, E> a,
                   ArrayData<float> states) {
  start();
  extern __shared__ uint4 scan_memory[];
  auto* const stages = reinterpret_cast<ScanStage<N, Plan>*>(scan_memory);
  const Segment segment = segments[blockIdx.y];
  if (segment.rows == 0) return;
  if (threadIdx.x / 32 < scan_groups<N, Plan>)
    scan_states<N, Plan>(stages, segment.rows + scan_lead(segment), a, of(states, segment.state));
  else
    scan_rows<N, Plan, Paired>(stages, segment, a);
}

/// The same, to the same bits, with a thread for each channel of a segment: for steps.
template <class Plan, int N, class E>
__global__ void selective_scan_steps(const Segment* segments,
                                     kernels::SelectiveScanArgs<float, E> a,
                                     ArrayData<float> states) {
  start();
  constexpr int groups = scan_groups<N, Plan>, S = Plan::states;
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  const Segment segment = segments[blockIdx.y];
  if (c >= a.channels || segment.rows == 0) return;
  float* const state = of(states, segment.state);
  float rate[groups][S] = {}, h[groups][S] = {};
#pragma unroll
  for (int n = 0; n < N; ++n) {
    rate[n / S][n % S] = scan_rate<E>(a.A[n * a.channels + c]);
    h[n / S][n % S] = state[n * a.channels + c];
  }
  const float D = a.D[c], dt_bias = a.dt_bias[c];
  for (int t = 0; t < segment.rows; ++t) {
    const std::int64_t row = segment.first_row + t;
    const float x = number(a.x[row * a.x_stride + c]),
                delta = softplus_for<E>(__fadd_rn(number(a.dt[row * a.dt_stride + c]), dt_bias));
    float y = 0;
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      float B[S], C[S];
#pragma unroll
      for (int s = 0; s < S; ++s) {
        const int n = g * S + s;
        B[s] = n < N ? number(a.B[row * a.B_stride + n]) : 0.f;
        C[s] = n < N ? number(a.C[row * a.C_stride + n]) : 0.f;
      }
      const float sum = scan_token<Plan, E>(h[g], rate[g], {delta, __fmul_rn(delta, x)}, B, C,
                                            static_cast<int>((segment.position + t) % 4));
      y = g ? __fadd_rn(y, sum) : sum;
    }
    y = __fmaf_rn(D, x, y);
    if (a.before_gate) store(a.before_gate + row * a.before_gate_stride + c, y);
    if (a.z) y = __fmul_rn(y, silu_for<E>(number(a.z[row * a.z_stride + c])));
    store(a.y + row * a.y_stride + c, y);
  }
#pragma unroll
  for (int n = 0; n < N; ++n) state[n * a.channels + c] = h[n / S][n % S];
}

/// Launches the scan by tiles.
template <class Plan, int N, class E>
void scan_by_tiles(const Cuda& device, const Chunk& chunk,
                   const kernels::SelectiveScanChunk<N, float, E>& scan) {
  const kernels::SelectiveScanArgs<float, E>& a = scan.args;
  const auto run = [&](auto* kernel) {
    constexpr int bytes = 2 * sizeof(ScanStage<N, Plan>);
    if constexpr (bytes > 48 * 1024)
      check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                 "cudaFuncSetAttribute");
    const dim3 grid(blocks(a.channels, scan_channels),
                    static_cast<unsigned>(chunk.segments.size()));
    // Not by launch_kernel: blocks that wait for the kernel before crowd on some processors.
    kernel<<<grid, 32 * (scan_groups<N, Plan> + Plan::helpers), bytes, device.stream()>>>(
        chunk.segments.data(), a, scan.h);
    check_launch("selective_scan");
  };
  if (a.channels % 2 == 0 && rows_aligned<2>(a.dt, a.dt_stride) &&
      rows_aligned<2>(a.x, a.x_stride) && rows_aligned<2>(a.z, a.z_stride) &&
      rows_aligned<2>(a.y, a.y_stride) && rows_aligned<2>(a.before_gate, a.before_gate_stride))
    run(&selective_scan<Plan, true, N, E>);
  else
    run(&selective_scan<Plan, false, N, E>);
}

/// Launches the scan with a thread for each channel.
template <class Plan, int N, class E>
void scan_by_steps(const Cuda& device, const Chunk& chunk,
                   const kernels::SelectiveScanChunk<N, float, E>& scan) {
  const dim3 grid(blocks(scan.args.channels, 64), static_cast<unsigned>(chunk.segments.size()));
  launch_kernel(device, "selective_scan", selective_scan_steps<Plan, N, E>, grid, 64, 0,
                chunk.segments.data(), scan.args, scan.h);
}

}  // namespace cuda

namespace kernels {

/// One launch, without scratch. Both kernels give the same bits, which depend on a segment's own
/// rows and position only, and not on how the sequence was split.
template <int N, class E>
void launch(const Cuda& device, const Chunk& chunk, const SelectiveScanChunk<N, float, E>& a) {
  using Plan = cuda::DefaultScanPlan<N, E>;
  if (chunk.segments.empty()) return;
  if (chunk.rows <= 4 * static_cast<std::int64_t>(chunk.segments.size()))
    cuda::scan_by_steps<Plan>(device, chunk, a);
  else
    cuda::scan_by_tiles<Plan>(device, chunk, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
