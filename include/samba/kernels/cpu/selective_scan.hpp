#pragma once
#include <samba/kernels/selective_scan.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/selective_scan.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// The scan of every sequence in the chunk. Threads share the channels.
template <int N, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const SelectiveScanChunk<N, R, R>& all) {
  const Range channels = cpu.team.share(all.args.channels, line_floats);
  for (const Segment& s : chunk.segments) {
    SelectiveScanArgs<R> a = all.args;
    const std::int64_t row = s.first_row;
    a.dt += row * a.dt_stride;
    a.x += row * a.x_stride;
    a.y += row * a.y_stride;
    a.B += row * a.B_stride;
    a.C += row * a.C_stride;
    if (a.z) a.z += row * a.z_stride;
    if (a.before_gate) a.before_gate += row * a.before_gate_stride;
    a.h = all.h.of(s.state);
    a.rows = s.rows;
    if constexpr (std::is_same_v<R, float>)
      simd::selective_scan<N>(a, channels);
    else
      reference::selective_scan<N>(a, channels);
  }
  cpu.team.barrier();
}

/// Its gradients. Threads share the blocks of channels; the blocks' parts of dB and dC are then
/// summed in order.
template <int N, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk& chunk,
                              const SelectiveScanBackwardChunk<N, R, R>& all) {
  const Team& team = cpu.team;
  const std::int64_t blocks = (all.args.forward.channels + scan_block - 1) / scan_block;
  const Range channels = team.share(all.args.forward.channels, scan_block);
  R *const kept = all.kept.of(team.rank), *const piece = all.piece.of(team.rank);
  for (const Segment& s : chunk.segments) {
    SelectiveScanBackwardArgs<R> b = all.args;
    SelectiveScanArgs<R>& a = b.forward;
    const std::int64_t row = s.first_row;
    a.dt += row * a.dt_stride;
    a.x += row * a.x_stride;
    a.B += row * a.B_stride;
    a.C += row * a.C_stride;
    if (a.z) a.z += row * a.z_stride;
    if (b.dz) b.dz += row * b.dz_stride;
    if (b.dbefore_gate) b.dbefore_gate += row * b.dbefore_gate_stride;
    a.h = all.h.of(s.state);
    a.rows = s.rows;
    b.dh = all.dh.of(s.state);
    b.dy += row * b.dy_stride;
    b.ddt += row * b.ddt_stride;
    b.dx += row * b.dx_stride;
    b.dBC += row * b.dBC_stride;
    if constexpr (std::is_same_v<R, float>)
      simd::selective_scan_backward<N>(b, channels, kept, piece);
    else
      reference::selective_scan_backward<N>(b, channels, kept, piece);
  }
  team.barrier();
  const Range rows = team.share(chunk.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (int n = 0; n < 2 * N; ++n) {
      R sum = 0;
      for (std::int64_t block = 0; block < blocks; ++block)
        sum += all.args.dBC[i * all.args.dBC_stride + block * 2 * N + n];
      (n < N ? all.dB[i * all.dB_stride + n] : all.dC[i * all.dC_stride + n - N]) = sum;
    }
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
