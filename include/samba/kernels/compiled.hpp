#pragma once
/// \file
/// The kernels of the library `samba::compiled`, in the place of kernels/simd: it holds them once
/// per instruction set and takes the best that the processor has. Programs that link it get these
/// declarations instead of the headers in simd/, which say what each does; they need no -march and
/// no xsimd.
#include <samba/kernels/reference/attention.hpp>
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/reference/cross_entropy.hpp>
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/reference/layernorm.hpp>
#include <samba/kernels/reference/matmul.hpp>
#include <samba/kernels/reference/rmsnorm.hpp>
#include <samba/kernels/reference/rope.hpp>
#include <samba/kernels/reference/selective_scan.hpp>

#include <cstddef>

namespace samba::inline SAMBA_TARGET::kernels {

/// What the library defines, for T float, bf16 and int8, KV float and bf16, and the sizes below.
namespace compiled {

template <class T>
void matmul(const MatmulArgs<T>& a, Range panels);
template <class KV>
void attention(const AttentionArgs<float, KV>& a, Range heads, Range rows, std::byte* scratch);
template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels);
template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels);
void silu_mul(const float* gate, const float* up, Range columns, float* out);
void add(const float* y, Range columns, float* x);
void rmsnorm(const float* x, const float* weight, float eps, std::int64_t n, float* out);
void rope(const float* cos, const float* sin, int half, float* head);

}  // namespace compiled

namespace simd {

using compiled::add;
using compiled::attention;
using compiled::matmul;
using compiled::rmsnorm;
using compiled::rope;
using compiled::silu_mul;

template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels) {
  static_assert(N == 4 || N == 8 || N == 16 || N == 32 || N == 64 || N == 128,
                "samba::compiled has the scan for d_state 4, 8, 16, 32, 64 and 128; for others use "
                "samba::samba and samba::native");
  compiled::selective_scan<N>(a, channels);
}

template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  static_assert(2 <= Taps && Taps <= 6,
                "samba::compiled has the convolution for d_conv 2 to 6; for others use "
                "samba::samba and samba::native");
  compiled::causal_conv1d<Taps, Silu>(a, channels);
}

// Training is not part of the library: scalar.
using reference::causal_conv1d_backward;
using reference::cross_entropy;
using reference::layernorm;
using reference::layernorm_backward;
using reference::layernorm_backward_weight;
using reference::matmul_backward_input;
using reference::matmul_backward_weight;
using reference::rms_inverse;
using reference::rmsnorm_backward;
using reference::rmsnorm_backward_weight;
using reference::rope_backward;
using reference::row_statistics;
using reference::selective_scan_backward;
using reference::silu_mul_backward;

template <class KV>
void attention_backward(const AttentionBackwardArgs<float, KV>& b, std::int64_t head, float*) {
  reference::attention_backward(b, {head, head + 1});
}

}  // namespace simd
}  // namespace samba::inline SAMBA_TARGET::kernels
