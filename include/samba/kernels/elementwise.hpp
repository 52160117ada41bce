#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/elementwise.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

template <class R>
[[gnu::noinline]] void silu_mul_rows(const Team& team, Range rows, std::int64_t N, const R* gate,
                                     std::int64_t gate_stride, const R* up, std::int64_t up_stride,
                                     R* out, std::int64_t out_stride) {
  const Range columns = team.share(N, vector_floats);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R *g = gate + i * gate_stride, *u = up + i * up_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul(g, u, columns, out + i * out_stride);
    else
      reference::silu_mul(g, u, columns, out + i * out_stride);
  }
  team.barrier();
}

template <class R>
[[gnu::noinline]] void add_rows(const Team& team, Range rows, std::int64_t N, const R* y,
                                std::int64_t y_stride, R* x, std::int64_t x_stride) {
  const Range columns = team.share(N, vector_floats);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::add(y + i * y_stride, columns, x + i * x_stride);
    else
      reference::add(y + i * y_stride, columns, x + i * x_stride);
  team.barrier();
}

}  // namespace detail

/// out = silu(gate) * up. All (rows, N); out may be gate or up. Threads take columns.
template <class R, int N>
void silu_mul(const Team& team, Rows<R, N> gate, Rows<R, N> up, Rows<R, N> out) {
  detail::silu_mul_rows<R>(team, {0, out.count}, N, gate.data, gate.stride, up.data, up.stride,
                           out.data, out.stride);
}

/// x += y. Both (rows, N). Threads take columns.
template <class R, int N>
void add(const Team& team, Rows<R, N> y, Rows<R, N> x) {
  detail::add_rows<R>(team, {0, x.count}, N, y.data, y.stride, x.data, x.stride);
}

}  // namespace samba::inline SAMBA_TARGET::kernels
