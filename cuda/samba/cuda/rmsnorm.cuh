#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/rmsnorm.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One block of 256 threads per row.
template <class R, class E, class X>
__global__ void rmsnorm(kernels::RmsNormArgs<R, E, X> a) {
  __shared__ float squares[8];
  start();
  const X* const x = a.x + blockIdx.x * a.x_stride;
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += 256) {
    const float value = number(x[i]);
    sum += value * value;
  }
  sum = block_sum<256>(sum, squares);
  const float scale = 1.f / sqrtf(sum / static_cast<float>(a.columns) + a.eps);
  E* const out = a.out + blockIdx.x * a.out_stride;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += 256)
    store(out + i, number(x[i]) * scale * a.weight[i]);
}

}  // namespace cuda

namespace kernels {

template <class R, class E, class X>
void launch(const Cuda& device, const Chunk&, const RmsNormArgs<R, E, X>& a) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, "rmsnorm", cuda::rmsnorm<R, E, X>, static_cast<unsigned>(a.rows), 256,
                      0, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
