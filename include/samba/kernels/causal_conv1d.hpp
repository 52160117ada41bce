#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/causal_conv1d.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// y = silu(causal depthwise convolution of x) for every sequence of the chunk; `past` holds each
/// sequence's last Taps - 1 inputs, (Taps - 1, C), and is advanced. x, y: (rows, C), not
/// overlapping. Threads take channels. Silu = false leaves out the activation.
template <bool Silu = true, class R, int C, int Taps>
void causal_conv1d(const Chunk& chunk, const Filter<R, C, Taps>& weight, const Vector<R, C>& bias,
                   std::type_identity_t<In<R, C>> x, States<Array<R, Taps - 1, C>> past,
                   std::type_identity_t<Out<R, C>> y) {
  const Range channels = chunk.team.share(C, vector_floats);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    const CausalConv1dArgs<R> args{.weight = weight.data(),
                                   .bias = bias.data(),
                                   .x = x.row(row),
                                   .x_stride = x.stride,
                                   .past = past[s].data,
                                   .y = y.row(row),
                                   .y_stride = y.stride,
                                   .n_rows = n_rows,
                                   .channels = C};
    if constexpr (std::is_same_v<R, float>)
      simd::causal_conv1d<Taps, Silu>(args, channels);
    else
      reference::causal_conv1d<Taps, Silu>(args, channels);
  }
  chunk.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
