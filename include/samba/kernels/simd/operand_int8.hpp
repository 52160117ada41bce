#pragma once
#include <samba/kernels/simd/quantised_rows.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// 32 quantised numbers of a row, their scale, and an offset that cancels the 128 in the weights:
/// -128 times the sum of the numbers. Sums within a block are integers, the same on every path;
/// sums across blocks are floats.
struct Int8Row {
#if defined(__AVX512VNNI__)
  std::int32_t quads[8];  ///< four bytes each
#elif defined(__AVX2__) || (defined(__SSE2__) && !defined(__AVX__))
  std::int32_t even[8], odd[8];  ///< two numbers of 16 bits each
#else
  float x[Int8Block::size];
#endif
  std::int32_t offset;
  float scale;
};

namespace detail {

#if defined(__AVX512VNNI__)

inline void set_row_numbers(const std::int32_t* q, Int8Row& x) {
  const __m128i low = _mm512_cvtepi32_epi8(_mm512_loadu_si512(q));
  const __m128i high = _mm512_cvtepi32_epi8(_mm512_loadu_si512(q + 16));
  std::memcpy(x.quads, &low, sizeof(low));
  std::memcpy(x.quads + 4, &high, sizeof(high));
}

/// product[i][v] = the sums of a block's products, integers converted to float.
template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_int8(const Int8Row* x, std::int64_t x_stride,
                                                 const std::byte* w, std::int64_t w_panel, int c,
                                                 vec (&product)[Rows][vecs]) {
  __m512i sum[Rows][vecs];
  unroll<Rows * vecs>([&](auto i) __attribute__((always_inline)) {
    sum[i / vecs][i % vecs] = _mm512_set1_epi32(x[i / vecs * x_stride].offset);
  });
  for (std::size_t j = 0; j < Int8Block::size / 4; ++j) {
    __m512i weight[vecs];
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      weight[v] = _mm512_loadu_si512(weights_at<v>(w + j * sizeof(Int8Block::q[0]), w_panel, c));
    });
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const __m512i xi = _mm512_set1_epi32(x[i * x_stride].quads[j]);
      unroll<vecs>([&](auto v) __attribute__((always_inline)) {
        sum[i][v] = _mm512_dpbusd_epi32(sum[i][v], weight[v], xi);
      });
    });
  }
  unroll<Rows * vecs>([&](auto i) __attribute__((always_inline)) {
    product[i / vecs][i % vecs] = _mm512_cvtepi32_ps(sum[i / vecs][i % vecs]);
  });
}

#elif defined(__AVX2__) || (defined(__SSE2__) && !defined(__AVX__))

inline void set_row_numbers(const std::int32_t* q, Int8Row& x) {
  for (int j = 0; j < 8; ++j, q += 4) {
    x.even[j] = (q[0] & 0xffff) | q[2] * 0x10000;
    x.odd[j] = (q[1] & 0xffff) | q[3] * 0x10000;
  }
}

