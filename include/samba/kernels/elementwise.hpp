#pragma once
#include <samba/core/chunk.hpp>
#include <samba/core/tensor.hpp>
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
  const Range columns = team.share(N, line_floats);
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
  const Range columns = team.share(N, line_floats);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::add(y + i * y_stride, columns, x + i * x_stride);
    else
      reference::add(y + i * y_stride, columns, x + i * x_stride);
  team.barrier();
}

template <class R>
[[gnu::noinline]] void silu_mul_backward_rows(const Team& team, std::int64_t rows, std::int64_t N,
                                              const R* gate, std::int64_t gate_stride, const R* up,
                                              std::int64_t up_stride, const R* dout,
                                              std::int64_t dout_stride, R* dgate,
                                              std::int64_t dgate_stride, R* dup,
                                              std::int64_t dup_stride) {
  const Range columns = team.share(N, line_floats);
  for (std::int64_t i = 0; i < rows; ++i) {
    const R *g = gate + i * gate_stride, *u = up + i * up_stride, *d = dout + i * dout_stride;
    R *const dg = dgate + i * dgate_stride, *const du = dup + i * dup_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul_backward(g, u, d, columns, dg, du);
    else
      reference::silu_mul_backward(g, u, d, columns, dg, du);
  }
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

/// The gradients of silu_mul for dout that of out. All (rows, N); dgate may be dout. Threads take
/// columns.
template <class R, int N>
void silu_mul_backward(const Team& team, Rows<R, N> gate, Rows<R, N> up, Rows<R, N> dout,
                       Rows<R, N> dgate, Rows<R, N> dup) {
  detail::silu_mul_backward_rows<R>(team, dout.count, N, gate.data, gate.stride, up.data, up.stride,
                                    dout.data, dout.stride, dgate.data, dgate.stride, dup.data,
                                    dup.stride);
}

/// out = x. Both (rows, N). Threads take rows.
template <class R, int N>
void copy(const Team& team, Rows<R, N> x, Rows<R, N> out) {
  const Range rows = team.share(out.count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) std::copy_n(x.row(i), N, out.row(i));
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
