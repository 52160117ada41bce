#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/layernorm.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One block of 256 threads per row. The variance is computed around the mean.
template <class R, class E>
__global__ void layernorm(kernels::LayerNormArgs<R, E> a) {
  __shared__ float partial[8];
  start();
  const R* const x = a.x + blockIdx.x * a.x_stride;
  float sum = 0, squares = 0;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += 256) sum += number(x[i]);
  const float mean = block_sum<256>(sum, partial) / static_cast<float>(a.columns);
  for (std::int64_t i = threadIdx.x; i < a.columns; i += 256) {
    const float centred = number(x[i]) - mean;
    squares += centred * centred;
  }
  const float variance = block_sum<256>(squares, partial) / static_cast<float>(a.columns);
  const float scale = 1.f / sqrtf(variance + a.eps);
  E* const out = a.out + blockIdx.x * a.out_stride;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += 256)
    store(out + i, (number(x[i]) - mean) * scale * a.weight[i] + (a.bias ? a.bias[i] : 0.f));
}

}  // namespace cuda

namespace kernels {

template <class R, class E>
void launch(const Cuda& device, const Chunk&, const LayerNormArgs<R, E>& a) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, "layernorm", cuda::layernorm<R, E>, static_cast<unsigned>(a.rows),
                      256, 0, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
