#pragma once
#include <samba/kernels/simd/operand.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

#ifdef __AVX512BF16__

/// Pairs of bf16, which the processor multiplies and sums in float.
template <>
struct Operand<bf16> {
  using Element = std::int32_t;
  static constexpr int rows = 12, rows_from = rows;
  static constexpr std::int64_t group_bytes = panel_width * 2 * sizeof(bf16), piece = 2048,
                                single_ahead = 0;

  /// The n values of a row as pairs, rounded; an odd last one is paired with 0.
  static void prepare(const float* row, std::int64_t n, Element* x) {
    const auto half = [&](std::int64_t j) {
      return j >= n ? vec(0.f) : load_part(row + j, std::min<std::int64_t>(n - j, lanes));
    };
    std::int64_t j = 0;
    for (; j + 2 * lanes <= n; j += 2 * lanes) {
      const __m512bh pairs = _mm512_cvtne2ps_pbh(load(row + j + lanes), load(row + j));
      std::memcpy(x + j / 2, &pairs, sizeof(pairs));
    }
    if (j < n) {
      const __m512bh pairs = _mm512_cvtne2ps_pbh(half(j + lanes), half(j));
      std::memcpy(x + j / 2, &pairs, static_cast<std::size_t>((n - j + 1) / 2 * 4));
    }
  }

  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const Element* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    __m512i weight[vecs];
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      weight[v] = _mm512_loadu_si512(weights_at<v>(w, w_panel, c));
    });
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const auto xi = std::bit_cast<__m512bh>(_mm512_set1_epi32(x[i * x_stride]));
      unroll<vecs>([&](auto v) __attribute__((always_inline)) {
        sum[i][v] = _mm512_dpbf16_ps(sum[i][v], std::bit_cast<__m512bh>(weight[v]), xi);
      });
    });
  }
};

#else

/// Pairs of bf16 weights are widened to float: each is the upper half of a float, the lower one
/// after a shift. Rows are rounded to bf16, too, but stored as floats.
template <>
struct Operand<bf16> {
  struct Element {
    float x[2];
  };
  static constexpr int rows = lanes == 16 ? 12 : 6, rows_from = lanes == 8 ? 12 : rows;
  static constexpr std::int64_t group_bytes = panel_width * 2 * sizeof(bf16);
  static constexpr std::int64_t piece = lanes == 16 ? 2048 : 64, single_ahead = 8192;

  static void prepare(const float* row, std::int64_t n, Element* x) {
    auto* const to = reinterpret_cast<float*>(x);
    for_each_vec({0, n}, [&](std::int64_t k, std::int64_t m) {
      store_part(to + k, rounded_to_bf16(load_part(row + k, m)), m);
    });
    if (n % 2 != 0) to[n] = 0.f;
  }

  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const Element* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    unroll<2>([&](auto half) __attribute__((always_inline)) {
      // Load again for the second half: keeping the first load would take registers from the sums.
      if constexpr (half == 1) __asm__("" : "+r"(w));
      multiply_add<Rows, vecs>(
          [&](int i) __attribute__((always_inline)) { return x[i * x_stride].x[half]; },
          [&](auto v) __attribute__((always_inline)) {
            const ints both = load_ints(weights_at<v>(w, w_panel, c));
            return std::bit_cast<vec>(half == 0 ? both << 16 : (both >> 16) << 16);
          },
          sum);
    });
  }
};

#endif

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
