#pragma once
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd::detail {

/// The 32 bits at p: one float or two bf16.
template <class KV>
std::int32_t unit(const KV* p) {
  std::int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

/// The number of rows and of units that transpose_units takes; 0 where there is no such function.
#if defined(__AVX512F__)
inline constexpr int transpose_size = 16;
#elif defined(__AVX__)
inline constexpr int transpose_size = 8;
#else
inline constexpr int transpose_size = 0;
#endif

/// Transposes units: to[u * stride + r] = rows[r][first + u] for r, u < transpose_size. Prefetches
/// the data `ahead` elements later.
#if defined(__AVX512F__)
template <class KV>
void transpose_units(const KV* const* rows, std::int64_t first, std::int64_t ahead,
                     std::int32_t* to, std::int64_t stride) {
  __m512i a[16], b[16];
  unroll<16>([&](auto r) __attribute__((always_inline)) {
    a[r] = _mm512_loadu_si512(rows[r] + first);
    __builtin_prefetch(rows[r] + first + ahead, 0, 2);
  });
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i / 2 * 4 + i % 2 * 2;
    b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i * 4;  // a[r + k]: unit k of each 128-bit lane, for rows r to r + 3
    a[r] = _mm512_unpacklo_epi64(b[r], b[r + 2]);
    a[r + 1] = _mm512_unpackhi_epi64(b[r], b[r + 2]);
    a[r + 2] = _mm512_unpacklo_epi64(b[r + 1], b[r + 3]);
    a[r + 3] = _mm512_unpackhi_epi64(b[r + 1], b[r + 3]);
  });
  unroll<4>([&](auto k) __attribute__((always_inline)) {
    const __m512i low = _mm512_shuffle_i32x4(a[k], a[k + 4], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(a[k], a[k + 4], 0xdd);
    const __m512i high = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0xdd);
    _mm512_storeu_si512(to + k * stride, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_storeu_si512(to + (k + 4) * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0x88));
    _mm512_storeu_si512(to + (k + 8) * stride, _mm512_shuffle_i32x4(low, high, 0xdd));
    _mm512_storeu_si512(to + (k + 12) * stride, _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd));
  });
}
#elif defined(__AVX__)
template <class KV>
void transpose_units(const KV* const* rows, std::int64_t first, std::int64_t ahead,
                     std::int32_t* to, std::int64_t stride) {
  __m256 a[8], b[8];
  unroll<8>([&](auto r) __attribute__((always_inline)) {
    a[r] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows[r] + first));
    __builtin_prefetch(rows[r] + first + ahead, 0, 2);
  });
  unroll<4>([&](auto i) __attribute__((always_inline)) {
    b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
    b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  });
  unroll<2>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i * 4;  // a[r + k]: units k and k + 4 for rows r to r + 3
    const auto pairs = [&](int from)
                           __attribute__((always_inline)) { return _mm256_castps_pd(b[r + from]); };
    a[r] = _mm256_castpd_ps(_mm256_unpacklo_pd(pairs(0), pairs(2)));
    a[r + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(pairs(0), pairs(2)));
    a[r + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(pairs(1), pairs(3)));
    a[r + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(pairs(1), pairs(3)));
  });
  unroll<4>([&](auto k) __attribute__((always_inline)) {
    auto* const low = reinterpret_cast<float*>(to + k * stride);
    _mm256_storeu_ps(low, _mm256_permute2f128_ps(a[k], a[k + 4], 0x20));
    _mm256_storeu_ps(low + 4 * stride, _mm256_permute2f128_ps(a[k], a[k + 4], 0x31));
  });
}
#endif

}  // namespace samba::inline SAMBA_TARGET::kernels::simd::detail
