#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's part of a real-gated linear recurrence. R: weights and state, E: activations.
/// Strides are in elements from token to token.
template <class R, class E = R>
struct RgLruArgs {
  const R* param;           ///< (channels): a = e^-softplus where the recurrence gate is 1/8
  const R* input_bias;      ///< (channels)
  const R* recurrent_bias;  ///< (channels)
  const E* input_gate;      ///< (rows, channels), before bias and sigmoid
  std::int64_t input_gate_stride;
  const E* recurrent_gate;  ///< (rows, channels), before bias and sigmoid
  std::int64_t recurrent_gate_stride;
  const E* x;  ///< (rows, channels)
  std::int64_t x_stride;
  R* h;  ///< (channels), the carried state; updated
  E* y;  ///< (rows, channels): the state after each token
  std::int64_t y_stride;
  bool at_start;  ///< the first row is at position 0, where the sequence begins anew
  std::int64_t rows, channels;
};

/// The gradients of one sequence's part, given dy, the gradient of y. dinput_gate, drecurrent_gate
/// and dx are written; dparam and the gradients of the biases are added to. dh: on entry the
/// gradient of the state after the forward pass, on return that of the state before it.
template <class R, class E = R>
struct RgLruBackwardArgs {
  RgLruArgs<R, E> forward;  ///< h as it was before the forward pass; y is not used
  const E* y;               ///< (rows, channels), as the forward pass wrote it
  std::int64_t y_stride;
  const E* dy;  ///< (rows, channels)
  std::int64_t dy_stride;
  E* dinput_gate;  ///< (rows, channels)
  std::int64_t dinput_gate_stride;
  E* drecurrent_gate;  ///< (rows, channels); may be dy
  std::int64_t drecurrent_gate_stride;
  E* dx;  ///< (rows, channels)
  std::int64_t dx_stride;
  R* dh;               ///< (channels)
  R* dparam;           ///< (channels)
  R* dinput_bias;      ///< (channels)
  R* drecurrent_bias;  ///< (channels)
};

/// What a launcher takes: the arguments at the chunk's first row, without h, and the states.
template <class R, class E>
struct RgLruChunk {
  RgLruArgs<R, E> args;
  ArrayData<R> h;
};
template <class R, class E>
struct RgLruBackwardChunk {
  RgLruBackwardArgs<R, E> args;
  ArrayData<R> h, dh;
};

/// The inputs of rg_lru. Heads: the rows in which its biases are stored.
template <class P, int Heads, int Width>
struct RgLruInputs {
  ReadVector<Real<P>, Width> param;
  ReadTable<Real<P>, Heads, Width / Heads> input_bias, recurrent_bias;
  In<P, Width> input_gate, recurrent_gate;  ///< (rows, Width), before bias and sigmoid
  In<P, Width> x;                           ///< (rows, Width)
  ArrayData<Real<P>> h;                     ///< each sequence's (Width)
};

/// The arguments of rg_lru.
template <class P, int Heads, int Width>
struct RgLruForward {
  RgLruInputs<P, Heads, Width> in;  ///< h is advanced
  Out<P, Width> y;                  ///< (rows, Width); may be a gate
};

/// The arguments of rg_lru_backward.
template <class P, int Heads, int Width>
struct RgLruBackward {
  RgLruInputs<P, Heads, Width> forward;  ///< h as it was before the forward pass
  In<P, Width> y;                        ///< as the forward pass wrote it
  In<P, Width> dy;                       ///< the gradient of y
  ArrayData<Real<P>> dh;                 ///< of h after the forward pass; then before it
  Out<P, Width> dinput_gate;             ///< written
  Out<P, Width> drecurrent_gate;         ///< written; may be dy
  Out<P, Width> dx;                      ///< written
  AddedVector<Real<P>, Width> dparam;    ///< added to
  AddedTable<Real<P>, Heads, Width / Heads> dinput_bias, drecurrent_bias;  ///< added to
};

namespace detail {

/// The arguments at a chunk's first row, without h and y.
template <class P, int Heads, int Width>
RgLruArgs<Real<P>, Act<P>> rg_lru_args(const RgLruInputs<P, Heads, Width>& a) {
  return {.param = a.param.data,
          .input_bias = a.input_bias.data,
          .recurrent_bias = a.recurrent_bias.data,
          .input_gate = a.input_gate.data,
          .input_gate_stride = a.input_gate.stride,
          .recurrent_gate = a.recurrent_gate.data,
          .recurrent_gate_stride = a.recurrent_gate.stride,
          .x = a.x.data,
          .x_stride = a.x.stride,
          .h = nullptr,
          .y = nullptr,
          .y_stride = 0,
          .at_start = false,
          .rows = a.x.rows,
          .channels = Width};
}

}  // namespace detail

/// The real-gated linear recurrent unit of every sequence in the chunk (De et al. 2024, section
/// 2.4), but for the products of its gates, which are matrices of the weights' type:
///
///   i = sigmoid(input_gate + input_bias)      r = sigmoid(recurrent_gate + recurrent_bias)
///   log a = -8 r softplus(param)              h = a h + sqrt(1 - a^2) i x              y = h
///
/// At position 0 of a sequence a = 0: h = i x.
template <int Heads, int Width, class P>
void rg_lru(const Context<P>& c, const std::type_identity_t<RgLruForward<P, Heads, Width>>& a) {
  RgLruChunk<Real<P>, Act<P>> chunk{detail::rg_lru_args(a.in), a.in.h};
  chunk.args.y = a.y.data;
  chunk.args.y_stride = a.y.stride;
  samba::detail::launch_on(c, chunk);
}

/// The gradients of rg_lru.
template <int Heads, int Width, class P>
void rg_lru_backward(const Context<P>& c,
                     const std::type_identity_t<RgLruBackward<P, Heads, Width>>& a) {
  samba::detail::launch_on(c, RgLruBackwardChunk<Real<P>, Act<P>>{
                                  .args = {.forward = detail::rg_lru_args(a.forward),
                                           .y = a.y.data,
                                           .y_stride = a.y.stride,
                                           .dy = a.dy.data,
                                           .dy_stride = a.dy.stride,
                                           .dinput_gate = a.dinput_gate.data,
                                           .dinput_gate_stride = a.dinput_gate.stride,
                                           .drecurrent_gate = a.drecurrent_gate.data,
                                           .drecurrent_gate_stride = a.drecurrent_gate.stride,
                                           .dx = a.dx.data,
                                           .dx_stride = a.dx.stride,
                                           .dh = nullptr,
                                           .dparam = a.dparam.data,
                                           .dinput_bias = a.dinput_bias.data,
                                           .drecurrent_bias = a.drecurrent_bias.data},
                                  .h = a.forward.h,
                                  .dh = a.dh});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
