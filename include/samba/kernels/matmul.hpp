#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/matmul.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = x w^T (+ bias), the linear map of a chunk. x: (rows, K), out: (rows, N), not overlapping.
/// Threads take panels of outputs.
template <class T, int N, int K>
void matmul(const Team& team, const Matrix<T, N, K>& w, const Real<T>* bias,
            std::type_identity_t<In<Real<T>, K>> x, std::type_identity_t<Out<Real<T>, N>> out) {
  const MatmulArgs<T> args{w.data(), bias, x.data, x.stride, out.data, out.stride, x.count, N, K};
  const Range panels = team.share((N + panel_width - 1) / panel_width);
  if constexpr (std::is_same_v<T, float>)
    simd::matmul(args, panels);
  else
    reference::matmul(args, panels);
  team.barrier();
}

template <class T, int N, int K>
void matmul(const Team& team, const Matrix<T, N, K>& w, std::type_identity_t<In<Real<T>, K>> x,
            std::type_identity_t<Out<Real<T>, N>> out) {
  matmul(team, w, nullptr, x, out);
}

}  // namespace samba::inline SAMBA_TARGET::kernels
