#pragma once
/// \file
/// Functions on vectors that the kernels share.
/// A remainder of fewer than vec::size elements goes through load_part and store_part and the same
/// arithmetic, so a value does not depend on where in a vector it stands.
#include <samba/kernels/simd/fma.hpp>

#include <bit>
#include <cstring>
#include <utility>

namespace samba::inline SAMBA_TARGET::kernels::simd {

inline vec load(const float* p) { return vec::load_unaligned(p); }
inline void store(float* p, vec v) { v.store_unaligned(p); }

/// The first n floats at p (0 < n <= lanes), the rest of the vector zero.
inline vec load_part(const float* p, std::int64_t n) {
  if (n == lanes) return load(p);
  alignas(alignment) float buffer[lanes] = {};
  std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(float));
  return load(buffer);
}
inline void store_part(float* p, vec v, std::int64_t n) {
  if (n == lanes) return store(p, v);
  alignas(alignment) float buffer[lanes];
  store(buffer, v);
  std::memcpy(p, buffer, static_cast<std::size_t>(n) * sizeof(float));
}

/// Calls f(i, n) for vectors of n elements from i that cover [begin, end); n < lanes at most once,
/// last.
template <class F>
inline void for_each_vec(Range r, F&& f) {
  std::int64_t i = r.begin;
  for (; i + lanes <= r.end; i += lanes) f(i, std::int64_t{lanes});
  if (i < r.end) f(i, r.end - i);
}

/// Calls f(0), ..., f(n - 1) with constants: arrays of vectors that it indexes stay in registers,
/// which a loop does not promise at -O2.
template <int n, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, i>{}), ...);
  }(std::make_integer_sequence<int, n>{});
}

/// Sum of the lanes, halves added to halves.
inline float sum(vec v) {
  alignas(alignment) float x[lanes];
  store(x, v);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
inline float max(vec v) {
  alignas(alignment) float x[lanes];
  store(x, v);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = x[i] < x[i + half] ? x[i + half] : x[i];
  return x[0];
}

/// e^x to 2 units in the last place; below -87.3 it stays at e^-87.3 (1e-38), above 88.3 at e^88.3.
inline vec exp(vec x) {
  x = xsimd::min(xsimd::max(x, vec(-87.3f)), vec(88.3f));
  const vec t = x * vec(1.44269504f);
  const auto n = xsimd::to_int(t + xsimd::select(t < vec(0.f), vec(-0.5f), vec(0.5f)));
  const vec m = xsimd::to_float(n);
  vec f = fma(m, vec(-0.693359375f), x);  // x - n ln 2, ln 2 in two parts
  f = fma(m, vec(2.12194440e-4f), f);
  // e^f = 1 + f + f^2 q(f) on [-ln 2 / 2, ln 2 / 2], q minimax, relative error 8e-9
  vec q = fma(f, vec(1.39262508e-3f), vec(8.36323288e-3f));
  q = fma(f, q, vec(4.16665542e-2f));
  q = fma(f, q, vec(1.66665767e-1f));
  q = fma(f, q, vec(0.5f));
  const vec p = fma(f, fma(f, q, vec(1.f)), vec(1.f));
  // p 2^n by adding n to the exponent. A product would not do: -ffast-math spreads it over the sum,
  // whose small term then is flushed to zero where e^x is near the smallest normal number.
  return std::bit_cast<vec>(std::bit_cast<std::remove_const_t<decltype(n)>>(p) + (n << 23));
}

/// x / (1 + e^-x)
inline vec silu(vec x) { return x / (vec(1.f) + exp(-x)); }

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), and log1p(u) = 2 atanh(s) with s = u / (2 + u) <= 1/3.
inline vec softplus(vec x) {
  const vec u = exp(-xsimd::abs(x));
  const vec s = u / (vec(2.f) + u), t = s * s;
  // (2 atanh(s) - 2 s) / s^3 in t = s^2 on [0, 1/9], minimax, relative error 3e-10
  vec r = fma(t, vec(2.32243292e-1f), vec(2.17065758e-1f));
  r = fma(t, r, vec(2.85923580e-1f));
  r = fma(t, r, vec(3.99997063e-1f));
  r = fma(t, r, vec(6.66666673e-1f));
  return xsimd::max(x, vec(0.f)) + fma(s * t, r, s + s);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
