#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/selective_scan.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// The scan of every sequence of the chunk; args as of its first row, without h. A function of
/// sizes, compiled once for all layers of N states.
template <int N, class R>
[[gnu::noinline]] void scan_segments(const Chunk& chunk, const SelectiveScanArgs<R>& args,
                                     States<ArrayData<R>> h) {
  const Range channels = chunk.team.share(args.channels, line_floats);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    SelectiveScanArgs<R> a = args;
    a.dt += row * a.dt_stride, a.x += row * a.x_stride, a.z += row * a.z_stride;
    a.B += row * a.BC_stride, a.C += row * a.BC_stride, a.y += row * a.y_stride;
    a.h = h[s].data, a.n_rows = n_rows;
    if constexpr (std::is_same_v<R, float>)
      simd::selective_scan<N>(a, channels);
    else
      reference::selective_scan<N>(a, channels);
  }
  chunk.team.barrier();
}

/// kept, piece: of this thread.
template <int N, class R>
[[gnu::noinline]] void scan_backward_segments(const Chunk& chunk,
                                              const SelectiveScanBackwardArgs<R>& args,
                                              States<ArrayData<R>> h, States<ArrayData<R>> dh,
                                              R* dB, std::int64_t dB_stride, R* dC,
                                              std::int64_t dC_stride, R* kept, R* piece) {
  const std::int64_t blocks = (args.forward.channels + scan_block - 1) / scan_block;
  const Range channels = chunk.team.share(args.forward.channels, scan_block);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    SelectiveScanBackwardArgs<R> b = args;
    SelectiveScanArgs<R>& a = b.forward;
    a.dt += row * a.dt_stride, a.x += row * a.x_stride, a.z += row * a.z_stride;
    a.B += row * a.BC_stride, a.C += row * a.BC_stride;
    a.h = h[s].data, a.n_rows = n_rows, b.dh = dh[s].data;
    b.dy += row * b.dy_stride, b.ddt += row * b.ddt_stride, b.dx += row * b.dx_stride;
    b.dz += row * b.dz_stride, b.dBC += row * b.dBC_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::selective_scan_backward<N>(b, channels, kept, piece);
    else
      reference::selective_scan_backward<N>(b, channels, kept, piece);
  }
  chunk.team.barrier();
  // The parts of the blocks, in their order.
  const Range rows = chunk.team.share(chunk.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (int n = 0; n < 2 * N; ++n) {
      R sum = 0;
      for (std::int64_t block = 0; block < blocks; ++block)
        sum += args.dBC[i * args.dBC_stride + block * 2 * N + n];
      (n < N ? dB[i * dB_stride + n] : dC[i * dC_stride + n - N]) = sum;
    }
  chunk.team.barrier();
}

/// The arguments of a chunk's first row, without h.
template <class R, int N, int d_inner>
SelectiveScanArgs<R> scan_args(const Table<R, N, d_inner>& A, const Vector<R, d_inner>& D,
                               const Vector<R, d_inner>& dt_bias, In<R, d_inner> dt, In<R, N> B,
                               In<R, N> C, In<R, d_inner> x, In<R, d_inner> z, Out<R, d_inner> y) {
  return {.A = A.data(),
          .D = D.data(),
          .dt_bias = dt_bias.data(),
          .dt = dt.data,
          .dt_stride = dt.stride,
          .B = B.data,
          .C = C.data,
          .BC_stride = B.stride,
          .x = x.data,
          .x_stride = x.stride,
          .z = z.data,
          .z_stride = z.stride,
          .h = nullptr,
          .y = y.data,
          .y_stride = y.stride,
          .n_rows = 0,
          .channels = d_inner};
}

}  // namespace detail

