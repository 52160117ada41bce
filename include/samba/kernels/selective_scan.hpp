#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

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
  const Range channels = chunk.team.share(d_inner, vector_floats);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    const SelectiveScanArgs<R> args{.A = A.data(),
                                    .D = D.data(),
                                    .dt_bias = dt_bias.data(),
                                    .dt = dt.row(row),
                                    .dt_stride = dt.stride,
                                    .B = B.row(row),
                                    .C = C.row(row),
                                    .BC_stride = B.stride,
                                    .x = x.row(row),
                                    .x_stride = x.stride,
                                    .z = z.row(row),
                                    .z_stride = z.stride,
                                    .h = h[s].data,
                                    .y = y.row(row),
                                    .y_stride = y.stride,
                                    .n_rows = n_rows,
                                    .channels = d_inner};
    if constexpr (std::is_same_v<R, float>)
      simd::selective_scan<N>(args, channels);
    else
      reference::selective_scan<N>(args, channels);
  }
  chunk.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
