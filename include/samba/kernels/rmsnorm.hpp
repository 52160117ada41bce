#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = x / sqrt(mean(x^2) + eps) * weight for every row. R: weights and x, E: out.
template <class R, class E = R>
struct RmsNormArgs {
  const R* weight;  ///< (columns)
  float eps;
  const R* x;  ///< (rows, columns)
  std::int64_t x_stride;
  E* out;  ///< (rows, columns); may be x
  std::int64_t out_stride;
  std::int64_t rows, columns;
};

/// The gradients of rmsnorm, given dout, the gradient of out. dx and dweight are added to.
template <class R, class E = R>
struct RmsNormBackwardArgs {
  const R* weight;  ///< (columns)
  float eps;
  const R* x;  ///< (rows, columns)
  std::int64_t x_stride;
  const E* dout;  ///< (rows, columns)
  std::int64_t dout_stride;
  R* dx;  ///< (rows, columns)
  std::int64_t dx_stride;
  R* dweight;  ///< (columns)
  R* inverse;  ///< (rows), scratch
  std::int64_t rows, columns;
};

/// The arguments of rmsnorm.
template <class P, int N>
struct RmsNorm {
  ReadVector<Real<P>, N> weight;
  float eps;                             ///< added to the mean square
  RowsArgument<const Residual<P>, N> x;  ///< (rows, N)
  Out<P, N> out;                         ///< (rows, N); may be x
};

/// The arguments of rmsnorm_backward.
template <class P, int N>
struct RmsNormBackward {
  ReadVector<Real<P>, N> weight;
  float eps;
  RowsArgument<const Residual<P>, N> x;  ///< (rows, N)
  In<P, N> dout;                         ///< (rows, N), the gradient of out
  RowsArgument<Residual<P>, N> dx;       ///< (rows, N), added to
  AddedVector<Real<P>, N> dweight;       ///< added to
  RowsArgument<Real<P>, 1> inverse;      ///< (rows), scratch
};

/// out = x / sqrt(mean(x^2) + eps) * weight for every row (Zhang & Sennrich 2019).
template <int N, class P>
void rmsnorm(const Context<P>& c, const std::type_identity_t<RmsNorm<P, N>>& a) {
  samba::detail::launch_on(c, RmsNormArgs<Real<P>, Act<P>>{.weight = a.weight.data,
                                                           .eps = a.eps,
                                                           .x = a.x.data,
                                                           .x_stride = a.x.stride,
                                                           .out = a.out.data,
                                                           .out_stride = a.out.stride,
                                                           .rows = a.x.rows,
                                                           .columns = N});
}

/// The gradients of rmsnorm.
template <int N, class P>
void rmsnorm_backward(const Context<P>& c, const std::type_identity_t<RmsNormBackward<P, N>>& a) {
  samba::detail::launch_on(c, RmsNormBackwardArgs<Real<P>, Act<P>>{.weight = a.weight.data,
                                                                   .eps = a.eps,
                                                                   .x = a.x.data,
                                                                   .x_stride = a.x.stride,
                                                                   .dout = a.dout.data,
                                                                   .dout_stride = a.dout.stride,
                                                                   .dx = a.dx.data,
                                                                   .dx_stride = a.dx.stride,
                                                                   .dweight = a.dweight.data,
                                                                   .inverse = a.inverse.data,
                                                                   .rows = a.x.rows,
                                                                   .columns = N});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
