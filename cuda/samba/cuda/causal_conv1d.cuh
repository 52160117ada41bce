#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/causal_conv1d.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// Rows of a segment that a block of threads takes at once.
inline constexpr int conv_rows = 32;

/// Eight neighbouring numbers in 16 bytes, or one.
template <int P, class E>
struct ConvColumns {
  __device__ static void load(const E* from, float (&x)[P]) {
    if constexpr (P == 8 && sizeof(E) == 2) {
      const uint4 all = *reinterpret_cast<const uint4*>(from);
      const unsigned pairs[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[2 * i] = __uint_as_float(pairs[i] << 16);
        x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
      }
    } else {
#pragma unroll
      for (int i = 0; i < P; ++i) x[i] = number(from[i]);
    }
  }
  __device__ static void store(E* to, const float (&x)[P]) {
    if constexpr (P == 8 && sizeof(E) == 2) {
      __align__(16) E all[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) cuda::store(all + i, x[i]);
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(all);
    } else {
#pragma unroll
      for (int i = 0; i < P; ++i) cuda::store(to + i, x[i]);
    }
  }
};

/// For activations in bf16 to more than their digits.
template <class E>
__device__ float conv_silu(float x) {
  return sizeof(E) == 2 ? __fdividef(x, 1.f + __expf(-x)) : silu(x);
}

/// A thread computes P channels of conv_rows rows, counted through the segments as blockIdx.y; the
/// values before its first row are those of earlier rows, or of the state. 4 bytes and an exponential
/// for each number.
template <int Taps, bool Silu, int P, class E>
__global__ void __launch_bounds__(128)
    causal_conv1d(const Segment* segments, int n_segments, kernels::CausalConv1dArgs<float, E> a,
                  ArrayData<float> states) {
  start();
  int number_of = static_cast<int>(blockIdx.y), s = 0;
  for (; s < n_segments; ++s) {
    const auto pieces = static_cast<int>((segments[s].rows + conv_rows - 1) / conv_rows);
    if (number_of < pieces) break;
    number_of -= pieces;
  }
  const std::int64_t c = (blockIdx.x * std::int64_t{128} + threadIdx.x) * P;
  if (s == n_segments || c >= a.channels) return;
  const Segment segment = segments[s];
  const std::int64_t first = std::int64_t{number_of} * conv_rows,
                     end = first + conv_rows < segment.rows ? first + conv_rows : segment.rows;
  const float* const past = of(states, segment.state) + c;
  const E* x = a.x + segment.first_row * a.x_stride + c;
  E* y = a.y + segment.first_row * a.y_stride + c;

  float window[Taps][P], weight[Taps][P], bias[P];
#pragma unroll
  for (int j = 0; j < Taps; ++j)
#pragma unroll
    for (int p = 0; p < P; ++p) weight[j][p] = a.weight[j * a.channels + c + p];
#pragma unroll
  for (int p = 0; p < P; ++p) bias[p] = a.bias[c + p];
#pragma unroll
  for (int j = 0; j < Taps - 1; ++j) {
    const std::int64_t t = first - (Taps - 1) + j;
    if (t >= 0)
      ConvColumns<P, E>::load(x + t * a.x_stride, window[j]);
    else
#pragma unroll
      for (int p = 0; p < P; ++p) window[j][p] = past[(Taps - 1 + t) * a.channels + p];
  }
#pragma unroll 4
  for (std::int64_t t = first; t < end; ++t) {
    ConvColumns<P, E>::load(x + t * a.x_stride, window[Taps - 1]);
    float sum[P];
#pragma unroll
    for (int p = 0; p < P; ++p) {
      sum[p] = bias[p];
#pragma unroll
      for (int j = 0; j < Taps; ++j) sum[p] = fmaf(weight[j][p], window[j][p], sum[p]);
      if constexpr (Silu) sum[p] = conv_silu<E>(sum[p]);
#pragma unroll
      for (int j = 0; j < Taps - 1; ++j) window[j][p] = window[j + 1][p];
    }
    ConvColumns<P, E>::store(y + t * a.y_stride, sum);
  }
}

