#pragma once
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline void silu_mul(const float* gate, const float* up, Range columns,
                                       float* out) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(out + i, silu(load_part(gate + i, n)) * load_part(up + i, n), n);
  });
}

[[gnu::noinline]] inline void add(const float* y, Range columns, float* x) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(x + i, load_part(x + i, n) + load_part(y + i, n), n);
  });
}

[[gnu::noinline]] inline void add_scaled(const float* y, float factor, Range columns, float* x) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(x + i, fma(vec(factor), load_part(y + i, n), load_part(x + i, n)), n);
  });
}

[[gnu::noinline]] inline void silu_mul_backward(const float* gate, const float* up,
                                                const float* dout, Range columns, float* dgate,
                                                float* dup) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec x = load_part(gate + i, n), s = sigmoid(x), d = load_part(dout + i, n);
    const vec u = load_part(up + i, n);
    store_part(dup + i, d * x * s, n);
    store_part(dgate + i, d * u * s * fma(x, vec(1.f) - s, vec(1.f)), n);
  });
}

[[gnu::noinline]] inline void sigmoid_mul(const float* gate, const float* up, Range columns,
                                          float* out) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(out + i, sigmoid(load_part(gate + i, n)) * load_part(up + i, n), n);
  });
}

[[gnu::noinline]] inline void sigmoid_mul_backward(const float* gate, const float* up,
                                                   const float* dout, Range columns, float* dgate,
                                                   float* dup) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec s = sigmoid(load_part(gate + i, n)), d = load_part(dout + i, n);
    const vec u = load_part(up + i, n);
    store_part(dup + i, d * s, n);
    store_part(dgate + i, d * u * s * (vec(1.f) - s), n);
  });
}

/// The argument of the sigmoid in Gelu::tanh.
inline vec gelu_argument(vec x) {
  return vec(1.59576912f) * x * fma(vec(0.044715f) * x, x, vec(1.f));
}

/// Phi(x) for Gelu::exact, else 1 / (1 + e^-2t): gelu is x times that. See reference::gelu.
inline vec gelu_gate(vec x, Gelu form) {
  if (form == Gelu::exact) return vec(0.5f) * xsimd::erfc(x * vec(-0.70710678f));
  return sigmoid(gelu_argument(x));
}

[[gnu::noinline]] inline void gelu_mul(const float* gate, const float* up, Range columns, Gelu form,
                                       float* out) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec x = load_part(gate + i, n);
    store_part(out + i, x * gelu_gate(x, form) * load_part(up + i, n), n);
  });
}

[[gnu::noinline]] inline void gelu_mul_backward(const float* gate, const float* up,
                                                const float* dout, Range columns, Gelu form,
                                                float* dgate, float* dup) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec x = load_part(gate + i, n), s = gelu_gate(x, form), d = load_part(dout + i, n);
    const vec u = load_part(up + i, n);
    // Beyond 10 the derivative is 0 or 1, and exponentials come to overflow. 1 - s is a sigmoid of
    // its own: with -ffast-math s need not be 1 where x is large, and t^3 makes much of the rest.
    const vec t = (xsimd::max)(vec(-10.f), (xsimd::min)(x, vec(10.f)));
    const vec slope = form == Gelu::exact ? vec(0.39894228f) * exp(vec(-0.5f) * t * t)
                                          : s * sigmoid(-gelu_argument(t)) * vec(1.59576912f) *
                                                fma(vec(0.134145f) * t, t, vec(1.f));
    store_part(dup + i, d * x * s, n);
    store_part(dgate + i, d * u * fma(t, slope, s), n);
  });
}

[[gnu::noinline]] inline void soft_cap(float cap, Range columns, float* x) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(x + i, vec(cap) * tanh(load_part(x + i, n) / vec(cap)), n);
  });
}

[[gnu::noinline]] inline void soft_cap_backward(float cap, const float* x, Range columns,
                                                float* dx) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec t = load_part(x + i, n) / vec(cap);
    store_part(dx + i, load_part(dx + i, n) * (vec(1.f) - t * t), n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
