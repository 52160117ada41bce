#pragma once
#include <samba/kernels/layernorm.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/layernorm.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// Threads share the rows.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const LayerNormArgs<R, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R* const x = a.x + i * a.x_stride;
    R* const out = a.out + i * a.out_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::layernorm(x, a.weight, a.bias, a.eps, a.columns, out);
    else
      reference::layernorm(x, a.weight, a.bias, R{a.eps}, a.columns, out);
  }
  cpu.team.barrier();
}

/// Threads share first the rows, then the columns.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const LayerNormBackwardArgs<R, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R *const x = a.x + i * a.x_stride, *const dout = a.dout + i * a.dout_stride;
    R* const dx = a.dx + i * a.dx_stride;
    RowStatistics<R> s;
    if constexpr (std::is_same_v<R, float>) {
      s = simd::row_statistics(x, a.eps, a.columns);
      simd::layernorm_backward(x, a.weight, s, a.columns, dout, dx);
    } else {
      s = reference::row_statistics(x, R{a.eps}, a.columns);
      reference::layernorm_backward(x, a.weight, s, a.columns, dout, dx);
    }
    a.statistics[2 * i] = s.mean;
    a.statistics[2 * i + 1] = s.inverse;
  }
  cpu.team.barrier();
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const x = a.x + i * a.x_stride, *const dout = a.dout + i * a.dout_stride;
    const RowStatistics<R> s{a.statistics[2 * i], a.statistics[2 * i + 1]};
    if constexpr (std::is_same_v<R, float>)
      simd::layernorm_backward_weight(x, s, dout, columns, a.dweight, a.dbias);
    else
      reference::layernorm_backward_weight(x, s, dout, columns, a.dweight, a.dbias);
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
