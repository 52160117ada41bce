#pragma once
#include <samba/cuda/matmul_few_rows.cuh>
#include <samba/cuda/vectors.cuh>
#include <samba/kernels/elementwise.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

// In these kernels blockIdx.x is a row, of which a thread has some neighbouring numbers. Aligned: all
// rows can be read and written that many numbers at a time.
inline constexpr int elementwise_width = 8, elementwise_threads = 256;

/// The first number of this thread in its row.
__device__ inline std::int64_t first_element() {
  return (blockIdx.y * std::int64_t{elementwise_threads} + threadIdx.x) * elementwise_width;
}
/// This thread's numbers of a row, of which `count` exist.
template <bool Aligned, class E>
__device__ auto load_elements(const E* row, std::int64_t i, std::int64_t count) {
  return load_packed<Aligned, elementwise_width>(row + i, count);
}

template <bool Aligned, class R, class E>
__global__ void add(kernels::AddArgs<R, E> a) {
  start();
  const std::int64_t i = first_element(), count = a.columns - i;
  if (count <= 0) return;
  R* const to = a.to + blockIdx.x * a.to_stride;
  const auto term = load_elements<Aligned>(a.term + blockIdx.x * a.term_stride, i, count);
  const auto before = load_elements<Aligned>(to, i, count);
  float sum[elementwise_width];
#pragma unroll
  for (int u = 0; u < elementwise_width; ++u) sum[u] = before[u] + a.factor * term[u];
  store_packed<Aligned>(to + i, sum, count);
}

/// to = factor * from; zeros for a factor of 0, whatever `from` is.
template <bool Aligned, class R, class E>
__global__ void copy(kernels::CopyArgs<R, E> a) {
  start();
  const std::int64_t i = first_element(), count = a.columns - i;
  if (count <= 0) return;
  float out[elementwise_width] = {};
  if (a.factor != 0) {
    const auto from = load_elements<Aligned>(a.from + blockIdx.x * a.from_stride, i, count);
#pragma unroll
    for (int u = 0; u < elementwise_width; ++u) out[u] = a.factor * from[u];
  }
  store_packed<Aligned>(a.to + blockIdx.x * a.to_stride + i, out, count);
}

/// out = f(gate) * up.
template <bool Aligned, class E, class F>
__global__ void multiply(kernels::SiluMulArgs<E> a, F f) {
  start();
  const std::int64_t i = first_element(), count = a.columns - i;
  if (count <= 0) return;
  const auto gate = load_elements<Aligned>(a.gate + blockIdx.x * a.gate_stride, i, count),
             up = load_elements<Aligned>(a.up + blockIdx.x * a.up_stride, i, count);
  float out[elementwise_width];
#pragma unroll
  for (int u = 0; u < elementwise_width; ++u) out[u] = f(gate[u]) * up[u];
  store_packed<Aligned>(a.out + blockIdx.x * a.out_stride + i, out, count);
}
template <class E>
struct SiluOf {
  __device__ float operator()(float x) const { return silu_for<E>(x); }
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
template <bool Aligned, class R>
__global__ void soft_cap(kernels::SoftCapArgs<R> a) {
  start();
  const std::int64_t i = first_element(), count = a.columns - i;
  if (count <= 0) return;
  R* const x = a.x + blockIdx.x * a.x_stride;
  const auto before = load_elements<Aligned>(x, i, count);
  float out[elementwise_width];
#pragma unroll
  for (int u = 0; u < elementwise_width; ++u) out[u] = a.cap * tanhf(before[u] / a.cap);
  store_packed<Aligned>(x + i, out, count);
}

/// Launches one of them: that for aligned rows, or that for any.
template <class Kernel, class... Args>
void launch_elementwise(const Cuda& device, const char* name, bool aligned, Kernel for_aligned,
                        Kernel for_any, std::int64_t rows, std::int64_t columns,
                        const Args&... args) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(rows),
                  blocks(columns, elementwise_width * elementwise_threads));
  launch_kernel(device, name, aligned ? for_aligned : for_any, grid, elementwise_threads, 0,
                args...);
}
/// Whether rows of `columns` numbers can be read and written some at a time.
template <class E>
bool elements_aligned(const E* data, std::int64_t stride, std::int64_t columns) {
  return columns % elementwise_width == 0 && rows_aligned<elementwise_width>(data, stride);
}

}  // namespace cuda

namespace kernels {

namespace detail {

template <class E, class F>
void launch_multiply(const Cuda& device, const SiluMulArgs<E>& a, F f, const char* name) {
  using cuda::elements_aligned;
  if (a.rows > 0 && cuda::gated_products(device, a, f)) return;
  const bool aligned = elements_aligned(a.gate, a.gate_stride, a.columns) &&
                       elements_aligned(a.up, a.up_stride, a.columns) &&
                       elements_aligned(a.out, a.out_stride, a.columns);
  cuda::launch_elementwise(device, name, aligned, cuda::multiply<true, E, F>,
                           cuda::multiply<false, E, F>, a.rows, a.columns, a, f);
}

template <class R, class E>
bool add_aligned(const AddArgs<R, E>& a) {
  return cuda::elements_aligned(a.term, a.term_stride, a.columns) &&
         cuda::elements_aligned(a.to, a.to_stride, a.columns);
}

}  // namespace detail

template <class E>
void launch(const Cuda& device, const Chunk&, const SiluMulArgs<E>& a) {
  detail::launch_multiply(device, a, cuda::SiluOf<E>{}, "silu_mul");
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
  cuda::launch_elementwise(device, "soft_cap", cuda::elements_aligned(a.x, a.x_stride, a.columns),
                           cuda::soft_cap<true, R>, cuda::soft_cap<false, R>, a.rows, a.columns, a);
}

template <class R, class E>
void launch(const Cuda& device, const Chunk&, const CopyArgs<R, E>& a) {
  const bool aligned = cuda::elements_aligned(a.from, a.from_stride, a.columns) &&
                       cuda::elements_aligned(a.to, a.to_stride, a.columns);
  cuda::launch_elementwise(device, "copy", aligned, cuda::copy<true, R, E>, cuda::copy<false, R, E>,
                           a.rows, a.columns, a);
}

/// A sum that was deferred, without what follows.
template <class R, class E>
void launch_now(const Cuda& device, const AddArgs<R, E>& a) {
  cuda::launch_elementwise(device, "add", detail::add_aligned(a), cuda::add<true, R, E>,
                           cuda::add<false, R, E>, a.rows, a.columns, a);
}
/// A product of few rows before it, or a norm of the sum after it, is done by the same kernel.
template <class R, class E>
void launch(const Cuda& device, const Chunk&, const AddArgs<R, E>& a) {
  if (a.rows == 0 || cuda::product_and_sum(device, a)) return;
  cuda::defer(device, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
