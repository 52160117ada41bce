#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's part of a depthwise causal convolution. R: weights and state, E: activations.
template <class R, class E = R>
struct CausalConv1dArgs {
  const R* weight;  ///< (taps, channels)
  const R* bias;    ///< (channels)
  const E* x;       ///< (rows, channels)
  std::int64_t x_stride;
  R* past;  ///< (taps - 1, channels): the inputs before x, oldest first; updated
  E* y;     ///< (rows, channels)
  std::int64_t y_stride;
  std::int64_t rows, channels;
};

/// The gradients of causal_conv1d, given dy, the gradient of y: dx is written; dweight and dbias
/// are added to. dpast: on entry the gradient of past after the forward pass, on return that of
/// past before it.
template <class R, class E = R>
struct CausalConv1dBackwardArgs {
  CausalConv1dArgs<R, E> forward;  ///< past as it was before the forward pass; y is not used
  const E* dy;                     ///< (rows, channels)
  std::int64_t dy_stride;
  E* dx;  ///< (rows, channels)
  std::int64_t dx_stride;
  R* dpast;    ///< (taps - 1, channels)
  R* dweight;  ///< (taps, channels)
  R* dbias;    ///< (channels)
};

/// The activation applied to a convolution's sum.
enum class ConvActivation { none, silu };

/// What a launcher takes: the arguments at the chunk's first row, without past, and the states.
template <int Taps, ConvActivation f, class R, class E>
struct CausalConv1dChunk {
  CausalConv1dArgs<R, E> args;
  ArrayData<R> past;
};
template <int Taps, ConvActivation f, class R, class E>
struct CausalConv1dBackwardChunk {
  CausalConv1dBackwardArgs<R, E> args;
  ArrayData<R> past, dpast;
};

/// The arguments of causal_conv1d.
template <class P, int Channels, int Taps>
struct CausalConv1d {
  ReadFilter<Real<P>, Channels, Taps> weight;
  ReadVector<Real<P>, Channels> bias;
  ArrayData<Real<P>>
      past;            ///< each sequence's last Taps - 1 inputs, (Taps - 1, Channels); advanced
  In<P, Channels> x;   ///< (rows, Channels)
  Out<P, Channels> y;  ///< (rows, Channels)
};

/// The arguments of causal_conv1d_backward.
template <class P, int Channels, int Taps>
struct CausalConv1dBackward {
  ReadFilter<Real<P>, Channels, Taps> weight;
  ReadVector<Real<P>, Channels> bias;
  ArrayData<Real<P>> past;  ///< each sequence's, as it was before the forward pass
  In<P, Channels> x;
  In<P, Channels> dy;                            ///< the gradient of y
  ArrayData<Real<P>> dpast;                      ///< of past after the forward pass; then before it
  Out<P, Channels> dx;                           ///< written
  AddedFilter<Real<P>, Channels, Taps> dweight;  ///< added to
  AddedVector<Real<P>, Channels> dbias;          ///< added to
};

namespace detail {

/// The arguments at a chunk's first row, without past and y.
template <class P, int Channels>
CausalConv1dArgs<Real<P>, Act<P>> conv_args(const auto& a) {
  return {.weight = a.weight.data,
          .bias = a.bias.data,
          .x = a.x.data,
          .x_stride = a.x.stride,
          .past = nullptr,
          .y = nullptr,
          .y_stride = 0,
          .rows = a.x.rows,
          .channels = Channels};
}

}  // namespace detail

/// The causal depthwise convolution of every sequence in the chunk, followed by f:
/// y[t] = f(bias + sum_j weight[j] x[t - (Taps - 1) + j]).
template <int Channels, int Taps, ConvActivation f = ConvActivation::silu, class P>
void causal_conv1d(const Context<P>& c,
                   const std::type_identity_t<CausalConv1d<P, Channels, Taps>>& a) {
  CausalConv1dChunk<Taps, f, Real<P>, Act<P>> chunk{detail::conv_args<P, Channels>(a), a.past};
  chunk.args.y = a.y.data;
  chunk.args.y_stride = a.y.stride;
  samba::detail::launch_on(c, chunk);
}

/// The gradients of causal_conv1d.
template <int Channels, int Taps, ConvActivation f = ConvActivation::silu, class P>
void causal_conv1d_backward(
    const Context<P>& c, const std::type_identity_t<CausalConv1dBackward<P, Channels, Taps>>& a) {
  samba::detail::launch_on(c, CausalConv1dBackwardChunk<Taps, f, Real<P>, Act<P>>{
                                  .args = {.forward = detail::conv_args<P, Channels>(a),
                                           .dy = a.dy.data,
                                           .dy_stride = a.dy.stride,
                                           .dx = a.dx.data,
                                           .dx_stride = a.dx.stride,
                                           .dpast = nullptr,
                                           .dweight = a.dweight.data,
                                           .dbias = a.dbias.data},
                                  .past = a.past,
                                  .dpast = a.dpast});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
