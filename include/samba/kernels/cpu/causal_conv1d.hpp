#pragma once
#include <samba/kernels/causal_conv1d.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/causal_conv1d.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// The convolution of every sequence in the chunk. Threads share the channels.
template <int Taps, ConvActivation f, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const CausalConv1dChunk<Taps, f, R, R>& all) {
  constexpr bool silu = f == ConvActivation::silu;
  const Range channels = cpu.team.share(all.args.channels, line_floats);
  for (const Segment& s : chunk.segments) {
    CausalConv1dArgs<R> a = all.args;
    a.x += s.first_row * a.x_stride;
    a.y += s.first_row * a.y_stride;
    a.past = all.past.of(s.state);
    a.rows = s.rows;
    if constexpr (std::is_same_v<R, float>)
      simd::causal_conv1d<Taps, silu>(a, channels);
    else
      reference::causal_conv1d<Taps, silu>(a, channels);
  }
  cpu.team.barrier();
}

/// Its gradients. Threads share the channels.
template <int Taps, ConvActivation f, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const CausalConv1dBackwardChunk<Taps, f, R, R>& all) {
  constexpr bool silu = f == ConvActivation::silu;
  const Range channels = cpu.team.share(all.args.forward.channels, line_floats);
  for (const Segment& s : chunk.segments) {
    CausalConv1dBackwardArgs<R> b = all.args;
    const std::int64_t row = s.first_row;
    b.forward.x += row * b.forward.x_stride;
    b.dy += row * b.dy_stride;
    b.dx += row * b.dx_stride;
    b.forward.past = all.past.of(s.state);
    b.dpast = all.dpast.of(s.state);
    b.forward.rows = s.rows;
    if constexpr (std::is_same_v<R, float>)
      simd::causal_conv1d_backward<Taps, silu>(b, channels);
    else
      reference::causal_conv1d_backward<Taps, silu>(b, channels);
  }
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
