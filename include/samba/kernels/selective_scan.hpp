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
  const Range channels = chunk.team.share(args.channels, vector_floats);
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
  detail::scan_segments<N>(chunk,
                           SelectiveScanArgs<R>{.A = A.data(),
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
                                                .channels = d_inner},
                           h.template part<ArrayData<R>>());
}

}  // namespace samba::inline SAMBA_TARGET::kernels
