#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/causal_conv1d.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

namespace detail {

/// The convolution of every sequence of the chunk; args as of its first row, without past. A
/// function of sizes, compiled once for all layers of so many taps.
template <int Taps, bool Silu, class R>
[[gnu::noinline]] void conv_segments(const Chunk& chunk, const CausalConv1dArgs<R>& args,
                                     States<ArrayData<R>> past) {
  const Range channels = chunk.team.share(args.channels, vector_floats);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    CausalConv1dArgs<R> a = args;
    a.x += row * a.x_stride, a.y += row * a.y_stride;
    a.past = past[s].data, a.n_rows = n_rows;
    if constexpr (std::is_same_v<R, float>)
      simd::causal_conv1d<Taps, Silu>(a, channels);
    else
      reference::causal_conv1d<Taps, Silu>(a, channels);
  }
  chunk.team.barrier();
}

}  // namespace detail

/// y = silu(causal depthwise convolution of x) for every sequence of the chunk; `past` holds each
/// sequence's last Taps - 1 inputs, (Taps - 1, C), and is advanced. x, y: (rows, C), not
/// overlapping. Threads take channels. Silu = false leaves out the activation.
template <bool Silu = true, class R, int C, int Taps>
void causal_conv1d(const Chunk& chunk, const Filter<R, C, Taps>& weight, const Vector<R, C>& bias,
                   std::type_identity_t<In<R, C>> x, States<Array<R, Taps - 1, C>> past,
                   std::type_identity_t<Out<R, C>> y) {
  detail::conv_segments<Taps, Silu>(chunk,
                                    CausalConv1dArgs<R>{.weight = weight.data(),
                                                        .bias = bias.data(),
                                                        .x = x.data,
                                                        .x_stride = x.stride,
                                                        .past = nullptr,
                                                        .y = y.data,
                                                        .y_stride = y.stride,
                                                        .n_rows = 0,
                                                        .channels = C},
                                    past.template part<ArrayData<R>>());
}

}  // namespace samba::inline SAMBA_TARGET::kernels
