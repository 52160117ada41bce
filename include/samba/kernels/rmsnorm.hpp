#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/rmsnorm.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

template <class R>
[[gnu::noinline]] void rmsnorm_rows(const Team& team, std::int64_t count, std::int64_t N,
                                    const R* weight, float eps, const R* x, std::int64_t x_stride,
                                    R* out, std::int64_t out_stride) {
  const Range rows = team.share(count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    if constexpr (std::is_same_v<R, float>)
      simd::rmsnorm(x + i * x_stride, weight, eps, N, out + i * out_stride);
    else
      reference::rmsnorm(x + i * x_stride, weight, R{eps}, N, out + i * out_stride);
  team.barrier();
}

}  // namespace detail

/// out = x / sqrt(mean(x^2) + eps) * weight for each row. x, out: (rows, N); out may be x.
/// Threads take rows.
template <class R, int N>
void rmsnorm(const Team& team, const Vector<R, N>& weight, float eps,
             std::type_identity_t<In<R, N>> x, std::type_identity_t<Out<R, N>> out) {
  detail::rmsnorm_rows<R>(team, x.count, N, weight.data(), eps, x.data, x.stride, out.data,
                          out.stride);
}

}  // namespace samba::inline SAMBA_TARGET::kernels
