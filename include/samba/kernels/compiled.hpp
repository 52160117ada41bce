#pragma once
/// \file
/// The kernels of the library `samba::compiled`. It contains those of kernels/simd once per
/// instruction set and uses the best set that the processor supports. Programs that link it include
/// these declarations instead of the headers in simd/, which document them, and need neither -march
/// nor xsimd.
#include <samba/kernels/compiled/sizes.hpp>
#include <samba/kernels/reference/attention.hpp>
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/reference/cross_entropy.hpp>
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/reference/layernorm.hpp>
#include <samba/kernels/reference/matmul.hpp>
#include <samba/kernels/reference/rg_lru.hpp>
#include <samba/kernels/reference/rmsnorm.hpp>
#include <samba/kernels/reference/rope.hpp>
#include <samba/kernels/reference/selective_scan.hpp>

#include <cstddef>

namespace samba::inline SAMBA_TARGET::kernels {

/// Defined by the library for T = float, bf16 and (forward only) int8 and q4, for KV = float and bf16,
/// and for the sizes in compiled/sizes.hpp.
namespace compiled {

template <class T>
void matmul(const MatmulArgs<T>& a, Range panels);
template <class T>
void matmul_backward_input(const MatmulBackwardArgs<T>& a, Range panels);
template <class T>
void matmul_backward_weight(const MatmulBackwardArgs<T>& a, Range outputs);

template <class KV>
void attention(const AttentionArgs<float, KV>& a, Range heads, Range rows, std::byte* scratch);
template <class KV>
void attention_backward(const AttentionBackwardArgs<float, KV>& b, std::int64_t head,
                        const TileTeam& team, float* scratch);

template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels);
template <int N>
void selective_scan_backward(const SelectiveScanBackwardArgs<float>& b, Range channels, float* kept,
                             float* piece);

template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels);
template <int Taps, bool Silu>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<float>& b, Range channels);

void rg_lru(const RgLruArgs<float>& a, Range channels);
void rg_lru_backward(const RgLruBackwardArgs<float>& b, Range channels);

void silu_mul(const float* gate, const float* up, Range columns, float* out);
void gelu_mul(const float* gate, const float* up, Range columns, Gelu form, float* out);
void gelu_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                       Gelu form, float* dgate, float* dup);
void silu_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                       float* dgate, float* dup);
void sigmoid_mul(const float* gate, const float* up, Range columns, float* out);
void sigmoid_mul_backward(const float* gate, const float* up, const float* dout, Range columns,
                          float* dgate, float* dup);
void soft_cap(float cap, Range columns, float* x);
void soft_cap_backward(float cap, const float* x, Range columns, float* dx);
void add(const float* y, Range columns, float* x);
void add_scaled(const float* y, float factor, Range columns, float* x);

float rms_inverse(const float* x, float eps, std::int64_t n);
void rmsnorm(const float* x, const float* weight, float eps, std::int64_t n, float* out);
void rmsnorm_backward(const float* x, const float* weight, float s, std::int64_t n, const float* dy,
                      float* dx);
void rmsnorm_backward_weight(const float* x, float s, const float* dy, Range columns,
                             float* dweight);

RowStatistics<float> row_statistics(const float* x, float eps, std::int64_t n);
void layernorm(const float* x, const float* weight, const float* bias, float eps, std::int64_t n,
               float* out);
void layernorm_backward(const float* x, const float* weight, RowStatistics<float> s, std::int64_t n,
                        const float* dy, float* dx);
void layernorm_backward_weight(const float* x, RowStatistics<float> s, const float* dy,
                               Range columns, float* dweight, float* dbias);

void rope(const float* cos, const float* sin, int half, float* head);
void rope_backward(const float* cos, const float* sin, int half, float* head);

float cross_entropy(float* logits, std::int64_t n, std::int64_t target, float scale);

}  // namespace compiled

namespace simd {

using compiled::add;
using compiled::add_scaled;
using compiled::attention;
using compiled::attention_backward;
using compiled::cross_entropy;
using compiled::gelu_mul;
using compiled::gelu_mul_backward;
using compiled::layernorm;
using compiled::layernorm_backward;
using compiled::layernorm_backward_weight;
using compiled::matmul;
using compiled::matmul_backward_input;
using compiled::matmul_backward_weight;
using compiled::rg_lru;
using compiled::rg_lru_backward;
using compiled::rms_inverse;
using compiled::rmsnorm;
using compiled::rmsnorm_backward;
using compiled::rmsnorm_backward_weight;
using compiled::rope;
using compiled::rope_backward;
using compiled::row_statistics;
using compiled::sigmoid_mul;
using compiled::sigmoid_mul_backward;
using compiled::silu_mul;
using compiled::silu_mul_backward;
using compiled::soft_cap;
using compiled::soft_cap_backward;

/// Stops the compilation for a size that the library does not have.
template <int N>
constexpr void check_d_state() {
  static_assert(compiled::contains(compiled::DStates{}, N),
                "samba::compiled has the scan for d_state " SAMBA_TEXT(
                    SAMBA_COMPILED_D_STATES) "; for others use samba::samba and samba::native");
}
template <int Taps>
constexpr void check_d_conv() {
  static_assert(compiled::contains(compiled::DConvs{}, Taps),
                "samba::compiled has the convolution for d_conv " SAMBA_TEXT(
                    SAMBA_COMPILED_D_CONVS) "; for others use samba::samba and samba::native");
}

template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels) {
  check_d_state<N>();
  compiled::selective_scan<N>(a, channels);
}
template <int N>
void selective_scan_backward(const SelectiveScanBackwardArgs<float>& b, Range channels, float* kept,
                             float* piece) {
  check_d_state<N>();
  compiled::selective_scan_backward<N>(b, channels, kept, piece);
}

template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  check_d_conv<Taps>();
  compiled::causal_conv1d<Taps, Silu>(a, channels);
}
template <int Taps, bool Silu>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<float>& b, Range channels) {
  check_d_conv<Taps>();
  compiled::causal_conv1d_backward<Taps, Silu>(b, channels);
}

}  // namespace simd
}  // namespace samba::inline SAMBA_TARGET::kernels
