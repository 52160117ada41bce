#pragma once
#include <samba/kernels/simd/quantised_rows.hpp>

#if defined(__AVX2__) || (defined(__SSE2__) && !defined(__AVX__))
#define SAMBA_Q4_BYTES  // there are instructions that multiply small integers and add up neighbours
#endif

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// 32 quantised numbers of a row, their scale, and their sum times the scale, which is multiplied by
/// the weights' minimum. Sums within a block are integers, the same on every path; sums across
/// blocks are floats.
struct Q4Row {
#ifdef SAMBA_Q4_BYTES
  std::int32_t quads[8];  ///< four bytes each
#else
  float x[Q4Block::size];
#endif
  float scale, total;
};

namespace detail {

/// `lanes` halves at p as floats.
inline vec load_halves(const std::byte* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
#if defined(__AVX2__)
  const ints half(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__SSE2__) && !defined(__AVX__)
  const ints half(_mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                                     _mm_setzero_si128()));
#else
  std::uint16_t bits[lanes];
  std::memcpy(bits, p, sizeof(bits));
  std::int32_t wide[lanes];
  std::copy_n(bits, lanes, wide);
  const ints half = load_ints(wide);
#endif
  const ints sign = (half & ints(0x8000)) << 16, rest = half & ints(0x7fff);
  const ints not_finite = (ints(0x7bff) - rest) >> 31, subnormal = (rest - ints(0x400)) >> 31;
  const ints normal = (rest << 13) + ints(112 << 23) + (not_finite & ints(112 << 23));
  const ints few = std::bit_cast<ints>(xsimd::to_float(rest) * vec(0x1p-24f));
  return std::bit_cast<vec>(sign | (subnormal & few) | (~subnormal & normal));
#endif
}

#ifdef SAMBA_Q4_BYTES

inline void set_row_numbers(const std::int32_t* q, Q4Row& x) {
#ifdef __AVX512F__
  const __m128i low = _mm512_cvtepi32_epi8(_mm512_loadu_si512(q));
  const __m128i high = _mm512_cvtepi32_epi8(_mm512_loadu_si512(q + 16));
  std::memcpy(x.quads, &low, sizeof(low));
  std::memcpy(x.quads + 4, &high, sizeof(high));
#else
  std::int8_t bytes[Q4Block::size];
  for (int k = 0; k < Q4Block::size; ++k) bytes[k] = static_cast<std::int8_t>(q[k]);
  std::memcpy(x.quads, bytes, sizeof(bytes));
#endif
}

/// sum + the products of bytes, weights from 0 to 15 and x from -127 to 127, added up by pairs or
/// fours; sum_of_fours makes 32-bit sums of it. Eight products of a pair, at most 8 * 2 * 15 * 127,
/// fit in 16 bits.
#if defined(__AVX512VNNI__)
inline ints add_products(ints sum, ints weight, ints x) {
  return ints(_mm512_dpbusd_epi32(sum, weight, x));
}
inline ints sum_of_fours(ints sum) { return sum; }
#elif defined(__AVX512BW__)
inline ints add_products(ints sum, ints weight, ints x) {
  return ints(_mm512_add_epi16(sum, _mm512_maddubs_epi16(weight, x)));
}
inline ints sum_of_fours(ints sum) { return ints(_mm512_madd_epi16(sum, _mm512_set1_epi16(1))); }
#elif defined(__AVX512F__)
template <class F>
inline ints by_halves(ints a, ints b, F f) {
  const __m256i low = f(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b));
  const __m256i high = f(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1));
  return ints(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
inline ints add_products(ints sum, ints weight, ints x) {
  const ints products =
      by_halves(weight, x, [](__m256i a, __m256i b) { return _mm256_maddubs_epi16(a, b); });
  return by_halves(sum, products, [](__m256i a, __m256i b) { return _mm256_add_epi16(a, b); });
}
inline ints sum_of_fours(ints sum) {
  return by_halves(sum, ints(0x00010001),
                   [](__m256i a, __m256i b) { return _mm256_madd_epi16(a, b); });
}
#elif defined(__AVX2__)
inline ints add_products(ints sum, ints weight, ints x) {
  return ints(_mm256_add_epi16(sum, _mm256_maddubs_epi16(weight, x)));
}
inline ints sum_of_fours(ints sum) { return ints(_mm256_madd_epi16(sum, _mm256_set1_epi16(1))); }
#else
inline ints add_products(ints sum, ints weight, ints x) {
  const __m128i even = _mm_srai_epi16(_mm_slli_epi16(x, 8), 8), odd = _mm_srai_epi16(x, 8);
  sum += ints(_mm_madd_epi16(weight & ints(0x00ff00ff), even));
  return sum + ints(_mm_madd_epi16(_mm_srli_epi16(weight, 8), odd));
}
inline ints sum_of_fours(ints sum) { return sum; }
#endif

/// For vectors [first, first + count), as many as fit in registers beside the operands.
template <int first, int count, int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_q4_part(const Q4Row* x, std::int64_t x_stride,
                                                    const std::byte* w, std::int64_t w_panel, int c,
                                                    vec (&product)[Rows][vecs]) {
  ints sum[Rows][count];
  unroll<Rows * count>([&](auto i)
                           __attribute__((always_inline)) { sum[i / count][i % count] = ints(0); });
  for (std::size_t j = 0; j < 4; ++j, w += sizeof(Q4Block::q[0])) {
    ints low[count], high[count];
    unroll<count>([&](auto v) __attribute__((always_inline)) {
      const ints both = load_ints(weights_at<first + v>(w, w_panel, c));
      low[v] = both & ints(0x0f0f0f0f);
      high[v] = (both >> 4) & ints(0x0f0f0f0f);
    });
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const Q4Row& row = x[i * x_stride];
      const ints x_low(row.quads[j]), x_high(row.quads[4 + j]);
      unroll<count>([&](auto v) __attribute__((always_inline)) {
        sum[i][v] = add_products(sum[i][v], low[v], x_low);
        sum[i][v] = add_products(sum[i][v], high[v], x_high);
      });
    });
  }
  unroll<Rows * count>([&](auto i) __attribute__((always_inline)) {
    product[i / count][first + i % count] =
        xsimd::to_float(sum_of_fours(sum[i / count][i % count]));
  });
}

