#pragma once
#include <samba/kernels/rope.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rope.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// Calls rotate(cos, sin, head) for every head in this thread's rows.
template <int Rotary, class R, class Rotate>
void each_head(const Cpu& cpu, const Chunk& chunk, const RopeArgs<Rotary, R>& a, Rotate&& rotate) {
  R cos[Rotary / 2], sin[Rotary / 2];
  for (const Segment& s : chunk.segments) {
    const Range rows = cpu.team.share(s.rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      a.angles->at(s.position + i, cos, sin);
      for (int g = 0; g < a.n_kv_heads; ++g) {
        for (int h = 0; h < a.group; ++h)
          rotate(cos, sin, a.q.at(s.first_row + i, g) + h * a.head_dim);
        if (a.k.data) rotate(cos, sin, a.k.at(s.first_row + i, g));
      }
    }
  }
  cpu.team.barrier();
}

}  // namespace detail

// Threads share the rows. Compiled once for all layers that rotate the same number of channels.

template <int Rotary, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk, const RopeArgs<Rotary, R>& a) {
  detail::each_head(cpu, chunk, a, [](const R* cos, const R* sin, R* head) {
    if constexpr (std::is_same_v<R, float>)
      simd::rope(cos, sin, Rotary / 2, head);
    else
      reference::rope(cos, sin, Rotary / 2, head);
  });
}

template <int Rotary, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const RopeBackwardArgs<Rotary, R>& a) {
  const RopeArgs<Rotary, R>& args = a;
  detail::each_head(cpu, chunk, args, [](const R* cos, const R* sin, R* head) {
    if constexpr (std::is_same_v<R, float>)
      simd::rope_backward(cos, sin, Rotary / 2, head);
    else
      reference::rope_backward(cos, sin, Rotary / 2, head);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels
