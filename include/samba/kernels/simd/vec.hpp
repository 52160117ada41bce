#pragma once
/// \file
/// Vector functions that the kernels share. A remainder of fewer than vec::size elements goes
/// through load_part, store_part and the same arithmetic, so that a value does not depend on its
/// place in a vector.
#include <samba/kernels/simd/fma.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace samba::inline SAMBA_TARGET::kernels::simd {

inline vec load(const float* p) { return vec::load_unaligned(p); }
inline void store(float* p, vec v) { v.store_unaligned(p); }

/// The first n floats at p (0 < n <= lanes); the rest of the vector is zero.
inline vec load_part(const float* p, std::int64_t n) {
  if (n == lanes) return load(p);
  alignas(alignment) float buffer[lanes] = {};
  std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(float));
  return load(buffer);
}
/// As load_part, but the rest of the vector is `rest`.
inline vec part_and(const float* p, std::int64_t n, float rest) {
  alignas(alignment) float buffer[lanes];
  store(buffer, vec(rest));
  std::memcpy(buffer, p, static_cast<std::size_t>(n) * sizeof(float));
  return load(buffer);
}
inline void store_part(float* p, vec v, std::int64_t n) {
  if (n == lanes) return store(p, v);
  alignas(alignment) float buffer[lanes];
  store(buffer, v);
  std::memcpy(p, buffer, static_cast<std::size_t>(n) * sizeof(float));
}

/// Calls f(i, n) for the vectors of n elements starting at i that cover the range; only the last
/// may have n < lanes.
template <class F>
inline void for_each_vec(Range r, F&& f) {
  std::int64_t i = r.begin;
  for (; i + lanes <= r.end; i += lanes) f(i, std::int64_t{lanes});
  if (i < r.end) f(i, r.end - i);
}

/// Calls f(0), ..., f(n - 1) with compile-time constants, so that arrays of vectors that f indexes
/// stay in registers. A loop does not guarantee that at -O2.
template <int n, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, i>{}), ...);
  }(std::make_integer_sequence<int, n>{});
}

/// Forces a vector into a register. Otherwise g++ treats a loaded vector as memory and loads it
/// again for each use, and it reorders integer sums so that they need more registers.
template <class V>
[[gnu::always_inline]] inline V in_register(V v) {
#ifdef __x86_64__
  __asm__("" : "+v"(v.data));
#endif
  return v;
}

/// Prefetches the columns that a loop over rows will read four rows later, or in the last row: rows
/// are often longer than a page, and hardware prefetchers do not cross page boundaries.
inline void prefetch_row(const float* x, std::int64_t row, std::int64_t rows, std::int64_t stride,
                         std::int64_t columns = 1) {
  const float* const later = x + (std::min)(row + 4, rows - 1) * stride;
  for (std::int64_t c = 0; c < columns; c += 16) __builtin_prefetch(later + c);  // a cache line
}

/// The sum of the lanes, adding halves repeatedly.
inline float sum(vec v) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps(v);
#else
  alignas(alignment) float x[lanes];
  store(x, v);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
#endif
}
inline float greatest(vec v) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps(v);
#else
  alignas(alignment) float x[lanes];
  store(x, v);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = x[i] < x[i + half] ? x[i + half] : x[i];
  return x[0];
#endif
}

/// A vector of as many 32-bit integers as a vec has floats.
using ints = xsimd::batch<std::int32_t>;

inline std::int32_t sum(ints v) {
#ifdef __AVX512F__
  return _mm512_reduce_add_epi32(v);
#else
  alignas(alignment) std::int32_t x[lanes];
  v.store_aligned(x);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
#endif
}
inline std::int32_t greatest(ints v) {
#ifdef __AVX512F__
  return _mm512_reduce_max_epi32(v);
#else
  alignas(alignment) std::int32_t x[lanes];
  v.store_aligned(x);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = (std::max)(x[i], x[i + half]);
  return x[0];
#endif
}

/// `lanes` times 32 bits at p, of whatever type.
inline ints load_ints(const void* p) {
  return ints::load_unaligned(static_cast<const std::int32_t*>(p));
}

/// The nearest bf16 values as floats, rounded as bf16(float) does: ties to even, NaN quiet.
inline vec rounded_to_bf16(vec x) {
  const ints bits = std::bit_cast<ints>(x);
  const ints rounded = bits + ints(0x7fff) + ((bits >> 16) & ints(1));
  // All ones for NaN, whose magnitude is above that of infinity.
  const ints nan = (ints(0x7f800000) - (bits & ints(0x7fffffff))) >> 31;
  const ints all = (rounded & ~nan) | ((bits | ints(0x400000)) & nan);
  return std::bit_cast<vec>(all & ints(static_cast<std::int32_t>(0xffff0000)));
}

/// to = from, rounded to bf16.
inline void round_to_bf16(const float* from, std::int64_t n, bf16* to) {
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const ints bits = std::bit_cast<ints>(rounded_to_bf16(load_part(from + i, m)));
#ifdef __AVX512F__
    const __m256i halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
#elif defined(__AVX2__)
    const __m256i upper = _mm256_srli_epi32(bits, 16);  // pack each lane, then join the lanes
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(upper, upper), 0x08);
#else
    std::int32_t numbers[lanes];
    bits.store_unaligned(numbers);
    std::uint16_t halves[lanes];
    for (int l = 0; l < lanes; ++l)
      halves[l] = static_cast<std::uint16_t>(static_cast<std::uint32_t>(numbers[l]) >> 16);
#endif
    void* const at = to + i;
    if (m == lanes)
      std::memcpy(at, &halves, lanes * sizeof(bf16));
    else
      std::memcpy(at, &halves, static_cast<std::size_t>(m) * sizeof(bf16));
  });
}

/// The nearest integers, ties to even.
inline ints nearest_ints(vec x) {
#if defined(__AVX512F__)
  return ints(_mm512_cvtps_epi32(x));
#elif defined(__AVX__)
  return ints(_mm256_cvtps_epi32(x));
#elif defined(__SSE2__)
  return ints(_mm_cvtps_epi32(x));
#else
  return ints(vcvtnq_s32_f32(x));
#endif
}

/// The nearest integer, which as_float converts to float, and p 2^n for such an n. (Without an
/// instruction for it, times_exp2 adds exponents: -ffast-math would distribute a product over the
/// terms of p and flush small ones to 0.)
#ifdef __AVX512F__
inline vec nearest(vec t) { return _mm512_roundscale_ps(t, 0); }
inline vec as_float(vec n) { return n; }
inline vec times_exp2(vec p, vec n) { return _mm512_scalef_ps(p, n); }
#else
inline ints nearest(vec t) { return nearest_ints(t); }
inline vec as_float(ints n) { return xsimd::to_float(n); }
inline vec times_exp2(vec p, ints n) {
  return std::bit_cast<vec>(std::bit_cast<ints>(p) + (n << 23));
}
#endif

// Given a number and a NaN, x86's min and max return the second operand. x is the second, so that a
// NaN propagates to the loss.

/// x = n ln 2 + f with |f| <= ln 2 / 2, for x of -87.3 or more.
struct ExpParts {
  decltype(nearest(vec())) n;
  vec f;
  vec q;  ///< e^f = 1 + f + f^2 q; minimax, relative error 8e-9

  explicit ExpParts(vec x) : n(nearest(x * vec(1.44269504f))) {
    f = fma(as_float(n), vec(-0.693359375f), x);  // ln 2 in two parts
    f = fma(as_float(n), vec(2.12194440e-4f), f);
    q = fma(f, vec(1.39262508e-3f), vec(8.36323288e-3f));
    q = fma(f, q, vec(4.16665542e-2f));
    q = fma(f, q, vec(1.66665767e-1f));
    q = fma(f, q, vec(0.5f));
  }
  vec exp() const { return times_exp2(fma(f, fma(f, q, vec(1.f)), vec(1.f)), n); }
};

