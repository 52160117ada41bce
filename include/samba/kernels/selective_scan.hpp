#pragma once
#include <samba/core/context.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's part of a selective scan. R: weights and state, E: activations. Strides are in
/// elements from token to token.
template <class R, class E = R>
struct SelectiveScanArgs {
  const R* A;        ///< (d_state, channels): A, negative
  const R* D;        ///< (channels)
  const R* dt_bias;  ///< (channels)
  const E* dt;       ///< (rows, channels), before bias and softplus
  std::int64_t dt_stride;
  const E* B;  ///< (rows, d_state)
  std::int64_t B_stride;
  const E* C;  ///< (rows, d_state)
  std::int64_t C_stride;
  const E* x;  ///< (rows, channels)
  std::int64_t x_stride;
  const E* z;  ///< (rows, channels), or null: no gate
  std::int64_t z_stride;
  R* h;  ///< (d_state, channels), the carried state; updated
  E* y;  ///< (rows, channels)
  std::int64_t y_stride;
  E* before_gate;  ///< (rows, channels), y before its gate, or null
  std::int64_t before_gate_stride;
  std::int64_t rows, channels;
};

/// Channels whose gradients of B and C are summed together, whatever the number of threads.
inline constexpr std::int64_t scan_block = 128;

/// Tokens in a piece: the backward pass holds their states at once, and keeps the state before each
/// piece.
inline constexpr std::int64_t scan_piece = 16;

/// The gradients of one sequence's part of a selective scan, given dy, the gradient of y. ddt, dx
/// and dz are written; dA, dD and ddt_bias are added to. dh: on entry the gradient of the state
/// after the forward pass, on return that of the state before it.
template <class R, class E = R>
struct SelectiveScanBackwardArgs {
  SelectiveScanArgs<R, E> forward;  ///< h as it was before the forward pass; y is not used
  const E* dy;                      ///< (rows, channels)
  std::int64_t dy_stride;
  const E* dbefore_gate;  ///< (rows, channels), or null
  std::int64_t dbefore_gate_stride;
  E* ddt;  ///< (rows, channels); may be dy
  std::int64_t ddt_stride;
  E* dx;  ///< (rows, channels)
  std::int64_t dx_stride;
  E* dz;  ///< (rows, channels), or null: not needed, or no gate
  std::int64_t dz_stride;
  R* dBC;  ///< (rows, blocks of channels, 2 d_state): each block's part of dB, then of dC
  std::int64_t dBC_stride;
  R* dh;        ///< (d_state, channels)
  R* dA;        ///< (d_state, channels)
  R* dD;        ///< (channels)
  R* ddt_bias;  ///< (channels)
};

/// What a launcher takes: the arguments at the chunk's first row, without h, and the states.
template <int N, class R, class E>
struct SelectiveScanChunk {
  SelectiveScanArgs<R, E> args;
  ArrayData<R> h;
};
template <int N, class R, class E>
struct SelectiveScanBackwardChunk {
  SelectiveScanBackwardArgs<R, E> args;
  ArrayData<R> h, dh;
  E* dB;  ///< (rows, d_state)
  std::int64_t dB_stride;
  E* dC;  ///< (rows, d_state)
  std::int64_t dC_stride;
  PerThreadRows<R, N * scan_block / scan_piece> kept;
  PerThread<R, (4 * scan_piece + 1) * N * vector_floats> piece;
};

/// Scratch of the backward pass: every block's part of the gradients of B and C; for each thread,
/// the states before each piece and the states within one.
template <class P, int N, int d_inner>
struct ScanBackwardScratch {
  static constexpr int blocks = (d_inner + scan_block - 1) / scan_block;

  Rows<Real<P>, blocks * 2 * N> dBC;
  PerThreadRows<Real<P>, N * scan_block / scan_piece> kept;
  PerThread<Real<P>, (4 * scan_piece + 1) * N * vector_floats> piece;

  static void visit(auto& t, auto&& f) {
    f(t.dBC);
    f(t.kept);
    f(t.piece);
  }
};

/// The arguments of selective_scan. N is d_state.
template <class P, int N, int d_inner>
struct SelectiveScan {
  ReadTable<Real<P>, N, d_inner> A;  ///< negative
  ReadVector<Real<P>, d_inner> D;    ///< the skip
  ReadVector<Real<P>, d_inner> dt_bias;
  In<P, d_inner> dt;                           ///< (rows, d_inner), before bias and softplus
  In<P, N> B, C;                               ///< (rows, d_state)
  In<P, d_inner> x;                            ///< (rows, d_inner)
  Optional<In<P, d_inner>> z = {};             ///< (rows, d_inner); without it y has no gate
  ArrayData<Real<P>> h;                        ///< each sequence's (d_state, d_inner); advanced
  Out<P, d_inner> y;                           ///< (rows, d_inner); may be dt
  Optional<Out<P, d_inner>> before_gate = {};  ///< (rows, d_inner): C h + D x
};

/// The inputs of selective_scan: its arguments without the outputs.
template <class P, int N, int d_inner>
struct SelectiveScanForward {
  ReadTable<Real<P>, N, d_inner> A;
  ReadVector<Real<P>, d_inner> D, dt_bias;
  In<P, d_inner> dt;
  In<P, N> B, C;
  In<P, d_inner> x;
  Optional<In<P, d_inner>> z = {};
  ArrayData<Real<P>> h;  ///< each sequence's, as it was before the forward pass
};