/// The selective scan of every sequence of the chunk, gated: y = (C h + D x) silu(z), where
/// h = exp(delta A) h + delta B x, delta = softplus(dt + dt_bias). A: (N, d_inner), negative; dt, x,
/// z, y: (rows, d_inner), y may be dt; B, C: (rows, N) of the same stride;
/// h: each sequence's (N, d_inner), advanced. Threads take channels.
template <class R, int N, int d_inner>
void selective_scan(const Chunk& chunk, const Table<R, N, d_inner>& A, const Vector<R, d_inner>& D,
                    const Vector<R, d_inner>& dt_bias, std::type_identity_t<In<R, d_inner>> dt,
                    std::type_identity_t<In<R, N>> B, std::type_identity_t<In<R, N>> C,
                    std::type_identity_t<In<R, d_inner>> x, std::type_identity_t<In<R, d_inner>> z,
                    States<Array<R, N, d_inner>> h, std::type_identity_t<Out<R, d_inner>> y) {
  detail::scan_segments<N>(chunk, detail::scan_args(A, D, dt_bias, dt, B, C, x, z, y),
                           h.template part<ArrayData<R>>());
}

/// Scratch of the backward pass: every block's part of the gradients of B and C, and of each thread
/// the states before some tokens and those of a piece.
template <class R, int N, int d_inner>
struct ScanBackwardScratch {
  static constexpr int blocks = (d_inner + scan_block - 1) / scan_block;

  Rows<R, blocks * 2 * N> dBC;
  PerThreadRows<R, N * scan_block / scan_piece> kept;
  PerThread<R, (4 * scan_piece + 1) * N * vector_floats> piece;

  static void visit(auto& t, auto&& f) { f(t.dBC), f(t.kept), f(t.piece); }
};

/// The gradients of selective_scan for dy that of y; ddt may stand in the place of dy. h: each
/// sequence's as the forward pass found it; dh: the gradient of h as it was left, then as it was
/// found. ddt, dB, dC, dx, dz are written, dA, dD, ddt_bias added to. Threads take blocks of
/// channels.
template <class R, int N, int d_inner>
void selective_scan_backward(
    const Chunk& chunk, const Table<R, N, d_inner>& A, const Vector<R, d_inner>& D,
    const Vector<R, d_inner>& dt_bias, std::type_identity_t<In<R, d_inner>> dt,
    std::type_identity_t<In<R, N>> B, std::type_identity_t<In<R, N>> C,
    std::type_identity_t<In<R, d_inner>> x, std::type_identity_t<In<R, d_inner>> z,
    States<Array<R, N, d_inner>> h, std::type_identity_t<In<R, d_inner>> dy,
    std::type_identity_t<Out<R, d_inner>> ddt, std::type_identity_t<Out<R, N>> dB,
    std::type_identity_t<Out<R, N>> dC, std::type_identity_t<Out<R, d_inner>> dx,
    std::type_identity_t<Out<R, d_inner>> dz, ScanBackwardScratch<R, N, d_inner>& scratch,
    States<Array<R, N, d_inner>> dh, Table<R, N, d_inner>& dA, Vector<R, d_inner>& dD,
    Vector<R, d_inner>& ddt_bias) {
  detail::scan_backward_segments<N>(
      chunk,
      SelectiveScanBackwardArgs<R>{
          .forward = detail::scan_args(A, D, dt_bias, dt, B, C, x, z, Out<R, d_inner>{}),
          .dy = dy.data,
          .dy_stride = dy.stride,
          .ddt = ddt.data,
          .ddt_stride = ddt.stride,
          .dx = dx.data,
          .dx_stride = dx.stride,
          .dz = dz.data,
          .dz_stride = dz.stride,
          .dBC = scratch.dBC.data,
          .dBC_stride = scratch.dBC.stride,
          .dh = nullptr,
          .dA = dA.data(),
          .dD = dD.data(),
          .ddt_bias = ddt_bias.data()},
      h.template part<ArrayData<R>>(), dh.template part<ArrayData<R>>(), dB.data, dB.stride,
      dC.data, dC.stride, scratch.kept.of(chunk.team.rank), scratch.piece.of(chunk.team.rank));
}

}  // namespace samba::inline SAMBA_TARGET::kernels