#if defined(__AVX512F__) && !defined(__AVX512BW__)
inline ints multiply_add_pairs(ints a, ints b) {
  const __m256i low = _mm256_madd_epi16(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b));
  const __m256i high =
      _mm256_madd_epi16(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1));
  return ints(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
inline ints odd_bytes(ints a) { return (a >> 8) & ints(0x00ff00ff); }
#elif defined(__AVX512F__)
inline ints multiply_add_pairs(ints a, ints b) { return ints(_mm512_madd_epi16(a, b)); }
inline ints odd_bytes(ints a) { return ints(_mm512_srli_epi16(a, 8)); }
#elif defined(__AVX2__)
inline ints multiply_add_pairs(ints a, ints b) { return ints(_mm256_madd_epi16(a, b)); }
inline ints odd_bytes(ints a) { return ints(_mm256_srli_epi16(a, 8)); }
#else
inline ints multiply_add_pairs(ints a, ints b) { return ints(_mm_madd_epi16(a, b)); }
inline ints odd_bytes(ints a) { return ints(_mm_srli_epi16(a, 8)); }
#endif

/// For vectors [first, first + count), as many as fit in registers beside the operands.
template <int first, int count, int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_int8_part(const Int8Row* x, std::int64_t x_stride,
                                                      const std::byte* w, std::int64_t w_panel,
                                                      int c, vec (&product)[Rows][vecs]) {
  ints sum[Rows][count];
  unroll<Rows * count>([&](auto i) __attribute__((always_inline)) {
    sum[i / count][i % count] = ints(x[i / count * x_stride].offset);
  });
#pragma GCC unroll 1
  for (std::size_t j = 0; j < Int8Block::size / 4; ++j, w += sizeof(Int8Block::q[0])) {
    unroll<2>([&](auto odd) __attribute__((always_inline)) {
      // Load again for the odd bytes: keeping the first load would take registers from the sums.
      if constexpr (odd == 1) __asm__("" : "+r"(w));
      ints weight[count];
      unroll<count>([&](auto v) __attribute__((always_inline)) {
        const ints four = load_ints(weights_at<first + v>(w, w_panel, c));
        weight[v] = odd == 1 ? odd_bytes(four) : four & ints(0x00ff00ff);
      });
      unroll<Rows>([&](auto i) __attribute__((always_inline)) {
        const Int8Row& row = x[i * x_stride];
        const ints pairs(odd == 1 ? row.odd[j] : row.even[j]);
        unroll<count>([&](auto v) __attribute__((always_inline)) {
          sum[i][v] = in_register(sum[i][v] + multiply_add_pairs(weight[v], pairs));
        });
      });
    });
  }
  unroll<Rows * count>([&](auto i) __attribute__((always_inline)) {
    product[i / count][first + i % count] = xsimd::to_float(sum[i / count][i % count]);
  });
}

template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_int8(const Int8Row* x, std::int64_t x_stride,
                                                 const std::byte* w, std::int64_t w_panel, int c,
                                                 vec (&product)[Rows][vecs]) {
  constexpr int count = (std::min)(vecs, Rows == 1 ? 8 : Rows == 2 ? 4 : 2);
  unroll<vecs / count>([&](auto i) __attribute__((always_inline)) {
    multiply_int8_part<i * count, count>(x, x_stride, w, w_panel, c, product);
  });
}

#else

inline void set_row_numbers(const std::int32_t* q, Int8Row& x) {
  for (int k = 0; k < Int8Block::size; ++k) x.x[k] = static_cast<float>(q[k]);
}

/// In floats, which represent these integers exactly: they are below 2^24.
template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_int8(const Int8Row* x, std::int64_t x_stride,
                                                 const std::byte* w, std::int64_t w_panel, int c,
                                                 vec (&product)[Rows][vecs]) {
  unroll<vecs>([&](auto v) __attribute__((always_inline)) {
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      product[i][v] = vec(static_cast<float>(x[i * x_stride].offset));
    });
    for (std::size_t j = 0; j < Int8Block::size / 4; ++j) {
      ints bytes = load_ints(weights_at<v>(w + j * sizeof(Int8Block::q[0]), w_panel, c));
      for (std::size_t k = 0; k < 4; ++k, bytes = bytes >> 8) {
        const vec weight = xsimd::to_float(bytes & ints(0xff));
        unroll<Rows>([&](auto i) __attribute__((always_inline)) {
          product[i][v] = fma(vec(x[i * x_stride].x[4 * j + k]), weight, product[i][v]);
        });
      }
    }
  });
}

#endif

}  // namespace detail

template <>
struct Operand<int8> {
  using Element = Int8Row;
  static constexpr int rows = lanes == 16 ? 6 : 4, rows_from = rows;
  static constexpr std::int64_t piece = lanes == 16 ? 256 : 7, single_ahead = 8192;
  static constexpr std::int64_t group_bytes = sizeof(Int8Block);

  /// The n values of a row, padded with zeros to whole blocks.
  static void prepare(const float* row, std::int64_t n, Element* x) {
    for_each_quantised_block(row, n,
                             [&](const QuantisedBlock& block) __attribute__((always_inline)) {
                               detail::set_row_numbers(block.q, *x);
                               x->offset = -128 * block.sum;
                               x->scale = block.scale;
                               ++x;
                             });
  }

  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const Element* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    vec product[Rows][vecs];
    detail::multiply_int8(x, x_stride, w, w_panel, c, product);
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      const vec scale = load(reinterpret_cast<const float*>(
          weights_at<v>(w + offsetof(Int8Block, scale), w_panel, c)));
      unroll<Rows>([&](auto i) __attribute__((always_inline)) {
        sum[i][v] = fma(product[i][v] * vec(x[i * x_stride].scale), scale, sum[i][v]);
      });
    });
  }
};

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
