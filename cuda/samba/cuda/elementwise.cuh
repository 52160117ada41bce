#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/elementwise.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per element; blockIdx.x is the row.
template <class R, class E>
__global__ void add(kernels::AddArgs<R, E> a) {
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  R* const to = a.to + blockIdx.x * a.to_stride + i;
  store(to, number(*to) + a.factor * number(a.term[blockIdx.x * a.term_stride + i]));
}

}  // namespace cuda

namespace kernels {

template <class R, class E>
void launch(const Cuda& device, const Chunk&, const AddArgs<R, E>& a) {
  if (a.rows == 0) return;
  const dim3 grid(static_cast<unsigned>(a.rows), cuda::blocks(a.columns, 256));
  cuda::add<<<grid, 256, 0, device.stream>>>(a);
  cuda::check_launch("add");
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