/// product[i][v] = the sums of a block's products, integers converted to float.
template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_q4(const Q4Row* x, std::int64_t x_stride,
                                               const std::byte* w, std::int64_t w_panel, int c,
                                               vec (&product)[Rows][vecs]) {
  constexpr int count = (std::min)(vecs, lanes == 16 ? 8 : Rows == 1 ? 4 : 2);
  unroll<vecs / count>([&](auto i) __attribute__((always_inline)) {
    multiply_q4_part<i * count, count>(x, x_stride, w, w_panel, c, product);
  });
}

#else

inline void set_row_numbers(const std::int32_t* q, Q4Row& x) {
  for (int k = 0; k < Q4Block::size; ++k) x.x[k] = static_cast<float>(q[k]);
}

/// In floats, which represent these integers exactly: they are below 2^24.
template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_q4(const Q4Row* x, std::int64_t x_stride,
                                               const std::byte* w, std::int64_t w_panel, int c,
                                               vec (&product)[Rows][vecs]) {
  unroll<vecs>([&](auto v) __attribute__((always_inline)) {
    unroll<Rows>([&](auto i) __attribute__((always_inline)) { product[i][v] = vec(0.f); });
    for (std::size_t j = 0; j < 4; ++j) {
      ints bytes = load_ints(weights_at<v>(w + j * sizeof(Q4Block::q[0]), w_panel, c));
      for (std::size_t k = 0; k < 8; ++k, bytes = bytes >> 4) {
        const vec weight = xsimd::to_float(bytes & ints(15));
        unroll<Rows>([&](auto i) __attribute__((always_inline)) {
          const std::size_t at = 4 * j + k / 2 + k % 2 * (Q4Block::size / 2);
          product[i][v] = fma(vec(x[i * x_stride].x[at]), weight, product[i][v]);
        });
      }
    }
  });
}

#endif

}  // namespace detail

template <>
struct Operand<q4> {
  using Element = Q4Row;
  static constexpr int rows = lanes == 16 ? 6 : 4, rows_from = rows;
  static constexpr std::int64_t piece = lanes == 16 ? 256 : 7, single_ahead = 0;
  static constexpr std::int64_t group_bytes = sizeof(Q4Block);

  /// The n values of a row, padded with zeros to whole blocks.
  static void prepare(const float* row, std::int64_t n, Element* x) {
    for_each_quantised_block(row, n,
                             [&](const QuantisedBlock& block) __attribute__((always_inline)) {
                               detail::set_row_numbers(block.q, *x);
                               x->scale = block.scale;
                               x->total = static_cast<float>(block.sum) * block.scale;
                               ++x;
                             });
  }

  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const Element* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    vec product[Rows][vecs];
    detail::multiply_q4(x, x_stride, w, w_panel, c, product);
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      const vec scale = halves_at<v>(w, w_panel, c, offsetof(Q4Block, scale)),
                minimum = halves_at<v>(w, w_panel, c, offsetof(Q4Block, minimum));
      unroll<Rows>([&](auto i) __attribute__((always_inline)) {
        const Element& row = x[i * x_stride];
        sum[i][v] = fma(product[i][v] * vec(row.scale), scale, sum[i][v]);
        sum[i][v] = fma(vec(row.total), minimum, sum[i][v]);
      });
    });
  }

 private:
  /// The halves of vector v of the outputs starting at c, in an array of a block.
  template <int v>
  [[gnu::always_inline]] static vec halves_at(const std::byte* w, std::int64_t w_panel, int c,
                                              std::size_t array) {
    constexpr int at = v * lanes;
    return detail::load_halves(w + at / panel_width * w_panel + array +
                               2 * static_cast<std::size_t>(c + at % panel_width));
  }
};

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
