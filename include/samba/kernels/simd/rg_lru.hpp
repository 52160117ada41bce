#pragma once
#include <samba/kernels/reference/rg_lru.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// Rows that a vector of channels passes over before the next vector: all arrays are read nearly in
/// order, and the state stays in a register.
inline constexpr std::int64_t rg_lru_rows = 8;

/// What is the same for all tokens, for n channels from c on.
struct RgLruConstants {
  vec rate, input_bias, recurrent_bias;

  RgLruConstants(const RgLruArgs<float>& args, std::int64_t c, std::int64_t n)
      : rate(softplus(load_part(args.param + c, n))),
        input_bias(load_part(args.input_bias + c, n)),
        recurrent_bias(load_part(args.recurrent_bias + c, n)) {}
};

/// As reference::RgLruGates, for these channels. One exponential gives a and 1 - a^2.
struct RgLruGates {
  vec input, recurrent, log_a, a, factor;

  [[gnu::always_inline]] RgLruGates(const RgLruArgs<float>& args, const RgLruConstants& k,
                                    std::int64_t t, std::int64_t c, std::int64_t n)
      : input(
            sigmoid(load_part(args.input_gate + t * args.input_gate_stride + c, n) + k.input_bias)),
        recurrent(sigmoid(load_part(args.recurrent_gate + t * args.recurrent_gate_stride + c, n) +
                          k.recurrent_bias)),
        log_a(vec(-8.f) * k.rate * recurrent) {
    const ExpPair e = exp_and_expm1(log_a);
    const bool restart = args.at_start && t == 0;
    a = restart ? vec(0.f) : e.exp;
    factor = restart ? vec(1.f) : xsimd::sqrt(-e.expm1 * (vec(1.f) + e.exp));  // (1 - a)(1 + a)
  }
};

}  // namespace detail

/// As reference::rg_lru, a vector of channels at a time.
[[gnu::noinline]] inline void rg_lru(const RgLruArgs<float>& args, Range channels) {
  const RgLruArgs<float> a = args;  // the compiler must assume that a store changes args
  for (std::int64_t row = 0; row < a.rows; row += detail::rg_lru_rows) {
    const std::int64_t end = (std::min)(row + detail::rg_lru_rows, a.rows);
    for_each_vec(channels, [&](std::int64_t c, std::int64_t n) {
      const detail::RgLruConstants constants(a, c, n);
      vec h = load_part(a.h + c, n);
      for (std::int64_t t = row; t < end; ++t) {
        const detail::RgLruGates gates(a, constants, t, c, n);
        const vec u = gates.input * load_part(a.x + t * a.x_stride + c, n);
        h = fma(gates.a, h, gates.factor * u);
        store_part(a.y + t * a.y_stride + c, h, n);
      }
      store_part(a.h + c, h, n);
    });
  }
}

/// As reference::rg_lru_backward, a vector of channels at a time.
[[gnu::noinline]] inline void rg_lru_backward(const RgLruBackwardArgs<float>& args,
                                              Range channels) {
  const RgLruBackwardArgs<float> b = args;
  const RgLruArgs<float>& a = b.forward;
  const std::int64_t pieces = (a.rows + detail::rg_lru_rows - 1) / detail::rg_lru_rows;
  for (std::int64_t p = pieces - 1; p >= 0; --p) {
    const std::int64_t row = p * detail::rg_lru_rows,
                       end = (std::min)(row + detail::rg_lru_rows, a.rows);
    for_each_vec(channels, [&](std::int64_t c, std::int64_t n) {
      const detail::RgLruConstants constants(a, c, n);
      vec dh = load_part(b.dh + c, n), drate(0.f), dinput_bias(0.f), drecurrent_bias(0.f);
      for (std::int64_t t = end - 1; t >= row; --t) {
        const detail::RgLruGates gates(a, constants, t, c, n);
        const vec before = load_part(t > 0 ? b.y + (t - 1) * b.y_stride + c : a.h + c, n);
        const vec x = load_part(a.x + t * a.x_stride + c, n), u = gates.input * x;
        const vec g = dh + load_part(b.dy + t * b.dy_stride + c, n), du = g * gates.factor;
        const vec turn = gates.log_a / (xsimd::max)(vec(1e-30f), gates.factor);
        dh = g * gates.a;
        const vec dlog = dh * fma(gates.log_a, before, -(turn * u * gates.a));
        const vec dinput = du * x * gates.input * (vec(1.f) - gates.input),
                  drecurrent = dlog * (vec(1.f) - gates.recurrent);
        store_part(b.dx + t * b.dx_stride + c, du * gates.input, n);
        store_part(b.dinput_gate + t * b.dinput_gate_stride + c, dinput, n);
        store_part(b.drecurrent_gate + t * b.drecurrent_gate_stride + c, drecurrent, n);
        dinput_bias += dinput;
        drecurrent_bias += drecurrent;
        drate += dlog;
      }
      // As in the reference; a rate of 0 has left nothing in drate.
      const vec rate = (xsimd::max)(vec(1e-30f), constants.rate);
      const vec slope = -exp_and_expm1(-rate).expm1 / rate;
      const auto add = [&](float* to, vec v) { store_part(to + c, load_part(to + c, n) + v, n); };
      store_part(b.dh + c, dh, n);
      add(b.dparam, drate * slope);
      add(b.dinput_bias, dinput_bias);
      add(b.drecurrent_bias, drecurrent_bias);
    });
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
