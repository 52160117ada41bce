#pragma once
#include <samba/cuda/tensor_cores.cuh>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// P neighbouring numbers, read at once.
template <int P, class E>
struct Neighbours {
  E x[P];

  __device__ static Neighbours load(const E* from) {
    Neighbours all;
    if constexpr (P == 2 && sizeof(E) == 2) {
      const unsigned bits = *reinterpret_cast<const unsigned*>(from);
      all.x[0].bits = static_cast<std::uint16_t>(bits);
      all.x[1].bits = static_cast<std::uint16_t>(bits >> 16);
    } else if constexpr (P == 2) {
      const float2 two = *reinterpret_cast<const float2*>(from);
      all.x[0] = two.x;
      all.x[1] = two.y;
    } else {
      all.x[0] = *from;
    }
    return all;
  }
  __device__ static void store(E* to, const float (&x)[P]) {
    if constexpr (P == 2 && sizeof(E) == 2)
      *reinterpret_cast<unsigned*>(to) = pack_bf16(x[0], x[1]);
    else
      for (int i = 0; i < P; ++i) cuda::store(to + i, x[i]);
  }
};

/// Functions for activations of type E: exact to float, or, for bf16, to more than its digits.
template <class E>
struct ScanMath {
  __device__ static float exp2(float x) { return exp2f(x); }
  __device__ static float softplus(float x) { return cuda::softplus(x); }
  __device__ static float silu(float x) { return cuda::silu(x); }
};
template <>
struct ScanMath<bf16> {
  static constexpr float log2_e = 1.44269504f;

  __device__ static float exp2(float x) { return exp2_approx(x); }
  __device__ static float softplus(float x) {
    const float u = exp2_approx(-fabsf(x) * log2_e);  // max(x, 0) + log(1 + u)
    return fmaxf(x, 0.f) + (u < 0.01f ? u - u * u / 2 : __logf(1.f + u));
  }
  __device__ static float silu(float x) { return __fdividef(x, 1.f + exp2_approx(-x * log2_e)); }
};

/// Rows of a piece of a segment, which a block of threads takes at once. Pieces begin at multiples of
/// it, counted from the segment's first row in the launch.
inline constexpr int scan_rows = 128;

/// Where a piece is. Pieces are counted through the segments.
struct ScanPiece {
  int segment, first, rows;  ///< first: row in the segment
};
__device__ inline ScanPiece scan_piece(const Segment* segments, int n_segments, int number) {
  for (int i = 0; i < n_segments; ++i) {
    const auto rows = static_cast<int>(segments[i].rows);
    const int pieces = (rows + scan_rows - 1) / scan_rows, first = number * scan_rows;
    if (number < pieces) return {i, first, rows - first < scan_rows ? rows - first : scan_rows};
    number -= pieces;
  }
  return {-1, 0, 0};
}

