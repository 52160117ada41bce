#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/embedding.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per element; blockIdx.x is the row. A copy of the tokens comes before it, which no kernel
/// overlaps, so it is started as usual.
template <class T, class R>
__global__ void embedding(kernels::EmbeddingArgs<T, Layout::rows, R> a) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  const float value = number(a.table[a.tokens[blockIdx.x] * a.columns + i]);
  store(a.out + blockIdx.x * a.out_stride + i, value * a.scale);
}

}  // namespace cuda

namespace kernels {

template <class T, class R>
void launch(const Cuda& device, const Chunk&, const EmbeddingArgs<T, Layout::rows, R>& a) {
  if (a.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(a.rows), cuda::blocks(a.columns, 256));
  cuda::embedding<<<grid, 256, 0, device.stream()>>>(a);
  cuda::check_launch("embedding");
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
