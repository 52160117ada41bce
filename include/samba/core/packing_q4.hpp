#pragma once
#include <samba/core/packing.hpp>

namespace samba::inline SAMBA_TARGET {

/// 32 k of a panel of 4-bit weights: weight = scale * q + minimum, q in 0..15. Scale and minimum are
/// IEEE halves, of which blocks of Q4_0 and Q4_1 in GGUF files consist: 5 bits per weight.
struct Q4Block {
  static constexpr int size = 32;

  std::uint8_t q[size / 8][panel_width]
                [4];  ///< [j][r][i]: k = 4 j + i, and 16 more in the high bits
  std::uint16_t scale[panel_width], minimum[panel_width];
};

/// The scale and minimum of a group, as halves and as floats.
struct Q4Scale {
  std::uint16_t scale_bits, minimum_bits;
  float scale = f16_to_float(scale_bits), minimum = f16_to_float(minimum_bits);
  float inverse = scale != 0 ? 1 / scale : 0.f;

  bool is_finite() const { return samba::is_finite(scale) && samba::is_finite(minimum); }
  /// The nearest of the 16 levels.
  int level(float x) const {
    return static_cast<int>(std::lrint((std::min)((std::max)((x - minimum) * inverse, 0.f), 15.f)));
  }

  /// Of n <= 32 numbers, the line through 16 levels with the least squared error that a small search
  /// finds: from the smallest to the largest number in 15 steps, in 14, and in 16 without either end;
  /// then the best line for these levels, rounded to halves. NaN if a number is not finite, infinite
  /// or NaN if the numbers do not fit in a half. (All sums are of integers and exact, so that the
  /// result does not depend on the instruction set.)
  [[gnu::cold]] static Q4Scale best(const float* x, std::int64_t n) {
    constexpr std::uint16_t nan = 0x7e00;
    if (!samba::is_finite(largest_magnitude(x, n))) return {nan, nan};
    float low = x[0], high = x[0];
    for (std::int64_t k = 1; k < n; ++k) {
      low = (std::min)(low, x[k]);
      high = (std::max)(high, x[k]);
    }
    const float range = high - low;
    if (!samba::is_finite(range)) return {nan, nan};
    if (range < 1e-30f) return {0, f16_from_float(low)};

    constexpr std::int64_t units = 15 << 15;  // from the smallest to the largest number
    const float to_units = static_cast<float>(units) / range;
    std::int32_t u[Q4Block::size];
    std::int64_t sum_u = 0;
    for (std::int64_t k = 0; k < n; ++k)
      sum_u += u[k] = static_cast<std::int32_t>(std::lrint((x[k] - low) * to_units));
    double most = -1, slope = 0, offset = 0;
    struct Levels {
      float count, skip;
    };
    for (const auto [count, skip] : {Levels{15, 0}, {14, 0}, {16, 0}, {16, 1}}) {
      std::int64_t sum_q = 0, sum_qq = 0, sum_uq = 0;
      for (std::int64_t k = 0; k < n; ++k) {
        const float level = static_cast<float>(u[k]) * (count / static_cast<float>(units));
        const auto q =
            static_cast<std::int32_t>(std::lrint((std::min)((std::max)(level - skip, 0.f), 15.f)));
        sum_q += q;
        sum_qq += q * q;
        sum_uq += std::int64_t{u[k]} * q;
      }
      const std::int64_t covariance = n * sum_uq - sum_u * sum_q,
                         variance = n * sum_qq - sum_q * sum_q;
      if (variance == 0) continue;
      // The squared error that this line leaves is a constant less this.
      const double explained = static_cast<double>(covariance) * static_cast<double>(covariance) /
                               static_cast<double>(variance);
      if (explained <= most) continue;
      most = explained;
      slope = static_cast<double>(covariance) / static_cast<double>(variance);
      offset = static_cast<double>(sum_u * variance - covariance * sum_q) /
               static_cast<double>(n * variance);
    }
    const double unit = static_cast<double>(range) / static_cast<double>(units);
    return {f16_from_float(static_cast<float>(slope * unit)),
            f16_from_float(static_cast<float>(std::fma(offset, unit, static_cast<double>(low))))};
  }
};

/// 4-bit weights with a scale and a minimum, both halves, per row and 32 k: Q4Scale::best. In memory
/// a sequence of Q4Block; `data` points to the first.
template <>
struct Packing<q4> {
  static constexpr std::int64_t group = Q4Block::size;

  static constexpr std::int64_t groups(std::int64_t K) { return (K + group - 1) / group; }
  static constexpr std::int64_t bytes(std::int64_t N, std::int64_t K) {
    return round_up(N, panel_width) / panel_width * groups(K) *
           static_cast<std::int64_t>(sizeof(Q4Block));
  }

  static void set_row(q4* data, std::int64_t row, std::int64_t K, const float* values) {
    set_part(data, row, K, {0, K}, values);
  }
  static void set_part(q4* data, std::int64_t row, std::int64_t K, Range part,
                       const float* values) {
    for (std::int64_t begin = part.begin; begin < part.end; begin += group) {
      const float* const from = values + begin - part.begin;
      const std::int64_t n = (std::min)(part.end - begin, group);
      const Q4Scale scale = Q4Scale::best(from, n);
      std::uint8_t q[group] = {};
      for (std::int64_t k = 0; scale.is_finite() && k < n; ++k)
        q[k] = static_cast<std::uint8_t>(scale.level(from[k]));
      set_group(data, row, K, begin / group, scale, q);
    }
  }
  /// Sets 32 k of a row, from 32 `number`, to levels of a scale.
  static void set_group(q4* data, std::int64_t row, std::int64_t K, std::int64_t number,
                        const Q4Scale& scale, const std::uint8_t (&q)[group]) {
    Q4Block& block = reinterpret_cast<Q4Block*>(data)[row / panel_width * groups(K) + number];
    const auto r = row % panel_width;
    block.scale[r] = scale.scale_bits;
    block.minimum[r] = scale.minimum_bits;
    for (int k = 0; k < group / 2; ++k)
      block.q[k / 4][r][k % 4] = static_cast<std::uint8_t>(q[k] | q[group / 2 + k] << 4);
  }
  static void get_row(const q4* data, std::int64_t row, std::int64_t K, float* values) {
    const auto* block = reinterpret_cast<const Q4Block*>(data) + row / panel_width * groups(K);
    for (std::int64_t k = 0; k < K; ++k) {
      const Q4Block& b = block[k / group];
      const auto r = row % panel_width;
      values[k] = f16_to_float(b.scale[r]) * static_cast<float>(level(b, r, k % group)) +
                  f16_to_float(b.minimum[r]);
    }
  }
  /// q of one weight of a block.
  static int level(const Q4Block& block, std::int64_t r, std::int64_t k) {
    return block.q[k % (group / 2) / 4][r][k % 4] >> (k < group / 2 ? 0 : 4) & 15;
  }
};

}  // namespace samba::inline SAMBA_TARGET
