#pragma once
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// A few rows, a vector of channels at a time: its taps, bias and last inputs stay in registers.
template <int Taps, bool Silu>
void causal_conv1d_rows(const CausalConv1dArgs<float>& a, Range channels) {
  for_each_vec(channels, [&](std::int64_t c, std::int64_t n) {
    vec weight[Taps], window[Taps];
    for (int j = 0; j < Taps; ++j) weight[j] = load_part(a.weight + j * a.channels + c, n);
    for (int j = 0; j < Taps - 1; ++j) window[j] = load_part(a.past + j * a.channels + c, n);
    const vec bias = load_part(a.bias + c, n);
    // Copied, because the compiler must assume that a store to y may change a.
    const float* const x = a.x + c;
    float* const y = a.y + c;
    const std::int64_t rows = a.rows, x_stride = a.x_stride, y_stride = a.y_stride;
    for (std::int64_t t = 0; t < rows; ++t) {
      prefetch_row(x, t, rows, x_stride);
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

}  // namespace detail

/// Eight rows at a time: rows are often a multiple of 4 KB apart and then map to the same few cache
/// sets. With more rows, a line is evicted before its second half is read.
template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  constexpr std::int64_t most = 8;
  CausalConv1dArgs<float> part = a;
  for (std::int64_t row = 0; row < a.rows; row += most) {
    part.rows = (std::min)(most, a.rows - row);
    part.x = a.x + row * a.x_stride;
    part.y = a.y + row * a.y_stride;
    detail::causal_conv1d_rows<Taps, Silu>(part, channels);
  }
}

/// As reference::causal_conv1d_backward, a vector of channels at a time.
template <int Taps, bool Silu>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<float>& b, Range channels) {
  if (b.forward.rows == 0) return;  // no change, and buffers without rows may be null
  for_each_vec(channels, [&](std::int64_t c, std::int64_t n) {
    const CausalConv1dArgs<float> a = b.forward;
    vec weight[Taps], window[Taps], d[Taps], dweight[Taps], dbias(0.f);
    for (int j = 0; j < Taps; ++j) {
      weight[j] = load_part(a.weight + j * a.channels + c, n);
      d[j] = dweight[j] = vec(0.f);
    }
    for (int j = 0; j < Taps - 1; ++j) window[j] = load_part(a.past + j * a.channels + c, n);
    const vec bias = load_part(a.bias + c, n);
    const float *const x = a.x + c, *const dy = b.dy + c;
    float *const dx = b.dx + c, *const dpast = b.dpast + c;
    // Stores the gradient of input i, counted from the first one in past.
    vec past[Taps];
    const auto put = [&](std::int64_t i, vec gradient) {
      if (i < Taps - 1)
        past[i] = gradient;
      else
        store_part(dx + (i - (Taps - 1)) * b.dx_stride, gradient, n);
    };
    for (std::int64_t t = 0; t < a.rows; ++t) {
      window[Taps - 1] = load_part(x + t * a.x_stride, n);
      vec sum = bias, dsum = load_part(dy + t * b.dy_stride, n);
      unroll<Taps>([&](auto j)
                       __attribute__((always_inline)) { sum = fma(weight[j], window[j], sum); });
      if constexpr (Silu) dsum *= silu_derivative(sum);
      dbias += dsum;
      d[Taps - 1] = vec(0.f);
      unroll<Taps>([&](auto j) __attribute__((always_inline)) {
        dweight[j] = fma(dsum, window[j], dweight[j]);
        d[j] = fma(weight[j], dsum, d[j]);
      });
      put(t, d[0]);
      unroll<Taps - 1>([&](auto j) __attribute__((always_inline)) {
        window[j] = window[j + 1];
        d[j] = d[j + 1];
      });
    }
    const auto at = [&](float* tensor, int j) { return tensor + j * a.channels; };
    for (int j = 0; j < Taps - 1; ++j) put(a.rows + j, d[j] + load_part(at(dpast, j), n));
    for (int j = 0; j < Taps - 1; ++j) store_part(at(dpast, j), past[j], n);
    for (int j = 0; j < Taps; ++j)
      store_part(at(b.dweight + c, j), load_part(at(b.dweight + c, j), n) + dweight[j], n);
    store_part(b.dbias + c, load_part(b.dbias + c, n) + dbias, n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
