#pragma once
#include <samba/kernels/heads.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out = silu(gate) * up for n columns of every row. out may be gate or up. E: activations.
template <class E>
struct SiluMulArgs {
  const E* gate;
  std::int64_t gate_stride;
  const E* up;
  std::int64_t up_stride;
  E* out;
  std::int64_t out_stride;
  std::int64_t rows, columns;
};

/// The gradients of silu_mul given dout, the gradient of out. dgate may be dout.
template <class E>
struct SiluMulBackwardArgs {
  const E* gate;
  std::int64_t gate_stride;
  const E* up;
  std::int64_t up_stride;
  const E* dout;
  std::int64_t dout_stride;
  E* dgate;
  std::int64_t dgate_stride;
  E* dup;
  std::int64_t dup_stride;
  std::int64_t rows, columns;
};

/// The two forms of GELU (Hendrycks & Gimpel 2016): x Phi(x), and its approximation by a tanh.
enum class Gelu { exact, tanh };

/// out = sigmoid(gate) * up, as SiluMulArgs; and its gradients.
template <class E>
struct SigmoidMulArgs : SiluMulArgs<E> {};
template <class E>
struct SigmoidMulBackwardArgs : SiluMulBackwardArgs<E> {};

/// out = gelu(gate) * up, as SiluMulArgs; and its gradients.
template <class E>
struct GeluMulArgs : SiluMulArgs<E> {
  Gelu form;
};
template <class E>
struct GeluMulBackwardArgs : SiluMulBackwardArgs<E> {
  Gelu form;
};

/// x = cap * tanh(x / cap) for every row.
template <class R>
struct SoftCapArgs {
  R cap;
  R* x;
  std::int64_t x_stride;
  std::int64_t rows, columns;
};

/// dx = the gradient of soft_cap's input, given dx, that of its output x.
template <class R>
struct SoftCapBackwardArgs {
  R cap;
  const R* x;
  std::int64_t x_stride;
  R* dx;
  std::int64_t dx_stride;
  std::int64_t rows, columns;
};

/// to += factor * term for every row. R: of `to`, E: of `term`.
template <class R, class E = R>
struct AddArgs {
  const E* term;
  std::int64_t term_stride;
  R* to;
  std::int64_t to_stride;
  float factor;
  std::int64_t rows, columns;
};

/// to = factor * from for every row; from may be null if factor is 0.
template <class R, class E = R>
struct CopyArgs {
  const E* from;
  std::int64_t from_stride;
  R* to;
  std::int64_t to_stride;
  float factor;
  std::int64_t rows, columns;
};

/// The arguments of silu_mul, sigmoid_mul and gelu_mul. All (rows, N).
template <class P, int N>
struct SiluMul {
  In<P, N> gate, up;
  Out<P, N> out;  ///< may be gate or up
};
/// The arguments of silu_mul_backward, sigmoid_mul_backward and gelu_mul_backward. All (rows, N).
template <class P, int N>
struct SiluMulBackward {
  In<P, N> gate, up;
  In<P, N> dout;         ///< the gradient of out
  Out<P, N> dgate, dup;  ///< written; dgate may be dout
};
/// The arguments of add, add_to_residual and copy. All (rows, N).
template <class To, class From, int N>
struct Add {
  RowsArgument<const From, N> term;
  RowsArgument<To, N> to;
  float factor = 1;
};
template <class To, class From, int N>
struct Copy {
  RowsArgument<const From, N> from;
  RowsArgument<To, N> to;
  float factor = 1;
};

namespace detail {

template <class P, int N>
SiluMulArgs<Act<P>> gate_args(const SiluMul<P, N>& a) {
  return {.gate = a.gate.data,
          .gate_stride = a.gate.stride,
          .up = a.up.data,
          .up_stride = a.up.stride,
          .out = a.out.data,
          .out_stride = a.out.stride,
          .rows = a.out.rows,
          .columns = N};
}
template <class P, int N>
SiluMulBackwardArgs<Act<P>> gate_backward_args(const SiluMulBackward<P, N>& a) {
  return {.gate = a.gate.data,
          .gate_stride = a.gate.stride,
          .up = a.up.data,
          .up_stride = a.up.stride,
          .dout = a.dout.data,
          .dout_stride = a.dout.stride,
          .dgate = a.dgate.data,
          .dgate_stride = a.dgate.stride,
          .dup = a.dup.data,
          .dup_stride = a.dup.stride,
          .rows = a.dout.rows,
          .columns = N};
}

template <int N, class R, class E>
AddArgs<R, E> add_args(const Add<R, E, N>& a) {
  return {.term = a.term.data,
          .term_stride = a.term.stride,
          .to = a.to.data,
          .to_stride = a.to.stride,
          .factor = a.factor,
          .rows = a.to.rows,
          .columns = N};
}

}  // namespace detail

