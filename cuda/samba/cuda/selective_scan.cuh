#pragma once
#include <samba/cuda/tensor_cores.cuh>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

inline constexpr float log2_e = 1.44269504f;

/// Functions for activations of type E: exact to float, or, for bf16, to more than its digits.
template <class E>
struct ScanMath {
  __device__ static float exp2(float x) { return exp2f(x); }
  __device__ static float softplus(float x) { return cuda::softplus(x); }
  __device__ static float silu(float x) { return cuda::silu(x); }
};
template <>
struct ScanMath<bf16> {
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
/// A thread has a channel with its N states in registers; B and C of the piece are in shared memory. Per
/// row and channel: N exponentials, and two of softplus, two of the gate if Final; 5 N FLOPs; 4 bytes in
/// bf16, 8 if Final.
template <int N, bool Final, class E>
__global__ void __launch_bounds__(128) scan_piece_of_rows(const Segment* segments, int n_segments,
                                                          kernels::SelectiveScanArgs<float, E> a,
                                                          Range channels, float* states_of_pieces) {
  start();
  using Math = ScanMath<E>;
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
  const std::int64_t c = channels.begin + blockIdx.x * std::int64_t{128} + threadIdx.x,
                     width = channels.end - channels.begin;
  if (c >= channels.end) return;
  float* const state = states_of_pieces + blockIdx.y * (N + 1) * width + c - channels.begin;

  float A[N], h[N], sum = 0;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    A[n] = a.A[n * a.channels + c] * log2_e;
    h[n] = Final ? state[n * width] : 0.f;
  }
  const float D = a.D[c], dt_bias = a.dt_bias[c];
  const bool gate = Final && a.z;
  const E *const dt = a.dt + row0 * a.dt_stride + c, *const x = a.x + row0 * a.x_stride + c,
                 *const z = gate ? a.z + row0 * a.z_stride + c : x;
  const std::int64_t z_stride = gate ? a.z_stride : a.x_stride;
  E next_dt[ahead], next_x[ahead], next_z[ahead];
  const auto read = [&](int first) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int t = first + i < piece.rows ? first + i : piece.rows - 1;
      next_dt[i] = dt[t * a.dt_stride];
      next_x[i] = x[t * a.x_stride];
      if constexpr (Final) next_z[i] = z[t * z_stride];
    }
  };
  read(0);
  for (int first = 0; first < piece.rows; first += ahead) {
    E now_dt[ahead], now_x[ahead], now_z[ahead];
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
      const float delta = Math::softplus(number(now_dt[i]) + dt_bias), value = number(now_x[i]),
                  input = delta * value;
      float y = D * value;
      sum += delta;
#pragma unroll
      for (int n = 0; n < N; ++n) {
        h[n] = fmaf(Math::exp2(delta * A[n]), h[n], input * B[t][n]);
        if constexpr (Final) y = fmaf(C[t][n], h[n], y);
      }
      if constexpr (Final) {
        if (a.before_gate) store(a.before_gate + (row0 + t) * a.before_gate_stride + c, y);
        store(a.y + (row0 + t) * a.y_stride + c, gate ? y * Math::silu(number(now_z[i])) : y);
      }
    }
  }
  if constexpr (!Final) {
#pragma unroll
    for (int n = 0; n < N; ++n) state[n * width] = h[n];
    state[N * width] = sum;
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
  const float A = a.A[in_state] * log2_e;
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
    A[n] = a.A[n * a.channels + c] * log2_e;
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
  float* const states = static_cast<float*>(device.workspace);
  const int n = static_cast<int>(n_segments);
  for (std::int64_t begin = 0; begin < a.channels; begin += most) {
    const Range channels{begin, begin + most < a.channels ? begin + most : a.channels};
    const std::int64_t width = channels.end - channels.begin;
    const dim3 grid(blocks(width, 128), static_cast<unsigned>(pieces));
    launch_kernel(device, "selective_scan", scan_piece_of_rows<N, false, E>, grid, 128, 0,
                  chunk.segments.data(), n, a, channels, states);
    launch_kernel(device, "selective_scan", combine_pieces<N, E>,
                  dim3(blocks(N * width, 128), n_segments), 128, 0, chunk.segments.data(), a, c.h,
                  channels, states);
    launch_kernel(device, "selective_scan", scan_piece_of_rows<N, true, E>, grid, 128, 0,
                  chunk.segments.data(), n, a, channels, states);
  }
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
