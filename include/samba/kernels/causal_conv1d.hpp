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
  const Range channels = chunk.team.share(args.channels, line_floats);
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

template <int Taps, bool Silu, class R>
[[gnu::noinline]] void conv_backward_segments(const Chunk& chunk,
                                              const CausalConv1dBackwardArgs<R>& args,
                                              States<ArrayData<R>> past,
                                              States<ArrayData<R>> dpast) {
  const Range channels = chunk.team.share(args.forward.channels, line_floats);
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    CausalConv1dBackwardArgs<R> b = args;
    b.forward.x += row * b.forward.x_stride, b.dy += row * b.dy_stride, b.dx += row * b.dx_stride;
    b.forward.past = past[s].data, b.dpast = dpast[s].data, b.forward.n_rows = n_rows;
    if constexpr (std::is_same_v<R, float>)
      simd::causal_conv1d_backward<Taps, Silu>(b, channels);
    else
      reference::causal_conv1d_backward<Taps, Silu>(b, channels);
  }
  chunk.team.barrier();
}

/// The arguments of a chunk's first row, without past.
template <class R, int C, int Taps>
CausalConv1dArgs<R> conv_args(const Filter<R, C, Taps>& weight, const Vector<R, C>& bias,
                              In<R, C> x, Out<R, C> y) {
  return {.weight = weight.data(),
          .bias = bias.data(),
          .x = x.data,
          .x_stride = x.stride,
          .past = nullptr,
          .y = y.data,
          .y_stride = y.stride,
          .n_rows = 0,
          .channels = C};
}

}  // namespace detail

/// y = silu(causal depthwise convolution of x) for every sequence of the chunk; `past` holds each
/// sequence's last Taps - 1 inputs, (Taps - 1, C), and is advanced. x, y: (rows, C), not
/// overlapping. Threads take channels. Silu = false leaves out the activation.
template <bool Silu = true, class R, int C, int Taps>
void causal_conv1d(const Chunk& chunk, const Filter<R, C, Taps>& weight, const Vector<R, C>& bias,
                   std::type_identity_t<In<R, C>> x, States<Array<R, Taps - 1, C>> past,
                   std::type_identity_t<Out<R, C>> y) {
  detail::conv_segments<Taps, Silu>(chunk, detail::conv_args(weight, bias, x, y),
                                    past.template part<ArrayData<R>>());
}

/// The gradients of causal_conv1d for dy that of y. past: each sequence's as the forward pass found
/// it; dpast: the gradient of past as it was left, then as it was found; dx is written, dweight and
/// dbias are added to. Threads take channels.
template <bool Silu = true, class R, int C, int Taps>
void causal_conv1d_backward(const Chunk& chunk, const Filter<R, C, Taps>& weight,
                            const Vector<R, C>& bias, std::type_identity_t<In<R, C>> x,
                            States<Array<R, Taps - 1, C>> past, std::type_identity_t<In<R, C>> dy,
                            std::type_identity_t<Out<R, C>> dx, States<Array<R, Taps - 1, C>> dpast,
                            Filter<R, C, Taps>& dweight, Vector<R, C>& dbias) {
  detail::conv_backward_segments<Taps, Silu>(
      chunk,
      CausalConv1dBackwardArgs<R>{.forward = detail::conv_args(weight, bias, x, Out<R, C>{}),
                                  .dy = dy.data,
                                  .dy_stride = dy.stride,
                                  .dx = dx.data,
                                  .dx_stride = dx.stride,
                                  .dpast = nullptr,
                                  .dweight = dweight.data(),
                                  .dbias = dbias.data()},
      past.template part<ArrayData<R>>(), dpast.template part<ArrayData<R>>());
}

}  // namespace samba::inline SAMBA_TARGET::kernels
