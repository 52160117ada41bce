#pragma once
#include <samba/kernels/reference/elementwise.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's part of a depthwise causal convolution with Taps taps.
template <class R>
struct CausalConv1dArgs {
  const R* weight;  ///< (Taps, channels)
  const R* bias;    ///< (channels)
  const R* x;       ///< (n_rows, channels)
  std::int64_t x_stride;
  R* past;  ///< (Taps - 1, channels): the inputs before x, oldest first; updated
  R* y;     ///< (n_rows, channels)
  std::int64_t y_stride;
  std::int64_t n_rows, channels;
};

namespace reference {

/// y[t, c] = f(bias[c] + sum_j weight[j, c] * x[t - (Taps - 1) + j, c]), f = silu if Silu, else the
/// identity; then past = the last Taps - 1 inputs. For the channels of the range.
template <int Taps, bool Silu, class R>
void causal_conv1d(const CausalConv1dArgs<R>& a, Range channels) {
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    R window[Taps];
    for (int j = 0; j < Taps - 1; ++j) window[j] = a.past[j * a.channels + c];
    for (std::int64_t t = 0; t < a.n_rows; ++t) {
      window[Taps - 1] = a.x[t * a.x_stride + c];
      R sum = a.bias[c];
      for (int j = 0; j < Taps; ++j) sum += a.weight[j * a.channels + c] * window[j];
      a.y[t * a.y_stride + c] = Silu ? silu(sum) : sum;
      for (int j = 0; j < Taps - 1; ++j) window[j] = window[j + 1];
    }
    for (int j = 0; j < Taps - 1; ++j) a.past[j * a.channels + c] = window[j];
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
