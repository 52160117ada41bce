#pragma once
#include <samba/kernels/reference/elementwise.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's part of a selective scan. Strides are in elements from token to token.
template <class R>
struct SelectiveScanArgs {
  const R* A;        ///< (d_state, channels), negative
  const R* D;        ///< (channels)
  const R* dt_bias;  ///< (channels)
  const R* dt;       ///< (n_rows, channels), before bias and softplus
  std::int64_t dt_stride;
  const R* B;  ///< (n_rows, d_state)
  const R* C;  ///< (n_rows, d_state), with the stride of B
  std::int64_t BC_stride;
  const R* x;  ///< (n_rows, channels)
  std::int64_t x_stride;
  const R* z;  ///< (n_rows, channels)
  std::int64_t z_stride;
  R* h;  ///< (d_state, channels), the carried state; updated
  R* y;  ///< (n_rows, channels)
  std::int64_t y_stride;
  std::int64_t n_rows, channels;
};

namespace reference {

/// The recurrence of Mamba-1 (Gu & Dao 2023, section 3.2, with the Euler step for B), for the
/// channels of the range:
///   delta = softplus(dt + dt_bias)    h = exp(delta A) h + delta B x    y = (C h + D x) silu(z)
template <int N, class R>
void selective_scan(const SelectiveScanArgs<R>& a, Range channels) {
  for (std::int64_t c = channels.begin; c < channels.end; ++c)
    for (std::int64_t t = 0; t < a.n_rows; ++t) {
      const R delta = softplus(a.dt[t * a.dt_stride + c] + a.dt_bias[c]);
      const R x = a.x[t * a.x_stride + c];
      R y = a.D[c] * x;
      for (int n = 0; n < N; ++n) {
        R& h = a.h[n * a.channels + c];
        h = std::exp(delta * a.A[n * a.channels + c]) * h + delta * x * a.B[t * a.BC_stride + n];
        y += a.C[t * a.BC_stride + n] * h;
      }
      a.y[t * a.y_stride + c] = y * silu(a.z[t * a.z_stride + c]);
    }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
