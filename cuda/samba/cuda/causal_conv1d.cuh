#pragma once
#include <samba/cuda/vectors.cuh>
#include <samba/kernels/causal_conv1d.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// A thread has W neighbouring channels of a segment, and runs of Run rows: blocks in z take them in
/// turn. A run loads the Taps - 1 rows before it again. Only the first run needs the past: the thread
/// that has it also stores the new past, after it has read the old one. Sums do not depend on how
/// rows are divided.
template <int Taps, bool Silu, int W, int Run, class E>
__global__ void __launch_bounds__(128)
    causal_conv1d(const Segment* segments, kernels::CausalConv1dArgs<float, E> a,
                  ArrayData<float> states) {
  start();
  static_assert(Run >= Taps - 1);
  constexpr bool vector = W > 1;
  constexpr int together = 4;  // rows whose loads are under way at once
  const std::int64_t c = (blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x) * W;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  if (static_cast<std::int64_t>(blockIdx.z) * Run >= segment.rows) return;
  const E* const x = a.x + segment.first_row * a.x_stride + c;
  E* const y = a.y + segment.first_row * a.y_stride + c;
  float* const past = of(states, segment.state) + c;

  float weight[Taps][W], bias[W], window[Taps][W];  // window: the last rows, oldest first
  const auto load_floats = [&](const float* from, float(&to)[W]) {
    const auto p = load_packed<vector, W>(from, W);
#pragma unroll
    for (int i = 0; i < W; ++i) to[i] = p[i];
  };
#pragma unroll
  for (int j = 0; j < Taps; ++j) load_floats(a.weight + j * a.channels + c, weight[j]);
  load_floats(a.bias + c, bias);
  const auto shift = [&] {
#pragma unroll
    for (int j = 0; j < Taps - 1; ++j)
#pragma unroll
      for (int i = 0; i < W; ++i) window[j][i] = window[j + 1][i];
  };
  const auto append = [&](const Packed<E, W>& row) {
#pragma unroll
    for (int i = 0; i < W; ++i) window[Taps - 1][i] = row[i];
  };

  for (std::int64_t begin = static_cast<std::int64_t>(blockIdx.z) * Run; begin < segment.rows;
       begin += static_cast<std::int64_t>(gridDim.z) * Run) {
#pragma unroll
    for (int j = 0; j < Taps - 1; ++j) {
      if (begin == 0) {
        load_floats(past + j * a.channels, window[j]);
      } else {
        const auto row = load_packed<vector, W>(x + (begin - (Taps - 1) + j) * a.x_stride, W);
#pragma unroll
        for (int i = 0; i < W; ++i) window[j][i] = row[i];
      }
    }
    const std::int64_t end = begin + Run < segment.rows ? begin + Run : segment.rows;
    for (std::int64_t t = begin; t < end; t += together) {
      Packed<E, W> rows[together];
#pragma unroll
      for (int u = 0; u < together; ++u)
        if (t + u < end) rows[u] = load_packed<vector, W>(x + (t + u) * a.x_stride, W);
#pragma unroll
      for (int u = 0; u < together; ++u) {
        if (t + u >= end) break;
        append(rows[u]);
        float sum[W];
#pragma unroll
        for (int i = 0; i < W; ++i) {
          sum[i] = bias[i];
#pragma unroll
          for (int j = 0; j < Taps; ++j) sum[i] = __fmaf_rn(weight[j][i], window[j][i], sum[i]);
          if constexpr (Silu) sum[i] = silu_for<E>(sum[i]);
        }
        store_packed<vector, W>(y + (t + u) * a.y_stride, sum, W);
        shift();
      }
    }
    if (begin > 0) continue;
    // window[0 .. Taps - 2] are the last rows of this run; the segment's last rows may be later ones.
#pragma unroll
    for (int j = 0; j < Taps - 1; ++j) {
      if (end < segment.rows) {
        // Rows before `end` are in the window only if they are among its last ones: all are in x.
        const auto row =
            load_packed<vector, W>(x + (segment.rows - (Taps - 1) + j) * a.x_stride, W);
#pragma unroll
        for (int i = 0; i < W; ++i) window[j][i] = row[i];
      }
      store_packed<vector, W>(past + j * a.channels, window[j], W);
    }
  }
}

/// Launches it with runs of Run rows.
template <int Run, int Taps, kernels::ConvActivation f, class E>
void conv_by_runs(const Cuda& device, const Chunk& chunk,
                  const kernels::CausalConv1dChunk<Taps, f, float, E>& conv) {
  constexpr int W = 16 / sizeof(E);
  const kernels::CausalConv1dArgs<float, E>& a = conv.args;
  const auto run = [&](auto* kernel, int width) {
    const auto segments = static_cast<unsigned>(chunk.segments.size());
    const unsigned in_x = blocks(a.channels, 128 * width), runs = blocks(chunk.rows, Run),
                   enough = blocks(4096, std::int64_t{in_x} * segments);
    const dim3 grid(in_x, segments, runs < enough ? runs : enough);
    launch_kernel(device, "causal_conv1d", kernel, grid, 128, 0, chunk.segments.data(), a,
                  conv.past);
  };
  constexpr bool silu = f == kernels::ConvActivation::silu;
  if (a.channels % W == 0 && rows_aligned<W>(a.x, a.x_stride) && rows_aligned<W>(a.y, a.y_stride) &&
      rows_aligned<4>(a.weight, 0) && rows_aligned<4>(a.bias, 0) &&
      rows_aligned<4>(conv.past.data, conv.past.stride / std::int64_t{sizeof(float)}))
    run(&causal_conv1d<Taps, silu, W, Run, E>, W);
  else
    run(&causal_conv1d<Taps, silu, 1, Run, E>, 1);
}

}  // namespace cuda

namespace kernels {

template <int Taps, ConvActivation f, class E>
void launch(const Cuda& device, const Chunk& chunk, const CausalConv1dChunk<Taps, f, float, E>& a) {
  if (chunk.segments.empty() || chunk.rows == 0) return;
  cuda::conv_by_runs<32>(device, chunk, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
