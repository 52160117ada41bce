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

namespace detail {

/// Calls f(block, part) for the parts of the blocks that a range of all their units covers.
template <class F>
void for_each_block(Range units, std::int64_t units_per_block, F&& f) {
  for (std::int64_t u = units.begin; u < units.end;) {
    const std::int64_t block = u / units_per_block, first = block * units_per_block,
                       end = (std::min)(first + units_per_block, units.end);
    f(block, Range{u - first, end - first});
    u = end;
  }
}

}  // namespace detail

/// Threads share the panels of all blocks.
template <class T>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const BlockMatmulArgs<T, Real<T>>& a) {
  const std::int64_t panels = (a.first.N + panel_width - 1) / panel_width;
  detail::for_each_block(cpu.team.share(a.blocks * panels), panels,
                         [&](std::int64_t block, Range part) {
                           MatmulArgs<T> one = a.first;
                           one.w += block * a.w_stride;
                           one.x += block * one.K;
                           one.out += block * one.N;
                           if constexpr (std::is_same_v<T, double>)
                             reference::matmul(one, part);
                           else
                             simd::matmul(one, part);
                         });
  cpu.team.barrier();
}

/// Threads share the panels of all blocks' inputs, then the rows of dw. As these are inputs, x and
/// dout change places.
template <class T>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&,
                              const BlockMatmulBackwardArgs<T, Real<T>>& a) {
  const std::int64_t width = a.first.N, panels = (width + panel_width - 1) / panel_width;
  detail::for_each_block(cpu.team.share(a.blocks * panels), panels,
                         [&](std::int64_t block, Range part) {
                           MatmulBackwardArgs<T> one = a.first;
                           one.w += block * a.w_stride;
                           one.dout += block * width;
                           one.dx += block * width;
                           if constexpr (std::is_same_v<T, double>)
                             reference::matmul_backward_input(one, part);
                           else
                             simd::matmul_backward_input(one, part);
                         });
  detail::for_each_block(cpu.team.share(a.blocks * width, 4), width,
                         [&](std::int64_t block, Range part) {
                           MatmulBackwardArgs<T> one = a.first;
                           one.dw += block * width * width;
                           one.x = a.first.dout + block * width;
                           one.x_stride = a.first.dout_stride;
                           one.dout = a.first.x + block * width;
                           one.dout_stride = a.first.x_stride;
                           if constexpr (std::is_same_v<T, double>)
                             reference::matmul_backward_weight(one, part);
                           else
                             simd::matmul_backward_weight(one, part);
                         });
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
