#pragma once
#include <samba/kernels/reference/matmul.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// Rows that share one pass over a panel: as many as the registers hold accumulators for.
inline constexpr int matmul_rows = lanes == 16 ? 12 : 6;

namespace detail {

/// One panel of outputs for Rows rows. Each output has one accumulator, which runs over k in order
/// whatever Rows is: hence the same bits for any number of rows.
template <int Rows>
inline void matmul_tile(const MatmulArgs<float>& a, std::int64_t panel, std::int64_t row) {
  vec sum[Rows][2];
  const std::int64_t n = panel * panel_width,
                     outputs = std::min<std::int64_t>(a.N - n, panel_width);
  const std::size_t bytes = static_cast<std::size_t>(outputs) * sizeof(float);
  alignas(alignment) float part[panel_width] = {};
  if (a.bias) std::memcpy(part, a.bias + n, bytes);
  const vec b0 = load(part), b1 = load(part + lanes);
  unroll<Rows>([&](auto i) __attribute__((always_inline)) { sum[i][0] = b0, sum[i][1] = b1; });

  const float* w = a.w + n * a.K;
  const float* x = a.x + row * a.x_stride;
  for (std::int64_t k = 0; k < a.K; ++k, w += panel_width) {
    const vec w0 = load(w), w1 = load(w + lanes);
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const vec xi(x[i * a.x_stride + k]);
      sum[i][0] = fma(xi, w0, sum[i][0]);
      sum[i][1] = fma(xi, w1, sum[i][1]);
    });
  }

  float* out = a.out + row * a.out_stride + n;
  const bool whole = outputs == panel_width;
  unroll<Rows>([&](auto i) __attribute__((always_inline)) {
    float* const to = whole ? out + i * a.out_stride : part;
    store(to, sum[i][0]);
    store(to + lanes, sum[i][1]);
    if (!whole) std::memcpy(out + i * a.out_stride, part, bytes);
  });
}

}  // namespace detail

[[gnu::noinline]] inline void matmul(const MatmulArgs<float>& a, Range panels) {
  for (std::int64_t p = panels.begin; p < panels.end; ++p) {
    std::int64_t row = 0;
    for (; row + matmul_rows <= a.rows; row += matmul_rows)
      detail::matmul_tile<matmul_rows>(a, p, row);
    for (; row + 4 <= a.rows; row += 4) detail::matmul_tile<4>(a, p, row);
    for (; row < a.rows; ++row) detail::matmul_tile<1>(a, p, row);
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