/// A piece of a scan. Final: from the state at its start, with its outputs; otherwise from a state of
/// zeros, and only the state at its end and the sum of delta, from which the next kernel computes the
/// states at the starts of all pieces. Both are in `states_of_pieces`, (pieces, N + 1, channels of
/// `channels`, those of this launch).
///
/// A thread has P channels with their N states in registers; B and C of the piece are in shared memory.
/// Per row and channel: N exponentials, and two of softplus, two of the gate if Final; 5 N FLOPs; 4
/// bytes in bf16, 8 if Final.
template <int N, int P, bool Final, class E>
__global__ void __launch_bounds__(128) scan_piece_of_rows(const Segment* segments, int n_segments,
                                                          kernels::SelectiveScanArgs<float, E> a,
                                                          Range channels, float* states_of_pieces) {
  start();
  using Math = ScanMath<E>;
  using Few = Neighbours<P, E>;
  constexpr int ahead = 4;  // rows that are read before they are needed
  __shared__ float B[scan_rows][N], C[Final ? scan_rows : 1][N];
  const ScanPiece piece = scan_piece(segments, n_segments, static_cast<int>(blockIdx.y));
  if (piece.segment < 0) return;
  const std::int64_t row0 = segments[piece.segment].first_row + piece.first;
  for (int at = static_cast<int>(threadIdx.x); at < piece.rows * N; at += 128) {
    const int t = at / N, n = at % N;
    B[t][n] = number(a.B[(row0 + t) * a.B_stride + n]);
    if constexpr (Final) C[t][n] = number(a.C[(row0 + t) * a.C_stride + n]);
  }
  __syncthreads();
  const std::int64_t c = channels.begin + (blockIdx.x * std::int64_t{128} + threadIdx.x) * P,
                     width = channels.end - channels.begin;
  if (c >= channels.end) return;
  float* const state = states_of_pieces + blockIdx.y * (N + 1) * width + c - channels.begin;

  float A[P][N], h[P][N], D[P], dt_bias[P], sum[P];
#pragma unroll
  for (int p = 0; p < P; ++p) {
    sum[p] = 0;
    D[p] = a.D[c + p];
    dt_bias[p] = a.dt_bias[c + p];
#pragma unroll
    for (int n = 0; n < N; ++n) {
      A[p][n] = a.A[n * a.channels + c + p] * 1.44269504f;
      h[p][n] = Final ? state[n * width + p] : 0.f;
    }
  }
  const E *dt = a.dt + row0 * a.dt_stride + c, *x = a.x + row0 * a.x_stride + c,
          *z = Final && a.z ? a.z + row0 * a.z_stride + c : x;
  const std::int64_t z_stride = Final && a.z ? a.z_stride : a.x_stride;
  Few next_dt[ahead], next_x[ahead], next_z[ahead];
  const auto read = [&](int t) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int row = t + i < piece.rows ? t + i : piece.rows - 1;
      next_dt[i] = Few::load(dt + row * a.dt_stride);
      next_x[i] = Few::load(x + row * a.x_stride);
      if constexpr (Final) next_z[i] = Few::load(z + row * z_stride);
    }
  };
  read(0);
  for (int first = 0; first < piece.rows; first += ahead) {
    Few now_dt[ahead], now_x[ahead], now_z[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      now_dt[i] = next_dt[i];
      now_x[i] = next_x[i];
      if constexpr (Final) now_z[i] = next_z[i];
    }
    if (first + ahead < piece.rows) read(first + ahead);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int t = first + i;
      if (t >= piece.rows) break;
      float y[P];
#pragma unroll
      for (int p = 0; p < P; ++p) {
        const float delta = Math::softplus(number(now_dt[i].x[p]) + dt_bias[p]),
                    value = number(now_x[i].x[p]), input = delta * value;
        sum[p] += delta;
        y[p] = D[p] * value;
#pragma unroll
        for (int n = 0; n < N; ++n) {
          h[p][n] = fmaf(Math::exp2(delta * A[p][n]), h[p][n], input * B[t][n]);
          if constexpr (Final) y[p] = fmaf(C[t][n], h[p][n], y[p]);
        }
      }
      if constexpr (Final) {
        if (a.before_gate) Few::store(a.before_gate + (row0 + t) * a.before_gate_stride + c, y);
        if (a.z) {
#pragma unroll
          for (int p = 0; p < P; ++p) y[p] *= Math::silu(number(now_z[i].x[p]));
        }
        Few::store(a.y + (row0 + t) * a.y_stride + c, y);
      }
    }
  }
  if constexpr (!Final) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
#pragma unroll
      for (int n = 0; n < N; ++n) state[n * width + p] = h[p][n];
      state[N * width + p] = sum[p];
    }
  }
}

/// From the states at the ends of pieces that began with zeros to those at their starts, and the
/// segments' own: h = exp(A sum of delta) h + end of the piece. A thread for each state; blockIdx.y is
/// the segment.
template <int N, class E>
__global__ void combine_pieces(const Segment* segments, kernels::SelectiveScanArgs<float, E> a,
                               ArrayData<float> states, Range channels, float* states_of_pieces) {
  start();
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x,
                     width = channels.end - channels.begin, all = N * width;
  if (i >= all) return;
  std::int64_t number = 0;
  const auto pieces_of = [&](unsigned s) { return (segments[s].rows + scan_rows - 1) / scan_rows; };
  for (unsigned s = 0; s < blockIdx.y; ++s) number += pieces_of(s);
  const std::int64_t pieces = pieces_of(blockIdx.y), stride = all + width,
                     in_state = i / width * a.channels + channels.begin + i % width;
  float* const state = of(states, segments[blockIdx.y].state) + in_state;
  float* at = states_of_pieces + number * stride;
  const float A = a.A[in_state] * 1.44269504f;
  float h = *state;
  for (std::int64_t piece = 0; piece < pieces; ++piece, at += stride) {
    const float end = at[i], sum = at[all + i % width];
    at[i] = h;
    h = fmaf(ScanMath<E>::exp2(A * sum), h, end);
  }
  *state = h;
}

