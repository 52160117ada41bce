#pragma once
#include <samba/cuda/device.cuh>
#include <samba/cuda/matmul_few_rows.cuh>
#include <samba/kernels/matmul.hpp>

namespace samba::inline SAMBA_TARGET {

namespace cuda {

template <class T>
inline constexpr cudaDataType_t data_type = CUDA_R_32F;
template <>
inline constexpr cudaDataType_t data_type<bf16> = CUDA_R_16BF;

/// A matrix for cuBLASLt: column major, with columns `leading` elements apart.
class Layout2d {
 public:
  Layout2d(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t leading) {
    check_call(cublasLtMatrixLayoutCreate(&layout_, type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), leading),
               "cublasLtMatrixLayoutCreate");
  }
  ~Layout2d() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout2d(const Layout2d&) = delete;
  Layout2d& operator=(const Layout2d&) = delete;
  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

/// Adds a float bias to every row.
template <class E>
__global__ void add_bias(const float* bias, E* out, std::int64_t stride, std::int64_t n) {
  start();
  const std::int64_t i = blockIdx.y * std::int64_t{blockDim.x} + threadIdx.x;
  E* const to = out + blockIdx.x * stride;
  if (i < n) store(to + i, number(to[i]) + bias[i]);
}

/// A row of one block of a block-diagonal map, whose matrix is (K, N), as in a file. One thread per
/// output; blockIdx.y is the row, blockIdx.z the block.
template <class E>
__global__ void block_matmul(kernels::BlockMatmulArgs<RowMajor<E>, E> all) {
  start();
  const auto& a = all.first;
  const std::int64_t n = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (n >= a.N) return;
  const E* const w = a.w + blockIdx.z * all.w_stride + n;
  const E* const x = a.x + blockIdx.y * a.x_stride + blockIdx.z * a.K;
  float sum = 0;
  for (std::int64_t k = 0; k < a.K; ++k) sum += number(x[k]) * number(w[k * a.N]);
  store(a.out + blockIdx.y * a.out_stride + blockIdx.z * a.N + n, sum);
}

}  // namespace cuda

namespace kernels {

/// matmul by cuBLASLt, which proposes algorithms by the sizes, the best first; its proposals are the
/// same for one version of the library and one GPU model. choice: the number of one of them, at most 15;
/// false if it has fewer.
template <class E, class O>
bool matmul_by_library(const Cuda& device, const MatmulArgs<RowMajor<E>, E, O>& a, int choice = 0) {
  using namespace cuda;
  // In column-major terms: out^T, (N, rows), = w, (N, K), the transpose of what is stored, times
  // x^T, (K, rows).
  constexpr cudaDataType_t type = data_type<E>;
  const Layout2d w(type, a.K, a.N, a.K), x(type, a.K, a.rows, a.x_stride),
      out(data_type<O>, a.N, a.rows, a.out_stride);
  cublasLtMatmulDesc_t description = nullptr;
  check_call(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F),
             "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                 sizeof(transposed));
  cublasLtMatmulPreference_t preference = nullptr;
  check_call(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &device.workspace_bytes, sizeof(device.workspace_bytes));
  // Rows may have any stride, so the alignment is computed from addresses and strides.
  const auto aligned = []<class X>(const X* p, std::int64_t stride) {
    const auto bits =
        reinterpret_cast<std::uintptr_t>(p) | static_cast<std::uintptr_t>(stride) * sizeof(X);
    return static_cast<std::uint32_t>(bits & -bits) > 256
               ? 256u
               : static_cast<std::uint32_t>(bits & -bits);
  };
  const std::uint32_t of_w = aligned(a.w, a.K), of_x = aligned(a.x, a.x_stride),
                      of_out = aligned(a.out, a.out_stride);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const std::uint32_t& value) {
    cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, of_w);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, of_x);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_out);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out);

  cublasLtMatmulHeuristicResult_t found[16];
  int count = 0;
  cublasStatus_t result =
      cublasLtMatmulAlgoGetHeuristic(device.blas, description, w.get(), x.get(), out.get(),
                                     out.get(), preference, choice + 1, found, &count);
  const float one = 1, zero = 0;
  if (result == CUBLAS_STATUS_SUCCESS && count > choice)
    result = cublasLtMatmul(device.blas, description, &one, a.w, w.get(), a.x, x.get(), &zero,
                            a.out, out.get(), a.out, out.get(), &found[choice].algo,
                            device.workspace, device.workspace_bytes, device.stream());
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatmulDescDestroy(description);
  if (count == 0)
    fail({"CUDA: cublasLtMatmul has no algorithm for (", a.rows, ", ", a.K, ") x (", a.K, ", ", a.N,
          ")"});
  check_call(result, "cublasLtMatmul");
  if (count <= choice) return false;
  if (a.bias) {
    launch_kernel(device, "add_bias", add_bias<O>,
                  dim3(static_cast<unsigned>(a.rows), blocks(a.N, 256)), 256, 0, a.bias, a.out,
                  a.out_stride, a.N);
  }
  return true;
}

/// A product that was deferred, without what follows.
inline void launch_now(const Cuda& device, const cuda::NarrowProduct& a) {
  cuda::matmul_few_rows(device, a, cuda::few_rows_plan(a.N, a.K));
}

/// For row-major weights. Sums are float. At most cuda::few_rows rows in bf16 have kernels of their
/// own, some of which also do the operation that comes next.
template <class E, class O>
void launch(const Cuda& device, const Chunk&, const MatmulArgs<RowMajor<E>, E, O>& a) {
  if (a.rows == 0) return;
  if constexpr (std::is_same_v<E, bf16>)
    if (cuda::has_few_rows(a)) {
      if constexpr (std::is_same_v<O, bf16>)
        return cuda::defer_product(device, a);
      else
        return cuda::matmul_few_rows(device, a, cuda::few_rows_plan(a.N, a.K));
    }
  matmul_by_library(device, a);
}

template <class E>
void launch(const Cuda& device, const Chunk&, const BlockMatmulArgs<RowMajor<E>, E>& a) {
  if (a.first.rows == 0) return;
  const dim3 grid(cuda::blocks(a.first.N, 128), static_cast<unsigned>(a.first.rows),
                  static_cast<unsigned>(a.blocks));
  cuda::launch_kernel(device, "block_matmul", cuda::block_matmul<E>, grid, 128, 0, a);
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
