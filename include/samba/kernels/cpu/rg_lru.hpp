#pragma once
#include <samba/kernels/rg_lru.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rg_lru.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// The arguments for a segment, from those at the chunk's first row.
template <class R>
RgLruArgs<R> rg_lru_segment(RgLruArgs<R> a, const Segment& s, R* h) {
  a.input_gate += s.first_row * a.input_gate_stride;
  a.recurrent_gate += s.first_row * a.recurrent_gate_stride;
  a.x += s.first_row * a.x_stride;
  if (a.y) a.y += s.first_row * a.y_stride;
  a.h = h;
  a.at_start = s.position == 0;
  a.rows = s.rows;
  return a;
}

}  // namespace detail

/// The recurrence of every sequence in the chunk. Threads share the channels.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk, const RgLruChunk<R, R>& all) {
  const Range channels = cpu.team.share(all.args.channels, line_floats);
  for (const Segment& s : chunk.segments) {
    const RgLruArgs<R> a = detail::rg_lru_segment(all.args, s, all.h.of(s.state));
    if constexpr (std::is_same_v<R, float>)
      simd::rg_lru(a, channels);
    else
      reference::rg_lru(a, channels);
  }
  cpu.team.barrier();
}

/// Its gradients. Threads share the channels.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const RgLruBackwardChunk<R, R>& all) {
  const Range channels = cpu.team.share(all.args.forward.channels, line_floats);
  for (const Segment& s : chunk.segments) {
    RgLruBackwardArgs<R> b = all.args;
    const std::int64_t row = s.first_row;
    b.forward = detail::rg_lru_segment(all.args.forward, s, all.h.of(s.state));
    b.dh = all.dh.of(s.state);
    b.y += row * b.y_stride;
    b.dy += row * b.dy_stride;
    b.dinput_gate += row * b.dinput_gate_stride;
    b.drecurrent_gate += row * b.drecurrent_gate_stride;
    b.dx += row * b.dx_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::rg_lru_backward(b, channels);
    else
      reference::rg_lru_backward(b, channels);
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
