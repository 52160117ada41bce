#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/causal_conv1d.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per channel of a segment; it loops over the segment's rows.
template <int Taps, bool Silu, class E>
__global__ void causal_conv1d(const Segment* segments, kernels::CausalConv1dArgs<float, E> a,
                              ArrayData<float> states) {
  start();
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  float* const past = of(states, segment.state);
  float window[Taps], weight[Taps];
  for (int j = 0; j < Taps - 1; ++j) window[j] = past[j * a.channels + c];
  for (int j = 0; j < Taps; ++j) weight[j] = a.weight[j * a.channels + c];
  const float bias = a.bias[c];
  const E* x = a.x + segment.first_row * a.x_stride + c;
  E* y = a.y + segment.first_row * a.y_stride + c;
  for (std::int64_t t = 0; t < segment.rows; ++t, x += a.x_stride, y += a.y_stride) {
    window[Taps - 1] = number(*x);
    float sum = bias;
    for (int j = 0; j < Taps; ++j) sum += weight[j] * window[j];
    store(y, Silu ? silu(sum) : sum);
    for (int j = 0; j < Taps - 1; ++j) window[j] = window[j + 1];
  }
  for (int j = 0; j < Taps - 1; ++j) past[j * a.channels + c] = window[j];
}

}  // namespace cuda

namespace kernels {

template <int Taps, ConvActivation f, class E>
void launch(const Cuda& device, const Chunk& chunk, const CausalConv1dChunk<Taps, f, float, E>& a) {
  if (chunk.segments.empty()) return;
  const dim3 grid(cuda::blocks(a.args.channels, 128), static_cast<unsigned>(chunk.segments.size()));
  cuda::launch_kernel(device, "causal_conv1d", cuda::causal_conv1d < Taps,
                      f == ConvActivation::silu, E >, grid, 128, 0, chunk.segments.data(), a.args,
                      ArrayData<float>(a.past));
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
