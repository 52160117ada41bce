#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = x / sqrt(mean(x^2) + eps) * weight for every row. R: weights, E: out, X: x.
template <class R, class E = R, class X = R>
struct RmsNormArgs {
  const R* weight;  ///< (columns)
  float eps;
  const X* x;  ///< (rows, columns)
  std::int64_t x_stride;
  E* out;  ///< (rows, columns); may be x
  std::int64_t out_stride;
  std::int64_t rows, columns;
};

/// The gradients of rmsnorm, given dout, the gradient of out. dx and dweight are added to.
template <class R, class E = R, class X = R>
struct RmsNormBackwardArgs {
  const R* weight;  ///< (columns)
  float eps;
  const X* x;  ///< (rows, columns)
  std::int64_t x_stride;
  const E* dout;  ///< (rows, columns)
  std::int64_t dout_stride;
  X* dx;  ///< (rows, columns)
  std::int64_t dx_stride;
  R* dweight;  ///< (columns)
  R* inverse;  ///< (rows), scratch
  std::int64_t rows, columns;
};

/// The arguments of rmsnorm; X: the type of x, by default that of the residual stream.
template <class P, int N, class X = Residual<P>>
struct RmsNorm {
  ReadVector<Real<P>, N> weight;
  float eps;                   ///< added to the mean square
  RowsArgument<const X, N> x;  ///< (rows, N)
  Out<P, N> out;               ///< (rows, N); may be x
};

/// The arguments of rmsnorm_backward.
template <class P, int N, class X = Residual<P>>
struct RmsNormBackward {
  ReadVector<Real<P>, N> weight;
  float eps;
  RowsArgument<const X, N> x;        ///< (rows, N)
  In<P, N> dout;                     ///< (rows, N), the gradient of out
  RowsArgument<X, N> dx;             ///< (rows, N), added to
  AddedVector<Real<P>, N> dweight;   ///< added to
  RowsArgument<Real<P>, 1> inverse;  ///< (rows), scratch
};

namespace detail {

template <class P, int N, class X>
void launch_rmsnorm(const Context<P>& c, const RmsNorm<P, N, X>& a) {
  samba::detail::launch_on(c, RmsNormArgs<Real<P>, Act<P>, X>{.weight = a.weight.data,
                                                              .eps = a.eps,
                                                              .x = a.x.data,
                                                              .x_stride = a.x.stride,
                                                              .out = a.out.data,
                                                              .out_stride = a.out.stride,
                                                              .rows = a.x.rows,
                                                              .columns = N});
}
template <class P, int N, class X>
void launch_rmsnorm_backward(const Context<P>& c, const RmsNormBackward<P, N, X>& a) {
  samba::detail::launch_on(c, RmsNormBackwardArgs<Real<P>, Act<P>, X>{.weight = a.weight.data,
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

}  // namespace detail

/// out = x / sqrt(mean(x^2) + eps) * weight for every row (Zhang & Sennrich 2019).
template <int N, class P>
void rmsnorm(const Context<P>& c, const std::type_identity_t<RmsNorm<P, N>>& a) {
  detail::launch_rmsnorm(c, a);
}
/// The gradients of rmsnorm.
template <int N, class P>
void rmsnorm_backward(const Context<P>& c, const std::type_identity_t<RmsNormBackward<P, N>>& a) {
  detail::launch_rmsnorm_backward(c, a);
}

/// The same of activations: of the heads of queries and keys.
template <int N, class P>
void head_norm(const Context<P>& c, const std::type_identity_t<RmsNorm<P, N, Act<P>>>& a) {
  detail::launch_rmsnorm(c, a);
}
template <int N, class P>
void head_norm_backward(const Context<P>& c,
                        const std::type_identity_t<RmsNormBackward<P, N, Act<P>>>& a) {
  detail::launch_rmsnorm_backward(c, a);
}

}  // namespace samba::inline SAMBA_TARGET::kernels
