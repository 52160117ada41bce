#pragma once
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// A cache line of channels at a time: its taps, bias and last inputs stay in registers or the nearest
/// cache over all tokens.
template <int Taps, bool Silu>
void causal_conv1d(const CausalConv1dArgs<float>& a, Range channels) {
  for_each_line(channels, [&](std::int64_t first, auto of_vecs) {
    constexpr int vecs = line_floats / lanes;
    vec weight[vecs][Taps], window[vecs][Taps], bias[vecs];
    const auto past_at = [&](int j, std::int64_t c) { return a.past + j * a.channels + c; };
    of_vecs([&](int v, std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
      unroll<Taps>([&](auto j) __attribute__((always_inline)) {
        weight[v][j] = load_part(a.weight + j * a.channels + c, n);
      });
      unroll<Taps - 1>([&](auto j) __attribute__((always_inline)) {
        window[v][j] = load_part(past_at(j, c), n);
      });
      bias[v] = load_part(a.bias + c, n);
    });
    // Constants of their own: a store to y might change what stands in a.
    const float* const x = a.x;
    float* const y = a.y;
    const std::int64_t n_rows = a.n_rows, x_stride = a.x_stride, y_stride = a.y_stride;
    for (std::int64_t t = 0; t < n_rows; ++t) {
      prefetch_row(x + first, t, n_rows, x_stride);
      of_vecs([&](int v, std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
        window[v][Taps - 1] = load_part(x + t * x_stride + c, n);
        vec sum = bias[v];
        unroll<Taps>([&](auto j) __attribute__((always_inline)) {
          sum = fma(weight[v][j], window[v][j], sum);
        });
        store_part(y + t * y_stride + c, Silu ? silu(sum) : sum, n);
        unroll<Taps - 1>([&](auto j)
                             __attribute__((always_inline)) { window[v][j] = window[v][j + 1]; });
      });
    }
    of_vecs([&](int v, std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
      unroll<Taps - 1>([&](auto j) __attribute__((always_inline)) {
        store_part(past_at(j, c), window[v][j], n);
      });
    });
  });
}

/// As reference::causal_conv1d_backward, a vector of channels at a time.
template <int Taps, bool Silu>
void causal_conv1d_backward(const CausalConv1dBackwardArgs<float>& b, Range channels) {
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
    // Input i, counted from the first of past on: of past, or of x.
    vec past[Taps];
    const auto give = [&](std::int64_t i, vec gradient) {
      if (i < Taps - 1)
        past[i] = gradient;
      else
        store_part(dx + (i - (Taps - 1)) * b.dx_stride, gradient, n);
    };
    for (std::int64_t t = 0; t < a.n_rows; ++t) {
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
      give(t, d[0]);
      unroll<Taps - 1>([&](auto j) __attribute__((always_inline)) {
        window[j] = window[j + 1], d[j] = d[j + 1];
      });
    }
    const auto at = [&](float* tensor, int j) { return tensor + j * a.channels; };
    for (int j = 0; j < Taps - 1; ++j) give(a.n_rows + j, d[j] + load_part(at(dpast, j), n));
    for (int j = 0; j < Taps - 1; ++j) store_part(at(dpast, j), past[j], n);
    for (int j = 0; j < Taps; ++j)
      store_part(at(b.dweight + c, j), load_part(at(b.dweight + c, j), n) + dweight[j], n);
    store_part(b.dbias + c, load_part(b.dbias + c, n) + dbias, n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
