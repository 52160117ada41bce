#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/rmsnorm.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = x / sqrt(mean(x^2) + eps) * weight for each row. x, out: (rows, N); out may be x.
/// Threads take rows.
template <class R, int N>
void rmsnorm(const Team& team, const Vector<R, N>& weight, float eps,
             std::type_identity_t<In<R, N>> x, std::type_identity_t<Out<R, N>> out) {
  const Range rows = team.share(x.count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm(x.row(i), weight.data(), eps, N, out.row(i));
    else
      reference::rmsnorm(x.row(i), weight.data(), R{eps}, N, out.row(i));
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
