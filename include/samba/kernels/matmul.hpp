#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/matmul_backward.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

template <class T>
[[gnu::noinline]] void matmul_panels(const Team& team, const MatmulArgs<T>& args) {
  const Range panels = team.share((args.N + panel_width - 1) / panel_width);
  if constexpr (std::is_same_v<T, double>)
    reference::matmul(args, panels);
  else
    simd::matmul(args, panels);
  team.barrier();
}

template <class T>
[[gnu::noinline]] void matmul_backward_panels(const Team& team, const MatmulBackwardArgs<T>& a) {
  const std::int64_t panels = (a.K + panel_width - 1) / panel_width;
  const Range outputs = team.share(a.N, 4);
  // The inputs' gradients: threads take rows where these are many, so that each row is made factors
  // by one of them, or panels where there are enough, so that each weight is.
  const bool by_panels = panels >= 2 * team.size && a.rows < 4 * a.K;
  const Range inputs = by_panels ? team.share(panels) : Range{0, panels},
              rows = by_panels ? Range{0, a.rows} : team.share(a.rows, 16);
  MatmulBackwardArgs<T> mine = a;
  mine.dout += rows.begin * a.dout_stride, mine.dx += rows.begin * a.dx_stride;
  mine.rows = rows.end - rows.begin;
  if constexpr (std::is_same_v<T, double>) {
    reference::matmul_backward_input(mine, inputs);
    reference::matmul_backward_weight(a, outputs);
  } else {
    simd::matmul_backward_input(mine, inputs);
    simd::matmul_backward_weight(a, outputs);
  }
  team.barrier();
}

}  // namespace detail

/// out = x w^T (+ bias), the linear map of a chunk. x: (rows, K), out: (rows, N), not overlapping.
/// Threads take panels of outputs. x in the type of the weights: T = bf16 rounds it to bf16, T = int8
/// quantises each row by its largest magnitude; sums are float (of int8 within 32 k integers).
template <class T, int N, int K>
void matmul(const Team& team, const Matrix<T, N, K>& w, const Real<T>* bias,
            std::type_identity_t<In<Real<T>, K>> x, std::type_identity_t<Out<Real<T>, N>> out) {
  detail::matmul_panels<T>(team,
                           {w.data(), bias, x.data, x.stride, out.data, out.stride, x.count, N, K});
}

template <class T, int N, int K>
void matmul(const Team& team, const Matrix<T, N, K>& w, std::type_identity_t<In<Real<T>, K>> x,
            std::type_identity_t<Out<Real<T>, N>> out) {
  matmul(team, w, nullptr, x, out);
}

/// The gradients of matmul for dout that of out: dw and dbias (which may be null) are added to, dx is
/// written, or added to if `add`. Factors in the type of the weights. Threads take panels
/// of inputs or rows, then outputs.
template <class T, int N, int K>
void matmul_backward(const Team& team, const Matrix<T, N, K>& w,
                     std::type_identity_t<In<Real<T>, K>> x,
                     std::type_identity_t<In<Real<T>, N>> dout, Matrix<Master<Real<T>>, N, K>& dw,
                     Real<T>* dbias, std::type_identity_t<Out<Real<T>, K>> dx, bool add = false) {
  detail::matmul_backward_panels<T>(
      team, {w.data(), x.data, x.stride, dout.data, dout.stride, dw.data(), dbias, dx.data,
             dx.stride, add, dout.count, N, K});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
