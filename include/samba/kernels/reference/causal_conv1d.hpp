#pragma once
#include <samba/kernels/causal_conv1d.hpp>
#include <samba/kernels/reference/elementwise.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// y[t, c] = f(bias[c] + sum_j weight[j, c] * x[t - (Taps - 1) + j, c]), where f is silu if Silu,
/// else the identity; then past = the last Taps - 1 inputs. For a range of channels.
template <int Taps, bool Silu, class R>
void causal_conv1d(const CausalConv1dArgs<R>& a, Range channels) {
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    R window[Taps];
    for (int j = 0; j < Taps - 1; ++j) window[j] = a.past[j * a.channels + c];
    for (std::int64_t t = 0; t < a.rows; ++t) {
      window[Taps - 1] = a.x[t * a.x_stride + c];
      R sum = a.bias[c];
      for (int j = 0; j < Taps; ++j) sum += a.weight[j * a.channels + c] * window[j];
      a.y[t * a.y_stride + c] = Silu ? silu(sum) : sum;
      for (int j = 0; j < Taps - 1; ++j) window[j] = window[j + 1];
    }
    for (int j = 0; j < Taps - 1; ++j) a.past[j * a.channels + c] = window[j];
  }
}

/// The gradient of an input is complete Taps - 1 tokens later; d holds those of the last Taps
/// inputs.
template <int Taps, bool Silu, class R>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<R>& b, Range channels) {
  const CausalConv1dArgs<R>& a = b.forward;
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    R window[Taps], d[Taps] = {}, dweight[Taps] = {}, dbias = 0, dpast[Taps];
    for (int j = 0; j < Taps - 1; ++j) window[j] = a.past[j * a.channels + c];
    // Stores the gradient of input i, counted from the first one in past.
    const auto put = [&](std::int64_t i, R gradient) {
      if (i < Taps - 1)
        dpast[i] = gradient;
      else
        b.dx[(i - (Taps - 1)) * b.dx_stride + c] = gradient;
    };
    for (std::int64_t t = 0; t < a.rows; ++t) {
      window[Taps - 1] = a.x[t * a.x_stride + c];
      R sum = a.bias[c];
      for (int j = 0; j < Taps; ++j) sum += a.weight[j * a.channels + c] * window[j];
      const R dsum = b.dy[t * b.dy_stride + c] * (Silu ? silu_derivative(sum) : R{1});
      dbias += dsum;
      d[Taps - 1] = 0;
      for (int j = 0; j < Taps; ++j) {
        dweight[j] += dsum * window[j];
        d[j] += a.weight[j * a.channels + c] * dsum;
      }
      put(t, d[0]);
      for (int j = 0; j < Taps - 1; ++j) {
        window[j] = window[j + 1];
        d[j] = d[j + 1];
      }
    }
    for (int j = 0; j < Taps - 1; ++j) put(a.rows + j, d[j] + b.dpast[j * a.channels + c]);
    for (int j = 0; j < Taps - 1; ++j) b.dpast[j * a.channels + c] = dpast[j];
    for (int j = 0; j < Taps; ++j) b.dweight[j * a.channels + c] += dweight[j];
    b.dbias[c] += dbias;
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
