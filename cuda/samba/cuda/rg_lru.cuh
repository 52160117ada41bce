#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/rg_lru.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per channel of a segment; it loops over the segment's rows.
template <class E>
__global__ void rg_lru(const Segment* segments, kernels::RgLruArgs<float, E> a,
                       ArrayData<float> states) {
  start();
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  if (segment.rows == 0) return;
  float* const state = of(states, segment.state) + c;
  const float param = a.param[c], input_bias = a.input_bias[c],
              recurrent_bias = a.recurrent_bias[c];
  const float rate = softplus(param);
  float h = *state;
  for (std::int64_t i = 0; i < segment.rows; ++i) {
    const std::int64_t t = segment.first_row + i;
    const float input = sigmoid(number(a.input_gate[t * a.input_gate_stride + c]) + input_bias),
                recurrent = sigmoid(number(a.recurrent_gate[t * a.recurrent_gate_stride + c]) +
                                    recurrent_bias);
    const bool restart = segment.position + i == 0;
    const float log_a = -8.f * recurrent * rate;
    const float keep = restart ? 0.f : expf(log_a),
                factor = restart ? 1.f : sqrtf(-expm1f(2.f * log_a));
    h = keep * h + factor * input * number(a.x[t * a.x_stride + c]);
    store(a.y + t * a.y_stride + c, h);
  }
  *state = h;
}

}  // namespace cuda

namespace kernels {

template <class E>
void launch(const Cuda& device, const Chunk& chunk, const RgLruChunk<float, E>& a) {
  if (chunk.segments.empty()) return;
  const dim3 grid(cuda::blocks(a.args.channels, 128), static_cast<unsigned>(chunk.segments.size()));
  cuda::launch_kernel(device, "rg_lru", cuda::rg_lru<E>, grid, 128, 0, chunk.segments.data(),
                      a.args, ArrayData<float>(a.h));
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