/// The state after the segment: its last Taps - 1 values. Another kernel, as the first rows read it.
template <int Taps, class E>
__global__ void update_past(const Segment* segments, kernels::CausalConv1dArgs<float, E> a,
                            ArrayData<float> states) {
  start();
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  float* const past = of(states, segment.state) + c;
  const E* const x = a.x + segment.first_row * a.x_stride + c;
  for (std::int64_t j = 0; j < Taps - 1; ++j) {
    const std::int64_t t = segment.rows - (Taps - 1) + j;  // before it: moved up from the state
    past[j * a.channels] = t >= 0 ? number(x[t * a.x_stride]) : past[(Taps - 1 + t) * a.channels];
  }
}

/// One thread per channel of a segment, state included; it loops over the rows. The same numbers.
template <int Taps, bool Silu, class E>
__global__ void conv_by_rows(const Segment* segments, kernels::CausalConv1dArgs<float, E> a,
                             ArrayData<float> states) {
  start();
  const std::int64_t c = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (c >= a.channels) return;
  const Segment segment = segments[blockIdx.y];
  float* const past = of(states, segment.state) + c;
  float window[Taps], weight[Taps];
#pragma unroll
  for (int j = 0; j < Taps; ++j) weight[j] = a.weight[j * a.channels + c];
#pragma unroll
  for (int j = 0; j < Taps - 1; ++j) window[j] = past[j * a.channels];
  const float bias = a.bias[c];
  for (std::int64_t t = segment.first_row; t < segment.first_row + segment.rows; ++t) {
    window[Taps - 1] = number(a.x[t * a.x_stride + c]);
    float sum = bias;
#pragma unroll
    for (int j = 0; j < Taps; ++j) sum = fmaf(weight[j], window[j], sum);
    store(a.y + t * a.y_stride + c, Silu ? conv_silu<E>(sum) : sum);
#pragma unroll
    for (int j = 0; j < Taps - 1; ++j) window[j] = window[j + 1];
  }
#pragma unroll
  for (int j = 0; j < Taps - 1; ++j) past[j * a.channels] = window[j];
}

}  // namespace cuda

namespace kernels {

template <int Taps, ConvActivation f, class E>
void launch(const Cuda& device, const Chunk& chunk, const CausalConv1dChunk<Taps, f, float, E>& c) {
  if (chunk.segments.empty() || chunk.rows == 0) return;
  using namespace cuda;
  const auto& a = c.args;
  constexpr bool is_silu = f == ConvActivation::silu;
  const auto n_segments = static_cast<unsigned>(chunk.segments.size());
  const dim3 by_segment(blocks(a.channels, 128), n_segments);
  if (chunk.rows <= n_segments) {  // a step of each
    launch_kernel(device, "causal_conv1d", conv_by_rows<Taps, is_silu, E>, by_segment, 128, 0,
                  chunk.segments.data(), a, c.past);
    return;
  }
  const unsigned pieces = blocks(chunk.rows, conv_rows) + n_segments - 1;
  const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
  const bool wide = sizeof(E) == 2 && (a.channels | a.x_stride | a.y_stride) % 8 == 0 &&
                    (address(a.x) | address(a.y)) % 16 == 0;
  const auto run = [&]<int P>(std::integral_constant<int, P>) {
    launch_kernel(device, "causal_conv1d", cuda::causal_conv1d<Taps, is_silu, P, E>,
                  dim3(blocks(a.channels, 128 * P), pieces), 128, 0, chunk.segments.data(),
                  static_cast<int>(n_segments), a, c.past);
  };
  if (wide)
    run(std::integral_constant<int, 8>{});
  else
    run(std::integral_constant<int, 1>{});
  launch_kernel(device, "update_past", update_past<Taps, E>, by_segment, 128, 0,
                chunk.segments.data(), a, c.past);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
