#pragma once
#include <samba/cuda/device.cuh>
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

/// One block per row of a segment. Exact angles are products in double, whose error is 2^-53 of the
/// angle.
template <int Rotary, class E>
__global__ void rope(const Segment* segments, kernels::HeadRows<E> q, kernels::HeadRows<E> k,
                     int n_kv_heads, int group, int head_dim, Frequencies<Rotary / 2> frequencies) {
  constexpr int half = Rotary / 2;
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
      const double angle = static_cast<double>(position) * frequencies.exact[i];
      cosines[i] = static_cast<float>(cos(angle));
      sines[i] = static_cast<float>(sin(angle));
    }
  }
  __syncthreads();
  const int heads = group + (k.data ? 1 : 0);  // of one key/value head, its key the last
  for (int at = static_cast<int>(threadIdx.x); at < n_kv_heads * heads * half;
       at += static_cast<int>(blockDim.x)) {
    const int i = at % half, head = at / half % heads, g = at / half / heads;
    E* const x = head < group ? q.data + row * q.stride + g * q.head_stride + head * head_dim
                              : k.data + row * k.stride + g * k.head_stride;
    const float a = number(x[i]), b = number(x[i + half]);
    store(x + i, a * cosines[i] - b * sines[i]);
    store(x + i + half, b * cosines[i] + a * sines[i]);
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
  cuda::launch_kernel(device, "rope", cuda::rope<Rotary, E>, grid, 128, 0, chunk.segments.data(),
                      a.q, a.k, a.n_kv_heads, a.group, a.head_dim, frequencies);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
