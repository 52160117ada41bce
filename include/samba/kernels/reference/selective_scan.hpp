#pragma once
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// The recurrence of Mamba-1 (Gu & Dao 2023, section 3.2, with the Euler step for B), for a range
/// of channels:
///   delta = softplus(dt + dt_bias)    h = exp(delta A) h + delta B x    y = (C h + D x) silu(z)
/// Without z there is no gate.
template <int N, class R>
void selective_scan(const SelectiveScanArgs<R>& a, Range channels) {
  for (std::int64_t c = channels.begin; c < channels.end; ++c)
    for (std::int64_t t = 0; t < a.rows; ++t) {
      const R delta = softplus(a.dt[t * a.dt_stride + c] + a.dt_bias[c]);
      const R x = a.x[t * a.x_stride + c];
      R y = a.D[c] * x;
      for (int n = 0; n < N; ++n) {
        R& h = a.h[n * a.channels + c];
        h = std::exp(delta * a.A[n * a.channels + c]) * h + delta * x * a.B[t * a.B_stride + n];
        y += a.C[t * a.C_stride + n] * h;
      }
      if (a.before_gate) a.before_gate[t * a.before_gate_stride + c] = y;
      a.y[t * a.y_stride + c] = a.z ? y * silu(a.z[t * a.z_stride + c]) : y;
    }
}

/// Back-propagation through the recurrence, with g the gradient of C h + D x:
///   dh_t = C_t g_t + exp(delta_{t+1} A) dh_{t+1}
///   ddelta = sum_n dh (A exp(delta A) h_{t-1} + B x)    dB = dh delta x    dC = g h
/// States are recomputed, piece by piece. Scratch: kept, (pieces - 1, N), holds the state before
/// each piece but the first; piece, (scan_piece + 1, N), those before and after each of its tokens.
/// The range consists of whole blocks of channels.
template <int N, class R>
void selective_scan_backward(const SelectiveScanBackwardArgs<R>& b, Range channels, R* kept,
                             R* piece) {
  const SelectiveScanArgs<R>& a = b.forward;
  const std::int64_t pieces = (a.rows + scan_piece - 1) / scan_piece;
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    const auto delta_at = [&](std::int64_t t) {
      return softplus(a.dt[t * a.dt_stride + c] + a.dt_bias[c]);
    };
    const auto step = [&](std::int64_t t, const R* before, R* after) {
      const R delta = delta_at(t), x = a.x[t * a.x_stride + c];
      for (int n = 0; n < N; ++n)
        after[n] = std::exp(delta * a.A[n * a.channels + c]) * before[n] +
                   delta * x * a.B[t * a.B_stride + n];
    };
    R h[N], dh[N], dA[N] = {}, dD = 0, ddt_bias = 0;
    for (int n = 0; n < N; ++n) {
      h[n] = a.h[n * a.channels + c];
      dh[n] = b.dh[n * a.channels + c];
    }
    for (std::int64_t t = 0; t < (pieces - 1) * scan_piece; ++t) {
      step(t, h, h);
      if ((t + 1) % scan_piece == 0) std::copy_n(h, N, kept + t / scan_piece * N);
    }
    for (std::int64_t p = pieces - 1; p >= 0; --p) {
      const std::int64_t begin = p * scan_piece, end = (std::min)(begin + scan_piece, a.rows);
      for (int n = 0; n < N; ++n) piece[n] = p ? kept[(p - 1) * N + n] : a.h[n * a.channels + c];
      for (std::int64_t t = begin; t < end; ++t)
        step(t, piece + (t - begin) * N, piece + (t - begin + 1) * N);
      for (std::int64_t t = end - 1; t >= begin; --t) {
        const R *before = piece + (t - begin) * N, *after = before + N;
        const R* const B = a.B + t * a.B_stride;
        const R* const C = a.C + t * a.C_stride;
        R* const dBC = b.dBC + t * b.dBC_stride + c / scan_block * 2 * N;
        const R delta = delta_at(t), x = a.x[t * a.x_stride + c];
        R y = a.D[c] * x;
        for (int n = 0; n < N; ++n) y += C[n] * after[n];
        const R dy = b.dy[t * b.dy_stride + c];
        R g = dy;
        if (a.z) {
          const R z = a.z[t * a.z_stride + c];
          g = dy * silu(z);
          if (b.dz) b.dz[t * b.dz_stride + c] = dy * y * silu_derivative(z);
        }
        if (b.dbefore_gate) g += b.dbefore_gate[t * b.dbefore_gate_stride + c];
        R ddelta = 0, dx = 0;
        for (int n = 0; n < N; ++n) {
          const R A = a.A[n * a.channels + c], decay = std::exp(delta * A);
          dh[n] += g * C[n];
          const R decayed = dh[n] * decay * before[n];
          dA[n] += decayed * delta;
          ddelta += decayed * A + dh[n] * B[n] * x;
          dx += dh[n] * B[n];
          const bool first = c % scan_block == 0;
          dBC[n] = (first ? R{0} : dBC[n]) + dh[n] * delta * x;
          dBC[N + n] = (first ? R{0} : dBC[N + n]) + g * after[n];
          dh[n] *= decay;
        }
        const R raw = a.dt[t * a.dt_stride + c] + a.dt_bias[c];
        const R ddt = ddelta / (R{1} + std::exp(-raw));  // the derivative of softplus
        b.dx[t * b.dx_stride + c] = dx * delta + g * a.D[c];
        b.ddt[t * b.ddt_stride + c] = ddt;
        dD += g * x;
        ddt_bias += ddt;
      }
    }
    for (int n = 0; n < N; ++n) {
      b.dh[n * a.channels + c] = dh[n];
      b.dA[n * a.channels + c] += dA[n];
    }
    b.dD[c] += dD;
    b.ddt_bias[c] += ddt_bias;
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
