#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/rope.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// Rotates the heads of n_rows fused rows, the first at `position`.
template <int Rotary, class R>
[[gnu::noinline]] void rope_rows(const RotaryTable<Rotary>& table, std::int64_t position,
                                 std::int64_t n_rows, int heads, int group, int head_dim, R* row,
                                 std::int64_t stride) {
  R cos[Rotary / 2], sin[Rotary / 2];
  for (std::int64_t i = 0; i < n_rows; ++i, row += stride) {
    table.at(position + i, cos, sin);
    for (int head = 0; head < heads; ++head) {
      if (head % (group + 2) == group + 1) continue;  // a value head
      if constexpr (std::is_same_v<R, float>)
        simd::rope(cos, sin, Rotary / 2, row + head * head_dim);
      else
        reference::rope(cos, sin, Rotary / 2, row + head * head_dim);
    }
  }
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
  for (const auto& segment : chunk.segments) {
    const Range rows = chunk.team.share(segment.n_rows);
    detail::rope_rows(table, segment.position + rows.begin, rows.end - rows.begin, C / HeadDim,
                      group, HeadDim, qkv.row(segment.first_row + rows.begin), qkv.stride);
  }
  chunk.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
