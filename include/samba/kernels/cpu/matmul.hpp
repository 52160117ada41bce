#pragma once
#include <samba/kernels/matmul.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/matmul_backward.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// Threads share panels of outputs.
template <class T>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const MatmulArgs<T, Real<T>>& a) {
  const Range panels = cpu.team.share((a.N + panel_width - 1) / panel_width);
  if constexpr (std::is_same_v<T, double>)
    reference::matmul(a, panels);
  else
    simd::matmul(a, panels);
  cpu.team.barrier();
}

/// Threads share panels of inputs or rows, then outputs.
template <class T>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&,
                              const MatmulBackwardArgs<T, Real<T>>& a) {
  const Team& team = cpu.team;
  const std::int64_t panels = (a.K + panel_width - 1) / panel_width;
  const Range outputs = team.share(a.N, 4);
  // For the inputs' gradients threads share the panels if there are enough, so that each weight is
  // repacked once; with very many rows they share the rows instead, so that each row is converted once.
  const bool by_panels = panels >= 2 * team.size && a.rows < 4 * a.K;
  const Range inputs = by_panels ? team.share(panels) : Range{0, panels},
              rows = by_panels ? Range{0, a.rows} : team.share(a.rows, 16);
  MatmulBackwardArgs<T> mine = a;
  mine.dout += rows.begin * a.dout_stride;
  mine.dx += rows.begin * a.dx_stride;
  mine.rows = rows.end - rows.begin;
  if constexpr (std::is_same_v<T, double>) {
    reference::matmul_backward_input(mine, inputs);
    reference::matmul_backward_weight(a, outputs);
  } else {
    simd::matmul_backward_input(mine, inputs);
    simd::matmul_backward_weight(a, outputs);
  }
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
