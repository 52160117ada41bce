#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/rope.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// Rotates the query and key heads of fused rows in place. Each row of qkv holds, for every key/value
/// head, `group` query heads, one key head and one value head of HeadDim values; the first Rotary
/// channels of queries and keys turn with the row's absolute position. Threads take rows.
template <int HeadDim, int Rotary, class R, int C>
void rope(const Chunk& chunk, int group, const RotaryTable<Rotary>& table, Rows<R, C> qkv) {
  static_assert(Rotary % 2 == 0 && Rotary <= HeadDim, "rope: Rotary must be even and at most HeadDim");
  R cos[Rotary / 2], sin[Rotary / 2];
  for (const auto& segment : chunk.segments) {
    const Range rows = chunk.team.share(segment.n_rows);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      table.at(segment.position + i, cos, sin);
      R* row = qkv.row(segment.first_row + i);
      for (int head = 0; head < C / HeadDim; ++head) {
        if (head % (group + 2) == group + 1) continue;  // a value head
        if constexpr (std::is_same_v<R, float>)
          simd::rope(cos, sin, Rotary / 2, row + head * HeadDim);
        else
          reference::rope(cos, sin, Rotary / 2, row + head * HeadDim);
      }
    }
  }
  chunk.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
