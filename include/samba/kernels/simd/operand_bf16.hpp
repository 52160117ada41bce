#pragma once
#include <samba/kernels/simd/operand.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

#ifdef __AVX512BF16__

/// Pairs of bf16, which the processor multiplies and adds up in float.
template <>
struct Operand<bf16> {
  using Element = std::int32_t;
  static constexpr int rows = 12;
  static constexpr std::int64_t group_bytes = panel_width * 2 * sizeof(bf16);

  /// The pairs of n values of a row, rounded; a last one without a partner stands beside 0.
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

/// Pairs of bf16 weights are widened: of 32 bits the upper half is a float as it stands, the lower
/// one after a shift. Rows are rounded to bf16 all the same.
template <>
struct Operand<bf16> {
  struct Element {
    float x[2];
  };
  static constexpr int rows = lanes == 16 ? 12 : 6;
  static constexpr std::int64_t group_bytes = panel_width * 2 * sizeof(bf16);

  static void prepare(const float* row, std::int64_t n, Element* x) {
    for (std::int64_t k = 0; k < round_up(n, 2); ++k)
      x[k / 2].x[k % 2] = k < n ? static_cast<float>(bf16(row[k])) : 0.f;
  }

  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const Element* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      std::int32_t bits[lanes];
      std::memcpy(bits, weights_at<v>(w, w_panel, c), sizeof(bits));
      const ints both = ints::load_unaligned(bits);
      const vec first = std::bit_cast<vec>(both << 16);
      const vec second = std::bit_cast<vec>(both & ints(static_cast<std::int32_t>(0xffff0000)));
      unroll<Rows>([&](auto i) __attribute__((always_inline)) {
        sum[i][v] = fma(vec(x[i * x_stride].x[0]), first, sum[i][v]);
        sum[i][v] = fma(vec(x[i * x_stride].x[1]), second, sum[i][v]);
      });
    });
  }
};

#endif

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
