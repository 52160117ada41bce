#pragma once
#include <samba/cuda/vectors.cuh>
#include <samba/kernels/rope.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// What angles are computed from; passed by value, so that a captured graph keeps it.
template <int Half>
struct Frequencies {
  double exact[Half];
  float rounded[Half];
  RopeTable kind;
};

/// Cosine and sine of a position times a frequency. The angle is a product in double, whose error is
/// 2^-53 of it; whole turns are taken off in double, and the rest, at most pi, is rounded to float.
__device__ inline float2 turn(double position, double frequency) {
  constexpr double two_pi = 6.283185307179586, rest_of_two_pi = 2.4492935982947064e-16;
  const double angle = position * frequency, turns = rint(angle * (1 / two_pi));
  const float rest = static_cast<float>(fma(-turns, rest_of_two_pi, fma(-turns, two_pi, angle)));
  return {cosf(rest), sinf(rest)};
}

/// One block per row of a segment, a thread for W neighbouring pairs at a time.
template <int W, int Rotary, class E>
__global__ void rope(const Segment* segments, kernels::HeadRows<E> q, kernels::HeadRows<E> k,
                     int n_kv_heads, int group, int head_dim, Frequencies<Rotary / 2> frequencies) {
  constexpr int half = Rotary / 2, packs = half / W;
  __shared__ float cosines[half], sines[half];
  start();
  const Segment segment = segments[blockIdx.y];
  if (blockIdx.x >= segment.rows) return;
  const std::int64_t row = segment.first_row + blockIdx.x, position = segment.position + blockIdx.x;
  for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
    if (frequencies.kind == RopeTable::bfloat16) {
      const float angle = static_cast<float>(position) * frequencies.rounded[i];
      cosines[i] = rounded<bf16>(cosf(angle));
      sines[i] = rounded<bf16>(sinf(angle));
    } else {
      const float2 at = turn(static_cast<double>(position), frequencies.exact[i]);
      cosines[i] = at.x;
      sines[i] = at.y;
    }
  }
  __syncthreads();
  const int heads = group + (k.data ? 1 : 0);  // of one key/value head, its key the last
  for (int at = static_cast<int>(threadIdx.x); at < n_kv_heads * heads * packs;
       at += static_cast<int>(blockDim.x)) {
    const int i = at % packs * W, head = at / packs % heads, g = at / packs / heads;
    E* const x = head < group ? q.data + row * q.stride + g * q.head_stride + head * head_dim
                              : k.data + row * k.stride + g * k.head_stride;
    const auto a = load_packed<(W > 1), W>(x + i, W), b = load_packed<(W > 1), W>(x + i + half, W);
    float low[W], high[W];
#pragma unroll
    for (int u = 0; u < W; ++u) {
      low[u] = a[u] * cosines[i + u] - b[u] * sines[i + u];
      high[u] = b[u] * cosines[i + u] + a[u] * sines[i + u];
    }
    store_packed<(W > 1)>(x + i, low, W);
    store_packed<(W > 1)>(x + i + half, high, W);
  }
}

}  // namespace cuda

namespace kernels {

template <int Rotary, class E>
void launch(const Cuda& device, const Chunk& chunk, const RopeArgs<Rotary, E>& a) {
  if (chunk.segments.empty() || chunk.rows == 0) return;
  constexpr int half = Rotary / 2;
  cuda::Frequencies<half> frequencies{};
  std::copy_n(a.angles->frequencies(), half, frequencies.exact);
  std::copy_n(a.angles->rounded_frequencies(), half, frequencies.rounded);
  frequencies.kind = a.angles->kind();
  const dim3 grid(static_cast<unsigned>(chunk.rows), static_cast<unsigned>(chunk.segments.size()));
  const auto run = [&](auto* kernel) {
    cuda::launch_kernel(device, "rope", kernel, grid, 128, 0, chunk.segments.data(), a.q, a.k,
                        a.n_kv_heads, a.group, a.head_dim, frequencies);
  };
  if constexpr (half % 8 == 0)
    if (a.head_dim % 8 == 0 && cuda::rows_aligned<8>(a.q.data, a.q.stride | a.q.head_stride) &&
        cuda::rows_aligned<8>(a.k.data, a.k.stride | a.k.head_stride))
      return run(&cuda::rope<8, Rotary, E>);
  run(&cuda::rope<1, Rotary, E>);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
