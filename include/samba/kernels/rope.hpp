#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rope.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// Rotates the heads of the chunk's fused rows, or their gradients back. Compiled once for all
/// layers that turn so many channels.
template <bool backward, int Rotary, class R>
[[gnu::noinline]] void rope_segments(const Chunk& chunk, const RotaryTable<Rotary>& table,
                                     int heads, int group, int head_dim, R* qkv,
                                     std::int64_t stride) {
  R cos[Rotary / 2], sin[Rotary / 2];
  for (const auto& [position, first_row, n_rows] : chunk.segments) {
    const Range rows = chunk.team.share(n_rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      R* const row = qkv + (first_row + i) * stride;
      table.at(position + i, cos, sin);
      for (int head = 0; head < heads; ++head) {
        if (head % (group + 2) == group + 1) continue;  // a value head
        if constexpr (backward && std::is_same_v<R, float>)
          simd::rope_backward(cos, sin, Rotary / 2, row + head * head_dim);
        else if constexpr (backward)
          reference::rope_backward(cos, sin, Rotary / 2, row + head * head_dim);
        else if constexpr (std::is_same_v<R, float>)
          simd::rope(cos, sin, Rotary / 2, row + head * head_dim);
        else
          reference::rope(cos, sin, Rotary / 2, row + head * head_dim);
      }
    }
  }
  chunk.team.barrier();
}

}  // namespace detail

/// Rotates the query and key heads of fused rows in place. Each row of qkv holds, for every
/// key/value head, `group` query heads, one key head and one value head of HeadDim values; the
/// first Rotary channels of queries and keys turn with the row's absolute position. Threads take
/// rows.
template <int HeadDim, int Rotary, class R, int C>
void rope(const Chunk& chunk, int group, const RotaryTable<Rotary>& table, Rows<R, C> qkv) {
  static_assert(Rotary % 2 == 0 && Rotary <= HeadDim,
                "rope: Rotary must be even and at most HeadDim");
  detail::rope_segments<false>(chunk, table, C / HeadDim, group, HeadDim, qkv.data, qkv.stride);
}

/// The gradients of what rope rotated, in place of those of its result.
template <int HeadDim, int Rotary, class R, int C>
void rope_backward(const Chunk& chunk, int group, const RotaryTable<Rotary>& table,
                   Rows<R, C> dqkv) {
  detail::rope_segments<true>(chunk, table, C / HeadDim, group, HeadDim, dqkv.data, dqkv.stride);
}

}  // namespace samba::inline SAMBA_TARGET::kernels
