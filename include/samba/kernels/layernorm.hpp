#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias for every row. R: weights and x,
/// E: out.
template <class R, class E = R>
struct LayerNormArgs {
  const R* weight;  ///< (columns)
  const R* bias;    ///< (columns), or null
  float eps;
  const R* x;  ///< (rows, columns)
  std::int64_t x_stride;
  E* out;  ///< (rows, columns); may be x
  std::int64_t out_stride;
  std::int64_t rows, columns;
};

/// The gradients of layernorm, given dout, the gradient of out. dx, dweight and dbias are added to.
template <class R, class E = R>
struct LayerNormBackwardArgs {
  const R* weight;  ///< (columns)
  float eps;
  const R* x;  ///< (rows, columns)
  std::int64_t x_stride;
  const E* dout;  ///< (rows, columns)
  std::int64_t dout_stride;
  R* dx;  ///< (rows, columns)
  std::int64_t dx_stride;
  R* dweight;     ///< (columns)
  R* dbias;       ///< (columns), or null
  R* statistics;  ///< (rows, 2), scratch: the mean, and 1 / sqrt(variance + eps)
  std::int64_t rows, columns;
};

/// The arguments of layernorm.
template <class P, int N>
struct LayerNorm {
  ReadVector<Real<P>, N> weight;
  ReadVector<Real<P>, N> bias;           ///< unbound: no bias
  float eps;                             ///< added to the variance
  RowsArgument<const Residual<P>, N> x;  ///< (rows, N)
  Out<P, N> out;                         ///< (rows, N); may be x
};

/// The arguments of layernorm_backward.
template <class P, int N>
struct LayerNormBackward {
  ReadVector<Real<P>, N> weight;
  float eps;
  RowsArgument<const Residual<P>, N> x;  ///< (rows, N)
  In<P, N> dout;                         ///< (rows, N), the gradient of out
  RowsArgument<Residual<P>, N> dx;       ///< (rows, N), added to
  AddedVector<Real<P>, N> dweight;       ///< added to
  AddedVector<Real<P>, N> dbias;         ///< added to; unbound: no bias
  RowsArgument<Real<P>, 2> statistics;   ///< (rows, 2), scratch
};

/// out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias for every row (Ba et al. 2016).
template <int N, class P>
void layernorm(const Context<P>& c, const std::type_identity_t<LayerNorm<P, N>>& a) {
  samba::detail::launch_on(c, LayerNormArgs<Real<P>, Act<P>>{.weight = a.weight.data,
                                                             .bias = a.bias.data,
                                                             .eps = a.eps,
                                                             .x = a.x.data,
                                                             .x_stride = a.x.stride,
                                                             .out = a.out.data,
                                                             .out_stride = a.out.stride,
                                                             .rows = a.x.rows,
                                                             .columns = N});
}

/// The gradients of layernorm.
template <int N, class P>
void layernorm_backward(const Context<P>& c,
                        const std::type_identity_t<LayerNormBackward<P, N>>& a) {
  samba::detail::launch_on(c,
                           LayerNormBackwardArgs<Real<P>, Act<P>>{.weight = a.weight.data,
                                                                  .eps = a.eps,
                                                                  .x = a.x.data,
                                                                  .x_stride = a.x.stride,
                                                                  .dout = a.dout.data,
                                                                  .dout_stride = a.dout.stride,
                                                                  .dx = a.dx.data,
                                                                  .dx_stride = a.dx.stride,
                                                                  .dweight = a.dweight.data,
                                                                  .dbias = a.dbias.data,
                                                                  .statistics = a.statistics.data,
                                                                  .rows = a.x.rows,
                                                                  .columns = N});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
