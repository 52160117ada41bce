#pragma once
#include <samba/cuda/elementwise.cuh>
#include <samba/kernels/rmsnorm.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

inline constexpr int rmsnorm_threads = 256;
/// The widest rows of `rmsnorm`.
inline constexpr std::int64_t rmsnorm_columns = 4 * elementwise_width * rmsnorm_threads;

/// One block per row. A thread has Packs times 8 numbers, which it keeps, so that x is read once.
/// AndAdd: first x += factor * term, in float, which is stored. Bytes of a row in bf16 with x in float:
/// 6 N; with the sum 12 N.
template <bool Aligned, int Packs, bool AndAdd, class R, class E, class X>
__global__ void __launch_bounds__(rmsnorm_threads)
    rmsnorm(kernels::RmsNormArgs<R, E, X> a, kernels::AddArgs<X, E> sum) {
  constexpr int W = elementwise_width;
  __shared__ float partial[rmsnorm_threads / 32];
  start();
  const X* const x = a.x + blockIdx.x * a.x_stride;
  Packed<X, W> values[Packs];
  Packed<E, W> terms[AndAdd ? Packs : 1];
  const auto first = [](int p) {
    return (std::int64_t{p} * rmsnorm_threads + static_cast<int>(threadIdx.x)) * W;
  };
#pragma unroll
  for (int p = 0; p < Packs; ++p)
    if (const std::int64_t count = a.columns - first(p); count > 0) {
      values[p] = load_packed<Aligned, W>(x + first(p), count);
      if constexpr (AndAdd)
        terms[p] =
            load_packed<Aligned, W>(sum.term + blockIdx.x * sum.term_stride + first(p), count);
    }
  float numbers[Packs][W] = {}, squares = 0;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const std::int64_t count = a.columns - first(p);
    if (count <= 0) continue;
#pragma unroll
    for (int u = 0; u < W; ++u) {
      numbers[p][u] = values[p][u];
      if constexpr (AndAdd) numbers[p][u] += sum.factor * terms[p][u];
      squares = u < count ? fmaf(numbers[p][u], numbers[p][u], squares) : squares;
    }
    if constexpr (AndAdd)
      store_packed<Aligned>(sum.to + blockIdx.x * sum.to_stride + first(p), numbers[p], count);
  }
  squares = block_sum<rmsnorm_threads>(squares, partial);
  const float scale = 1.f / sqrtf(squares / static_cast<float>(a.columns) + a.eps);
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const std::int64_t count = a.columns - first(p);
    if (count <= 0) continue;
    const auto weight = load_packed<Aligned, W>(a.weight + first(p), count);
    float out[W];
#pragma unroll
    for (int u = 0; u < W; ++u) out[u] = numbers[p][u] * scale * weight[u];
    store_packed<Aligned>(a.out + blockIdx.x * a.out_stride + first(p), out, count);
  }
}

/// For rows that are too wide for that.
template <class R, class E, class X>
__global__ void rmsnorm_wide(kernels::RmsNormArgs<R, E, X> a) {
  __shared__ float partial[rmsnorm_threads / 32];
  start();
  const X* const x = a.x + blockIdx.x * a.x_stride;
  float squares = 0;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += rmsnorm_threads)
    squares = fmaf(number(x[i]), number(x[i]), squares);
  squares = block_sum<rmsnorm_threads>(squares, partial);
  const float scale = 1.f / sqrtf(squares / static_cast<float>(a.columns) + a.eps);
  E* const out = a.out + blockIdx.x * a.out_stride;
  for (std::int64_t i = threadIdx.x; i < a.columns; i += rmsnorm_threads)
    store(out + i, number(x[i]) * scale * a.weight[i]);
}

/// Launches rmsnorm, with the sum or, where `sum` is null, without; false if rows are too wide.
template <class R, class E, class X>
bool launch_rmsnorm(const Cuda& device, const kernels::RmsNormArgs<R, E, X>& a,
                    const kernels::AddArgs<X, E>* sum) {
  constexpr std::int64_t each = elementwise_width * rmsnorm_threads;
  if (a.columns > rmsnorm_columns) return false;
  const bool aligned = elements_aligned(a.weight, 0, a.columns) &&
                       elements_aligned(a.x, a.x_stride, a.columns) &&
                       elements_aligned(a.out, a.out_stride, a.columns) &&
                       (!sum || elements_aligned(sum->term, sum->term_stride, a.columns));
  const auto run = [&]<int Packs, bool AndAdd>() {
    launch_kernel(
        device, "rmsnorm",
        aligned ? rmsnorm<true, Packs, AndAdd, R, E, X> : rmsnorm<false, Packs, AndAdd, R, E, X>,
        static_cast<unsigned>(a.rows), rmsnorm_threads, 0, a,
        sum ? *sum : kernels::AddArgs<X, E>{});
  };
  const auto by_width = [&]<bool AndAdd>() {
    if (a.columns <= each)
      run.template operator()<1, AndAdd>();
    else if (a.columns <= 2 * each)
      run.template operator()<2, AndAdd>();
    else
      run.template operator()<4, AndAdd>();
  };
  if constexpr (std::is_same_v<X, float>)
    if (sum) {
      by_width.template operator()<true>();
      return true;
    }
  by_width.template operator()<false>();
  return true;
}

}  // namespace cuda

namespace kernels {

/// The sum before it, if that was deferred and makes x, is done by the same kernel.
template <class R, class E, class X>
void launch(const Cuda& device, const Chunk&, const RmsNormArgs<R, E, X>& a) {
  if (a.rows == 0) return;
  const AddArgs<X, E>* const waits = cuda::deferred<AddArgs<X, E>>(device, 0, 1);
  AddArgs<X, E> sum{};
  const bool both = std::is_same_v<X, float> && waits && waits->to == a.x &&
                    waits->to_stride == a.x_stride && waits->rows == a.rows &&
                    waits->columns == a.columns && a.columns <= cuda::rmsnorm_columns;
  if (both) {
    sum = *waits;
    cuda::take_deferred(device);
  }
  if (!cuda::launch_rmsnorm(device, a, both ? &sum : nullptr))
    cuda::launch_kernel(device, "rmsnorm", cuda::rmsnorm_wide<R, E, X>,
                        static_cast<unsigned>(a.rows), cuda::rmsnorm_threads, 0, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
