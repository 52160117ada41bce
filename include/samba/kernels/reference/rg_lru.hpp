#pragma once
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/rg_lru.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// A token's gates, and what follows from them. At position 0 a is 0.
template <class R>
struct RgLruGates {
  R input, recurrent;  ///< i and r
  R log_a, a;
  R factor;  ///< sqrt(1 - a^2), without cancellation where a is almost 1

  RgLruGates(const RgLruArgs<R>& args, R softplus_of_param, std::int64_t t, std::int64_t c)
      : input(sigmoid(args.input_gate[t * args.input_gate_stride + c] + args.input_bias[c])),
        recurrent(sigmoid(args.recurrent_gate[t * args.recurrent_gate_stride + c] +
                          args.recurrent_bias[c])) {
    const bool restart = args.at_start && t == 0;
    log_a = R{-8} * recurrent * softplus_of_param;
    a = restart ? R{0} : std::exp(log_a);
    factor = restart ? R{1} : std::sqrt(-std::expm1(2 * log_a));
  }
};

/// The recurrence of the RG-LRU (De et al. 2024, section 2.4), for a range of channels:
///   i = sigmoid(input_gate + input_bias)      r = sigmoid(recurrent_gate + recurrent_bias)
///   log a = -8 r softplus(param)              h = a h + sqrt(1 - a^2) i x              y = h
/// At position 0 of the sequence a = 0.
template <class R>
void rg_lru(const RgLruArgs<R>& a, Range channels) {
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    const R rate = softplus(a.param[c]);
    R& h = a.h[c];
    for (std::int64_t t = 0; t < a.rows; ++t) {
      const RgLruGates<R> gates(a, rate, t, c);
      h = gates.a * h + gates.factor * gates.input * a.x[t * a.x_stride + c];
      a.y[t * a.y_stride + c] = h;
    }
  }
}

/// Back-propagation through the recurrence, with g the gradient of h_t, u = i x and the factor f:
///   du = f g      dlog_a = g (a h_{t-1} - u a^2 / f)      dh_{t-1} = a g
/// Where a is almost 1, a^2 / f is without bounds. It is not clipped: what dlog_a is passed on to,
/// the gate and the parameter, takes it times log_a, and log_a / f goes to 0 with f.
template <class R>
void rg_lru_backward(const RgLruBackwardArgs<R>& b, Range channels) {
  const RgLruArgs<R>& a = b.forward;
  for (std::int64_t c = channels.begin; c < channels.end; ++c) {
    const R rate = softplus(a.param[c]);
    // The derivative of log softplus; it goes to 1 where softplus goes to 0.
    const R slope = rate > R{0} ? -std::expm1(-rate) / rate : R{1};
    R dh = b.dh[c], drate = 0, dinput_bias = 0, drecurrent_bias = 0;
    for (std::int64_t t = a.rows - 1; t >= 0; --t) {
      const RgLruGates<R> gates(a, rate, t, c);
      const R before = t > 0 ? b.y[(t - 1) * b.y_stride + c] : a.h[c];
      const R x = a.x[t * a.x_stride + c], u = gates.input * x;
      const R g = dh + b.dy[t * b.dy_stride + c], du = g * gates.factor;
      const R turn = gates.factor > R{0} ? gates.log_a / gates.factor : R{0};
      // dlog_a times log_a, which is the gradient of log(r) and of log(softplus(param))
      const R dlog = g * gates.a * (gates.log_a * before - turn * u * gates.a);
      const R dinput = du * x * gates.input * (R{1} - gates.input),
              drecurrent = dlog * (R{1} - gates.recurrent);
      b.dx[t * b.dx_stride + c] = du * gates.input;
      b.dinput_gate[t * b.dinput_gate_stride + c] = dinput;
      b.drecurrent_gate[t * b.drecurrent_gate_stride + c] = drecurrent;
      dinput_bias += dinput;
      drecurrent_bias += drecurrent;
      drate += dlog;
      dh = gates.a * g;
    }
    b.dh[c] = dh;
    b.dparam[c] += drate * slope;
    b.dinput_bias[c] += dinput_bias;
    b.drecurrent_bias[c] += drecurrent_bias;
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
