#pragma once
#include <samba/kernels/reference/selective_scan.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// A vector of channels at a time; its N states stay in registers over all tokens. exp(delta A) is
/// 2^(delta A log2(e)).
template <int N>
void selective_scan(const SelectiveScanArgs<float>& a, Range channels) {
  for_each_vec(channels, [&](std::int64_t c, std::int64_t m) {
    vec A[N], h[N];
    for (int n = 0; n < N; ++n) {
      A[n] = load_part(a.A + n * a.channels + c, m) * vec(1.44269504f);
      h[n] = load_part(a.h + n * a.channels + c, m);
    }
    const vec D = load_part(a.D + c, m), dt_bias = load_part(a.dt_bias + c, m);
    for (std::int64_t t = 0; t < a.n_rows; ++t) {
      prefetch_row(a.x + c, t, a.n_rows, a.x_stride);
      prefetch_row(a.dt + c, t, a.n_rows, a.dt_stride);
      prefetch_row(a.z + c, t, a.n_rows, a.z_stride);
      const float* B = a.B + t * a.BC_stride;
      const float* C = a.C + t * a.BC_stride;
      const vec x = load_part(a.x + t * a.x_stride + c, m);
      const vec delta = softplus(load_part(a.dt + t * a.dt_stride + c, m) + dt_bias);
      const vec delta_x = delta * x;
      vec y = D * x;
      const auto update = [&](int n) __attribute__((always_inline)) {
        h[n] = fma(exp2_below(delta * A[n]), h[n], delta_x * vec(B[n]));
        y = fma(vec(C[n]), h[n], y);
      };
      if constexpr (N <= lanes)
        unroll<N>(update);
      else
        for (int n = 0; n < N; ++n) update(n);
      store_part(a.y + t * a.y_stride + c, y * silu(load_part(a.z + t * a.z_stride + c, m)), m);
    }
    for (int n = 0; n < N; ++n) store_part(a.h + n * a.channels + c, h[n], m);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
