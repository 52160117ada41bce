#pragma once
#include <samba/cuda/device.cuh>
#include <samba/kernels/elementwise.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

/// One thread per element; blockIdx.x is the row.
template <class R, class E>
__global__ void add(kernels::AddArgs<R, E> a) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  R* const to = a.to + blockIdx.x * a.to_stride + i;
  store(to, number(*to) + a.factor * number(a.term[blockIdx.x * a.term_stride + i]));
}

/// to = factor * from; zeros for a factor of 0, whatever `from` is.
template <class R, class E>
__global__ void copy(kernels::CopyArgs<R, E> a) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  store(a.to + blockIdx.x * a.to_stride + i,
        a.factor == 0 ? 0.f : a.factor * number(a.from[blockIdx.x * a.from_stride + i]));
}

/// out = f(gate) * up.
template <class E, class F>
__global__ void multiply(kernels::SiluMulArgs<E> a, F f) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  const float gate = number(a.gate[blockIdx.x * a.gate_stride + i]),
              up = number(a.up[blockIdx.x * a.up_stride + i]);
  store(a.out + blockIdx.x * a.out_stride + i, f(gate) * up);
}
struct SiluOf {
  __device__ float operator()(float x) const { return silu(x); }
};
struct SigmoidOf {
  __device__ float operator()(float x) const { return sigmoid(x); }
};
struct GeluOf {
  kernels::Gelu form;
  __device__ float operator()(float x) const {
    if (form == kernels::Gelu::exact) return x * erfcf(-x * 0.70710678f) / 2;
    return x / (1.f + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
  }
};

/// x = cap * tanh(x / cap).
template <class R>
__global__ void soft_cap(kernels::SoftCapArgs<R> a) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= a.columns) return;
  R* const x = a.x + blockIdx.x * a.x_stride + i;
  store(x, a.cap * tanhf(number(*x) / a.cap));
}

/// The grid of these kernels.
inline dim3 by_elements(std::int64_t rows, std::int64_t columns) {
  return dim3(static_cast<unsigned>(rows), blocks(columns, 256));
}

}  // namespace cuda

namespace kernels {

namespace detail {

template <class E, class F>
void launch_multiply(const Cuda& device, const SiluMulArgs<E>& a, F f, const char* name) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, name, cuda::multiply<E, F>, cuda::by_elements(a.rows, a.columns), 256,
                      0, a, f);
}

}  // namespace detail

template <class E>
void launch(const Cuda& device, const Chunk&, const SiluMulArgs<E>& a) {
  detail::launch_multiply(device, a, cuda::SiluOf{}, "silu_mul");
}
template <class E>
void launch(const Cuda& device, const Chunk&, const SigmoidMulArgs<E>& a) {
  detail::launch_multiply<E>(device, a, cuda::SigmoidOf{}, "sigmoid_mul");
}
template <class E>
void launch(const Cuda& device, const Chunk&, const GeluMulArgs<E>& a) {
  detail::launch_multiply<E>(device, a, cuda::GeluOf{a.form}, "gelu_mul");
}

template <class R>
void launch(const Cuda& device, const Chunk&, const SoftCapArgs<R>& a) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, "soft_cap", cuda::soft_cap<R>, cuda::by_elements(a.rows, a.columns),
                      256, 0, a);
}

template <class R, class E>
void launch(const Cuda& device, const Chunk&, const CopyArgs<R, E>& a) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, "copy", cuda::copy<R, E>, cuda::by_elements(a.rows, a.columns), 256,
                      0, a);
}

template <class R, class E>
void launch(const Cuda& device, const Chunk&, const AddArgs<R, E>& a) {
  if (a.rows == 0) return;
  cuda::launch_kernel(device, "add", cuda::add<R, E>, cuda::by_elements(a.rows, a.columns), 256, 0,
                      a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
