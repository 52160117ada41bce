#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per channel of a segment; it loops over the segment's rows with its N states in
/// registers.
template <int N, class E>
__global__ void selective_scan(const Segment* segments, kernels::SelectiveScanArgs<float, E> a,
                               ArrayData<float> states) {
  start();
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  float* const state = of(states, segment.state);
  float A[N], h[N];
  for (int n = 0; n < N; ++n) {
    A[n] = a.A[n * a.channels + c];
    h[n] = state[n * a.channels + c];
  }
  const float D = a.D[c], dt_bias = a.dt_bias[c];
  for (std::int64_t t = segment.first_row; t < segment.first_row + segment.rows; ++t) {
    const float raw = number(a.dt[t * a.dt_stride + c]) + dt_bias,
                x = number(a.x[t * a.x_stride + c]);
    const float delta = (raw > 0 ? raw : 0) + log1pf(expf(-fabsf(raw)));
    const E *const B = a.B + t * a.B_stride, *const C = a.C + t * a.C_stride;
    float y = D * x;
    for (int n = 0; n < N; ++n) {
      h[n] = expf(delta * A[n]) * h[n] + delta * x * number(B[n]);
      y += number(C[n]) * h[n];
    }
    if (a.before_gate) store(a.before_gate + t * a.before_gate_stride + c, y);
    store(a.y + t * a.y_stride + c, a.z ? y * silu(number(a.z[t * a.z_stride + c])) : y);
  }
  for (int n = 0; n < N; ++n) state[n * a.channels + c] = h[n];
}

}  // namespace cuda

namespace kernels {

template <int N, class E>
void launch(const Cuda& device, const Chunk& chunk, const SelectiveScanChunk<N, float, E>& a) {
  if (chunk.segments.empty()) return;
  const dim3 grid(cuda::blocks(a.args.channels, 128), static_cast<unsigned>(chunk.segments.size()));
  cuda::launch_kernel(device, "selective_scan", cuda::selective_scan<N, E>, grid, 128, 0,
                      chunk.segments.data(), a.args, ArrayData<float>(a.h));
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