/// The arguments of selective_scan_backward.
template <class P, int N, int d_inner>
struct SelectiveScanBackward {
  SelectiveScanForward<P, N, d_inner> forward;
  In<P, d_inner> dy;                           ///< the gradient of y
  Optional<In<P, d_inner>> dbefore_gate = {};  ///< that of before_gate
  ArrayData<Real<P>> dh;                       ///< of h after the forward pass; then before it
  Out<P, d_inner> ddt;                         ///< written; may be dy
  Out<P, N> dB, dC;                            ///< written
  Out<P, d_inner> dx;                          ///< written
  Optional<Out<P, d_inner>> dz = {};           ///< written
  AddedTable<Real<P>, N, d_inner> dA;          ///< added to
  AddedVector<Real<P>, d_inner> dD, ddt_bias;  ///< added to
  const ScanBackwardScratch<P, N, d_inner>& scratch;
};

namespace detail {

/// The arguments at a chunk's first row, without h and the outputs.
template <class P, int N, int d_inner>
SelectiveScanArgs<Real<P>, Act<P>> scan_args(const auto& a) {
  return {.A = a.A.data,
          .D = a.D.data,
          .dt_bias = a.dt_bias.data,
          .dt = a.dt.data,
          .dt_stride = a.dt.stride,
          .B = a.B.data,
          .B_stride = a.B.stride,
          .C = a.C.data,
          .C_stride = a.C.stride,
          .x = a.x.data,
          .x_stride = a.x.stride,
          .z = a.z.data,
          .z_stride = a.z.stride,
          .h = nullptr,
          .y = nullptr,
          .y_stride = 0,
          .before_gate = nullptr,
          .before_gate_stride = 0,
          .rows = a.x.rows,
          .channels = d_inner};
}

}  // namespace detail

/// The gated selective scan of every sequence in the chunk (Gu & Dao 2023, section 3.2, with the
/// Euler step for B):
///
///   delta = softplus(dt + dt_bias)    h = exp(delta A) h + delta B x    y = (C h + D x) silu(z)
template <int N, int d_inner, class P>
void selective_scan(const Context<P>& c,
                    const std::type_identity_t<SelectiveScan<P, N, d_inner>>& a) {
  SelectiveScanChunk<N, Real<P>, Act<P>> chunk{detail::scan_args<P, N, d_inner>(a), a.h};
  chunk.args.y = a.y.data;
  chunk.args.y_stride = a.y.stride;
  chunk.args.before_gate = a.before_gate.data;
  chunk.args.before_gate_stride = a.before_gate.stride;
  samba::detail::launch_on(c, chunk);
}

/// The gradients of selective_scan.
template <int N, int d_inner, class P>
void selective_scan_backward(const Context<P>& c,
                             const std::type_identity_t<SelectiveScanBackward<P, N, d_inner>>& a) {
  samba::detail::launch_on(c, SelectiveScanBackwardChunk<N, Real<P>, Act<P>>{
                                  .args = {.forward = detail::scan_args<P, N, d_inner>(a.forward),
                                           .dy = a.dy.data,
                                           .dy_stride = a.dy.stride,
                                           .dbefore_gate = a.dbefore_gate.data,
                                           .dbefore_gate_stride = a.dbefore_gate.stride,
                                           .ddt = a.ddt.data,
                                           .ddt_stride = a.ddt.stride,
                                           .dx = a.dx.data,
                                           .dx_stride = a.dx.stride,
                                           .dz = a.dz.data,
                                           .dz_stride = a.dz.stride,
                                           .dBC = a.scratch.dBC.data,
                                           .dBC_stride = a.scratch.dBC.stride,
                                           .dh = nullptr,
                                           .dA = a.dA.data,
                                           .dD = a.dD.data,
                                           .ddt_bias = a.ddt_bias.data},
                                  .h = a.forward.h,
                                  .dh = a.dh,
                                  .dB = a.dB.data,
                                  .dB_stride = a.dB.stride,
                                  .dC = a.dC.data,
                                  .dC_stride = a.dC.stride,
                                  .kept = a.scratch.kept,
                                  .piece = a.scratch.piece});
}

/// A = -exp(A_log), n numbers. Never inlined: under -ffast-math an inlined copy may use another exp
/// and give other bits.
template <class R>
[[gnu::noinline]] void scan_A(const R* A_log, std::int64_t n, R* A) {
  for (std::int64_t i = 0; i < n; ++i) A[i] = -std::exp(A_log[i]);
}

/// Adds A dA, the gradient of A_log, to dA_log, and sets dA to zero. Two loops: in one, some
/// compilers would round product and sum together and others separately.
template <class R>
[[gnu::noinline]] void scan_A_backward(const R* A, std::int64_t n, R* dA, R* dA_log) {
  for (std::int64_t i = 0; i < n; ++i) dA[i] *= A[i];
  for (std::int64_t i = 0; i < n; ++i) {
    dA_log[i] += dA[i];
    dA[i] = 0;
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels
