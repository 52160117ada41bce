#pragma once
/// \file
/// Some neighbouring numbers of a row, loaded and stored at once, and the fast functions of numbers
/// that are rounded to bf16 in the end.
#include <samba/cuda/device.cuh>

namespace samba::inline SAMBA_TARGET::cuda {

/// W numbers of type E as they are in memory.
template <class E, int W>
struct Packed {
  static constexpr int bytes = W * static_cast<int>(sizeof(E));
  unsigned word[(bytes + 3) / 4];

  __device__ float operator[](int i) const {
    if constexpr (sizeof(E) == 4) return __uint_as_float(word[i]);
    return __uint_as_float(i % 2 ? word[i / 2] & 0xffff0000u : word[i / 2] << 16);
  }
};

/// Loads them: at once if Aligned, that is if their address is a multiple of their size or of 16
/// bytes; else one by one, the first `count` of them, and zeros for the rest.
template <bool Aligned, int W, class E>
__device__ Packed<E, W> load_packed(const E* from, std::int64_t count) {
  using P = Packed<E, W>;
  P p{};
  if constexpr (!Aligned) {
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (i < count) {
        if constexpr (sizeof(E) == 4)
          p.word[i] = __float_as_uint(from[i]);
        else
          p.word[i / 2] |= static_cast<unsigned>(from[i].bits) << (i % 2 * 16);
      }
  } else if constexpr (P::bytes == 4) {
    p.word[0] = *reinterpret_cast<const unsigned*>(from);
  } else if constexpr (P::bytes == 8) {
    const uint2 u = *reinterpret_cast<const uint2*>(from);
    p.word[0] = u.x, p.word[1] = u.y;
  } else {
    static_assert(P::bytes % 16 == 0);
#pragma unroll
    for (int i = 0; i < P::bytes / 16; ++i) {
      const uint4 u = reinterpret_cast<const uint4*>(from)[i];
      p.word[4 * i] = u.x, p.word[4 * i + 1] = u.y;
      p.word[4 * i + 2] = u.z, p.word[4 * i + 3] = u.w;
    }
  }
  return p;
}

/// Two numbers in bf16, rounded to nearest, ties to even.
__device__ inline unsigned pack_bf16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

/// Stores W numbers in the same way.
template <bool Aligned, int W, class E>
__device__ void store_packed(E* to, const float (&x)[W], std::int64_t count) {
  using P = Packed<E, W>;
  if constexpr (!Aligned) {
#pragma unroll
    for (int i = 0; i < W; ++i)
      if (i < count) store(to + i, x[i]);
  } else {
    P p;
#pragma unroll
    for (int i = 0; i < P::bytes / 4; ++i) {
      if constexpr (sizeof(E) == 4)
        p.word[i] = __float_as_uint(x[i]);
      else
        p.word[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
    }
    if constexpr (P::bytes == 4) {
      *reinterpret_cast<unsigned*>(to) = p.word[0];
    } else if constexpr (P::bytes == 8) {
      *reinterpret_cast<uint2*>(to) = {p.word[0], p.word[1]};
    } else {
#pragma unroll
      for (int i = 0; i < P::bytes / 16; ++i)
        reinterpret_cast<uint4*>(to)[i] = {p.word[4 * i], p.word[4 * i + 1], p.word[4 * i + 2],
                                           p.word[4 * i + 3]};
    }
  }
}

/// True if W numbers can be loaded at once in every row, W being a divisor of the channels.
template <int W, class E>
bool rows_aligned(const E* data, std::int64_t stride) {
  constexpr std::uintptr_t bytes = W * sizeof(E) < 16 ? W * sizeof(E) : 16;
  return !data || (reinterpret_cast<std::uintptr_t>(data) % bytes == 0 &&
                   static_cast<std::uintptr_t>(stride) * sizeof(E) % bytes == 0);
}

// One instruction of the special function unit each; errors below 2^-21 of the result, of lg2 in
// [1, 2] absolutely.
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

inline constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.6931471805599453f;

/// 2^x of x <= 0 by multiplications, to relieve the special function unit: 2^round(x) goes to the
/// exponent, the rest into a polynomial. The error is below 2e-5 of 1 - 2^x: none at 0.
__device__ inline float exp2_polynomial(float x) {
  x = fmaxf(x, -126.f);
  const float shifted = __fadd_rn(x, 12582912.f);  // 1.5 2^23: its last bits are round(x)
  const float f = __fsub_rn(x, __fsub_rn(shifted, 12582912.f));
  float p = __fmaf_rn(f, 9.656710288546807e-3f, 5.583828294621972e-2f);
  p = __fmaf_rn(f, p, 2.4022530097412195e-1f);
  p = __fmaf_rn(f, p, 6.931367338836215e-1f);
  p = __fmaf_rn(f, p, 1.f);
  return __uint_as_float((__float_as_uint(shifted) << 23) + __float_as_uint(p));
}

/// softplus and x / (1 + exp(-x)) of numbers that go with activations of type E: as they are in
/// device.cuh for float, else with the special function unit.
template <class E>
__device__ float softplus_for(float x) {
  if constexpr (std::is_same_v<E, float>) {
    return softplus(x);
  } else {
    const float e = fast_exp2(-fabsf(x) * log2_e);
    const float series =  // log(1 + e) of a small e, where 1 + e has lost its digits
        e * __fmaf_rn(-e, __fmaf_rn(-e, __fmaf_rn(-e, 0.25f, 1.f / 3), 0.5f), 1.f);
    return fmaxf(x, 0.f) + (e < 0.03125f ? series : ln_2 * fast_log2(1.f + e));
  }
}
template <class E>
__device__ float silu_for(float x) {
  if constexpr (std::is_same_v<E, float>)
    return silu(x);
  else
    return x * fast_reciprocal(1.f + fast_exp2(-x * log2_e));
}

}  // namespace samba::inline SAMBA_TARGET::cuda