/// out = silu(gate) * up.
template <int N, class P>
void silu_mul(const Context<P>& c, const std::type_identity_t<SiluMul<P, N>>& a) {
  samba::detail::launch_on(c, detail::gate_args(a));
}
/// out = sigmoid(gate) * up.
template <int N, class P>
void sigmoid_mul(const Context<P>& c, const std::type_identity_t<SiluMul<P, N>>& a) {
  samba::detail::launch_on(c, SigmoidMulArgs<Act<P>>{detail::gate_args(a)});
}
/// out = gelu(gate) * up.
template <int N, Gelu form, class P>
void gelu_mul(const Context<P>& c, const std::type_identity_t<SiluMul<P, N>>& a) {
  samba::detail::launch_on(c, GeluMulArgs<Act<P>>{detail::gate_args(a), form});
}

/// The gradients of silu_mul, sigmoid_mul and gelu_mul.
template <int N, class P>
void silu_mul_backward(const Context<P>& c, const std::type_identity_t<SiluMulBackward<P, N>>& a) {
  samba::detail::launch_on(c, detail::gate_backward_args(a));
}
template <int N, class P>
void sigmoid_mul_backward(const Context<P>& c,
                          const std::type_identity_t<SiluMulBackward<P, N>>& a) {
  samba::detail::launch_on(c, SigmoidMulBackwardArgs<Act<P>>{detail::gate_backward_args(a)});
}
template <int N, Gelu form, class P>
void gelu_mul_backward(const Context<P>& c, const std::type_identity_t<SiluMulBackward<P, N>>& a) {
  samba::detail::launch_on(c, GeluMulBackwardArgs<Act<P>>{detail::gate_backward_args(a), form});
}

/// x = cap * tanh(x / cap), in place. x: (rows, N).
template <int N, class P>
void soft_cap(const Context<P>& c, RowsArgument<Real<P>, N> x, float cap) {
  samba::detail::launch_on(c, SoftCapArgs<Real<P>>{.cap = static_cast<Real<P>>(cap),
                                                   .x = x.data,
                                                   .x_stride = x.stride,
                                                   .rows = x.rows,
                                                   .columns = N});
}
/// Replaces dx, the gradient of soft_cap's result x, by that of its input. x, dx: (rows, N).
template <int N, class P>
void soft_cap_backward(const Context<P>& c, RowsArgument<const Real<P>, N> x,
                       RowsArgument<Real<P>, N> dx, float cap) {
  samba::detail::launch_on(c, SoftCapBackwardArgs<Real<P>>{.cap = static_cast<Real<P>>(cap),
                                                           .x = x.data,
                                                           .x_stride = x.stride,
                                                           .dx = dx.data,
                                                           .dx_stride = dx.stride,
                                                           .rows = x.rows,
                                                           .columns = N});
}

/// to += factor * term, of activations.
template <int N, class P>
void add(const Context<P>& c, const std::type_identity_t<Add<Act<P>, Act<P>, N>>& a) {
  samba::detail::launch_on(c, detail::add_args(a));
}
/// to += factor * term, of the residual stream.
template <int N, class P>
void add_to_residual(const Context<P>& c,
                     const std::type_identity_t<Add<Residual<P>, Act<P>, N>>& a) {
  samba::detail::launch_on(c, detail::add_args(a));
}

/// to = factor * from, of the residual stream.
template <int N, class P>
void copy(const Context<P>& c, const std::type_identity_t<Copy<Residual<P>, Residual<P>, N>>& a) {
  samba::detail::launch_on(c, CopyArgs<Residual<P>>{.from = a.from.data,
                                                    .from_stride = a.from.stride,
                                                    .to = a.to.data,
                                                    .to_stride = a.to.stride,
                                                    .factor = a.factor,
                                                    .rows = a.to.rows,
                                                    .columns = N});
}

/// The arguments of copy_heads.
template <class P, int KvHeads, int Group, int HeadDim>
struct CopyHeads {
  Heads<const Act<P>, KvHeads, Group, HeadDim> from;
  Heads<Act<P>, KvHeads, Group, HeadDim> to;
};
/// to = from, of queries, keys or values.
template <int KvHeads, int Group, int HeadDim, class P>
void copy_heads(const Context<P>& c,
                const std::type_identity_t<CopyHeads<P, KvHeads, Group, HeadDim>>& a) {
  for (int head = 0; head < KvHeads; ++head)
    samba::detail::launch_on(c, CopyArgs<Act<P>>{.from = a.from.at(0, head),
                                                 .from_stride = a.from.stride,
                                                 .to = a.to.at(0, head),
                                                 .to_stride = a.to.stride,
                                                 .factor = 1,
                                                 .rows = a.to.rows,
                                                 .columns = Group * HeadDim});
}

/// x = 0.
template <int N, class P, class R>
void clear(const Context<P>& c, Rows<R, N> x) {
  samba::detail::launch_on(c, CopyArgs<R>{.from = nullptr,
                                          .from_stride = 0,
                                          .to = x.data,
                                          .to_stride = x.stride,
                                          .factor = 0,
                                          .rows = x.rows,
                                          .columns = N});
}
/// x = 0 for the rows of the chunk. x: (rows, columns).
template <class P, class R>
void clear(const Context<P>& c, R* x, std::int64_t columns) {
  samba::detail::launch_on(c, CopyArgs<R>{.from = nullptr,
                                          .from_stride = 0,
                                          .to = x,
                                          .to_stride = columns,
                                          .factor = 0,
                                          .rows = c.rows,
                                          .columns = columns});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
