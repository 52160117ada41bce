#pragma once
#include <samba/kernels/rmsnorm.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rmsnorm.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// Threads share the rows.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const RmsNormArgs<R, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm(a.x + i * a.x_stride, a.weight, a.eps, a.columns, a.out + i * a.out_stride);
    else
      reference::rmsnorm(a.x + i * a.x_stride, a.weight, R{a.eps}, a.columns,
                         a.out + i * a.out_stride);
  cpu.team.barrier();
}

/// Threads share first the rows, then the columns.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const RmsNormBackwardArgs<R, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R *const x = a.x + i * a.x_stride, *const dout = a.dout + i * a.dout_stride;
    R* const dx = a.dx + i * a.dx_stride;
    if constexpr (std::is_same_v<R, float>) {
      a.inverse[i] = simd::rms_inverse(x, a.eps, a.columns);
      simd::rmsnorm_backward(x, a.weight, a.inverse[i], a.columns, dout, dx);
    } else {
      a.inverse[i] = reference::rms_inverse(x, R{a.eps}, a.columns);
      reference::rmsnorm_backward(x, a.weight, a.inverse[i], a.columns, dout, dx);
    }
  }
  cpu.team.barrier();
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) {
    const R *const x = a.x + i * a.x_stride, *const dout = a.dout + i * a.dout_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm_backward_weight(x, a.inverse[i], dout, columns, a.dweight);
    else
      reference::rmsnorm_backward_weight(x, a.inverse[i], dout, columns, a.dweight);
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
