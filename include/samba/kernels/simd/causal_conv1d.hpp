#pragma once
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// A vector of channels at a time: its taps, bias and last inputs stay in registers over all
/// tokens.
template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  for_each_vec(channels, [&](std::int64_t c, std::int64_t n) {
    vec weight[Taps], window[Taps];
    for (int j = 0; j < Taps; ++j) weight[j] = load_part(a.weight + j * a.channels + c, n);
    for (int j = 0; j < Taps - 1; ++j) window[j] = load_part(a.past + j * a.channels + c, n);
    const vec bias = load_part(a.bias + c, n);
    // Constants of their own: a store to y might change what stands in a.
    const float* const x = a.x + c;
    float* const y = a.y + c;
    const std::int64_t n_rows = a.n_rows, x_stride = a.x_stride, y_stride = a.y_stride;
    for (std::int64_t t = 0; t < n_rows; ++t) {
      prefetch_row(x, t, n_rows, x_stride);
      window[Taps - 1] = load_part(x + t * x_stride, n);
      vec sum = bias;
      unroll<Taps>([&](auto j)
                       __attribute__((always_inline)) { sum = fma(weight[j], window[j], sum); });
      store_part(y + t * y_stride, Silu ? silu(sum) : sum, n);
      unroll<Taps - 1>([&](auto j) __attribute__((always_inline)) { window[j] = window[j + 1]; });
    }
    for (int j = 0; j < Taps - 1; ++j) store_part(a.past + j * a.channels + c, window[j], n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