/// One thread per channel of a segment; it loops over the segment's rows with its N states in
/// registers. For a row each: the same numbers as by pieces.
template <int N, class E>
__global__ void selective_scan(const Segment* segments, kernels::SelectiveScanArgs<float, E> a,
                               ArrayData<float> states) {
  start();
  using Math = ScanMath<E>;
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  float* const state = of(states, segment.state);
  float A[N], h[N];
  for (int n = 0; n < N; ++n) {
    A[n] = a.A[n * a.channels + c] * 1.44269504f;
    h[n] = state[n * a.channels + c];
  }
  const float D = a.D[c], dt_bias = a.dt_bias[c];
  for (std::int64_t t = segment.first_row; t < segment.first_row + segment.rows; ++t) {
    const float delta = Math::softplus(number(a.dt[t * a.dt_stride + c]) + dt_bias),
                x = number(a.x[t * a.x_stride + c]), input = delta * x;
    const E *const B = a.B + t * a.B_stride, *const C = a.C + t * a.C_stride;
    float y = D * x;
    for (int n = 0; n < N; ++n) {
      h[n] = fmaf(Math::exp2(delta * A[n]), h[n], input * number(B[n]));
      y = fmaf(number(C[n]), h[n], y);
    }
    if (a.before_gate) store(a.before_gate + t * a.before_gate_stride + c, y);
    store(a.y + t * a.y_stride + c, a.z ? y * Math::silu(number(a.z[t * a.z_stride + c])) : y);
  }
  for (int n = 0; n < N; ++n) state[n * a.channels + c] = h[n];
}

}  // namespace cuda

namespace kernels {

/// In three kernels, in parallel over pieces of time, unless every segment has one row: the states at
/// the ends of pieces are computed first, for as many channels as the workspace has room for. A sequence gets the same bits for any split at multiples of
/// cuda::scan_rows, whatever else is in the launch.
template <int N, class E>
void launch(const Cuda& device, const Chunk& chunk, const SelectiveScanChunk<N, float, E>& c) {
  if (chunk.segments.empty()) return;
  using namespace cuda;
  const auto& a = c.args;
  const auto n_segments = static_cast<unsigned>(chunk.segments.size());
  const std::int64_t pieces = blocks(chunk.rows, scan_rows) + std::int64_t{n_segments} - 1;
  const auto bytes = static_cast<std::size_t>(pieces * (N + 1)) * sizeof(float);  // of a channel
  const auto most = static_cast<std::int64_t>(device.workspace_bytes / bytes) / 256 * 256;
  if (chunk.rows <= n_segments || most == 0) {
    launch_kernel(device, "selective_scan", cuda::selective_scan<N, E>,
                  dim3(blocks(a.channels, 128), n_segments), 128, 0, chunk.segments.data(), a, c.h);
    return;
  }
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const std::int64_t strides = a.channels | a.dt_stride | a.x_stride | a.z_stride | a.y_stride |
                               (a.before_gate ? a.before_gate_stride : 0);
  const bool in_pairs = strides % 2 == 0 && (address(a.dt) | address(a.x) | address(a.z) |
                                             address(a.y) | address(a.before_gate)) %
                                                    (2 * sizeof(E)) ==
                                                0;
  const auto run = [&]<int P>(std::integral_constant<int, P>) {
    float* const states = static_cast<float*>(device.workspace);
    const int n = static_cast<int>(n_segments);
    for (std::int64_t begin = 0; begin < a.channels; begin += most) {
      const Range channels{begin, begin + most < a.channels ? begin + most : a.channels};
      const std::int64_t width = channels.end - channels.begin;
      const dim3 grid(blocks(width, 128 * P), static_cast<unsigned>(pieces));
      launch_kernel(device, "selective_scan", scan_piece_of_rows<N, P, false, E>, grid, 128, 0,
                    chunk.segments.data(), n, a, channels, states);
      launch_kernel(device, "selective_scan", combine_pieces<N, E>,
                    dim3(blocks(N * width, 128), n_segments), 128, 0, chunk.segments.data(), a, c.h,
                    channels, states);
      launch_kernel(device, "selective_scan", scan_piece_of_rows<N, P, true, E>, grid, 128, 0,
                    chunk.segments.data(), n, a, channels, states);
    }
  };
  if (in_pairs && N <= 16)
    run(std::integral_constant<int, 2>{});
  else
    run(std::integral_constant<int, 1>{});
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