/// e^x to 2 units in the last place, for x up to 88.3; below -87.3 it is e^-87.3 (1e-38).
inline vec exp_below(vec x) { return ExpParts((xsimd::max)(vec(-87.3f), x)).exp(); }

/// e^x and e^x - 1, for x as in exp_below; the latter without cancellation around 0, where n is 0.
struct ExpPair {
  vec exp, expm1;
};
inline ExpPair exp_and_expm1(vec x) {
  const ExpParts parts((xsimd::max)(vec(-87.3f), x));
  const vec e = parts.exp();
  return {e, xsimd::select(as_float(parts.n) == vec(0.f), fma(parts.f * parts.f, parts.q, parts.f),
                           e - vec(1.f))};
}
/// tanh x = -expm1(-2 |x|) / (2 + expm1(-2 |x|)), with the sign of x. (Compiles in a tenth of the time of
/// xsimd's.)
inline vec tanh(vec x) {
  const vec m = exp_and_expm1(vec(-2.f) * xsimd::abs(x)).expm1;
  const vec t = m / (vec(2.f) + m);
  return xsimd::select(x < vec(0.f), t, -t);
}
/// As exp_below, but for any x; above 88.3 it is e^88.3.
inline vec exp(vec x) { return exp_below((xsimd::min)(vec(88.3f), x)); }

/// t = 2^t for t up to 127, relative error 9e-8 before rounding; below -126 it is 2^-126. Takes
/// several vectors: a single one would be a chain of instructions, each waiting for the one before.
template <int size>
[[gnu::always_inline]] inline void exp2_below(vec (&t)[size]) {
  // (Pragmas rather than unroll(): templates take longer to compile.)
  decltype(nearest(t[0])) n[size];
  vec f[size];
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) {
    t[i] = (xsimd::max)(vec(-126.f), t[i]);
    n[i] = nearest(t[i]);
    f[i] = t[i] - as_float(n[i]);
  }
  // 2^f = 1 + f q(f) on [-1/2, 1/2], q minimax
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) t[i] = fma(f[i], vec(1.32647273e-3f), vec(9.67151269e-3f));
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) t[i] = fma(f[i], t[i], vec(5.55073374e-2f));
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) t[i] = fma(f[i], t[i], vec(2.40222421e-1f));
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) t[i] = fma(f[i], t[i], vec(6.93146978e-1f));
#pragma GCC unroll 8
  for (int i = 0; i < size; ++i) t[i] = times_exp2(fma(f[i], t[i], vec(1.f)), n[i]);
}
inline vec exp2_below(vec t) {
  vec one[1] = {t};
  exp2_below(one);
  return one[0];
}

/// 1 / (1 + e^-x)
inline vec sigmoid(vec x) { return vec(1.f) / (vec(1.f) + exp(-x)); }

/// x / (1 + e^-x)
inline vec silu(vec x) { return x / (vec(1.f) + exp(-x)); }

/// The derivative of silu, with s = 1 / (1 + e^-x): s (1 + x (1 - s))
inline vec silu_derivative(vec x) {
  const vec s = sigmoid(x);
  return s * fma(x, vec(1.f) - s, vec(1.f));
}

/// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), and log1p(u) = 2 atanh(s) with s = u / (2 + u) <= 1/3.
inline vec softplus(vec x) {
  const vec u = exp_below(-xsimd::abs(x));
  const vec s = u / (vec(2.f) + u), t = s * s;
  // (2 atanh(s) - 2 s) / s^3 in t = s^2 on [0, 1/9], minimax, relative error 3e-10
  vec r = fma(t, vec(2.32243292e-1f), vec(2.17065758e-1f));
  r = fma(t, r, vec(2.85923580e-1f));
  r = fma(t, r, vec(3.99997063e-1f));
  r = fma(t, r, vec(6.66666673e-1f));
  return (xsimd::max)(vec(0.f), x) + fma(s * t, r, s + s);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
