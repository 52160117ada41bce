#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/elementwise.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = silu(gate) * up. All (rows, N); out may be gate or up. Threads take columns.
template <class R, int N>
void silu_mul(const Team& team, Rows<R, N> gate, Rows<R, N> up, Rows<R, N> out) {
  const Range columns = team.share(N, vector_floats);
  for (std::int64_t i = 0; i < out.count; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::silu_mul(gate.row(i), up.row(i), columns, out.row(i));
    else
      reference::silu_mul(gate.row(i), up.row(i), columns, out.row(i));
  team.barrier();
}

/// x += y. Both (rows, N). Threads take columns.
template <class R, int N>
void add(const Team& team, Rows<R, N> y, Rows<R, N> x) {
  const Range columns = team.share(N, vector_floats);
  for (std::int64_t i = 0; i < x.count; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::add(y.row(i), columns, x.row(i));
    else
      reference::add(y.row(i), columns, x.row(i));
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
