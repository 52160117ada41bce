#pragma once
#include <samba/core/scalar.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET {

/// How the matrix of a linear map, (N outputs, K inputs), is packed: in panels of panel_width rows;
/// within a panel k by k, with the panel's rows side by side. For types narrower than 32 bits,
/// enough k are adjacent to fill 32 bits, for the instructions that multiply such a group at once.
/// Rows are padded to whole panels and groups. A one-token step and a long chunk sum over k in the
/// same order.
template <class T>
struct Packing {
  static constexpr std::int64_t group = sizeof(T) < 4 ? 4 / sizeof(T) : 1;  // adjacent k

  static constexpr std::int64_t groups(std::int64_t K) { return (K + group - 1) / group; }
  static constexpr std::int64_t bytes(std::int64_t N, std::int64_t K) {
    return round_up(N, panel_width) * groups(K) * group * static_cast<std::int64_t>(sizeof(T));
  }
  static constexpr std::int64_t index(std::int64_t row, std::int64_t k, std::int64_t K) {
    return ((row / panel_width * groups(K) + k / group) * panel_width + row % panel_width) * group +
           k % group;
  }

  static void set_row(T* data, std::int64_t row, std::int64_t K, const Real<T>* values) {
    set_part(data, row, K, {0, K}, values);
  }
  /// Sets a range of k in a row to values[k - part.begin]. part.begin is a multiple of `group`.
  static void set_part(T* data, std::int64_t row, std::int64_t K, Range part,
                       const Real<T>* values) {
    T* to = data + index(row, part.begin, K);
    const std::int64_t n = part.end - part.begin, whole = n / group * group;
    for (std::int64_t k = 0; k < whole; k += group, to += group * panel_width)
      for (std::int64_t i = 0; i < group; ++i) to[i] = static_cast<T>(values[k + i]);
    for (std::int64_t i = 0; whole + i < n; ++i) to[i] = static_cast<T>(values[whole + i]);
  }
  static void get_row(const T* data, std::int64_t row, std::int64_t K, Real<T>* values) {
    const T* from = data + index(row, 0, K);
    for (std::int64_t k = 0; k < K; ++k)
      values[k] = static_cast<Real<T>>(from[k / group * group * panel_width + k % group]);
  }
};

/// The largest magnitude of n numbers; not finite if any of them is not. (Compares bits, which are
/// ordered as magnitudes are.)
constexpr float largest_magnitude(const float* x, std::int64_t n) {
  std::uint32_t most = 0;
  for (std::int64_t i = 0; i < n; ++i)
    most = (std::max)(most, std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu);
  return std::bit_cast<float>(most);
}

/// Scales numbers up to a given magnitude to integers in [-levels, levels], and back.
struct Int8Scale {
  float value = 0, inverse = 0;

  /// Numbers too small to invert count as zeros. If a number is not finite, the scale is NaN and
  /// shows in every product, whatever the integers are.
  constexpr explicit Int8Scale(float most, float levels = 127.f) {
    if (!samba::is_finite(most))
      value = std::bit_cast<float>(0x7fc00000u);
    else if (most > 1e-30f) {
      value = most / levels;
      inverse = levels / most;
    }
  }
  constexpr bool is_finite() const { return samba::is_finite(value); }

  /// The scale with the least squared error among some numbers of levels up to 127. Numbers that were
  /// quantised before, as in most GGUF files, are multiples of a step, the largest of at most 16: one
  /// of these scales is a whole fraction of the step, and then no error is left. (Errors are whole
  /// numbers of 2^-12 levels, so that their sum does not depend on its order.)
  [[gnu::cold]] static Int8Scale best(const float* x, std::int64_t n) {
    const float most = largest_magnitude(x, n);
    Int8Scale best(most);
    std::int64_t least = 0, least_levels = 0;
    for (const int levels : {127, 112, 120, 126, 124, 121, 117}) {
      const Int8Scale scale(most, static_cast<float>(levels));
      if (scale.inverse == 0 || !scale.is_finite()) return best;
      std::int64_t squares = 0;
      for (std::int64_t k = 0; k < n; ++k) {
        const float level = x[k] * scale.inverse;
        const long error = std::lrint(4096.f * (level - static_cast<float>(std::lrint(level))));
        squares += error * error;
      }
      // The error is that of a level times the scale, most / levels.
      if (least_levels == 0 ||
          squares * least_levels * least_levels < least * std::int64_t{levels} * levels) {
        best = scale;
        least = squares;
        least_levels = levels;
      }
      if (squares == 0) break;
    }
    return best;
  }
};

/// 32 k of a panel of int8 weights: weight = scale * (q - 128). (Unsigned, because the instruction
/// that multiplies four bytes at once takes one signed and one unsigned operand.)
struct Int8Block {
  static constexpr int size = 32;

  std::uint8_t q[size / 4][panel_width][4];
  float scale[panel_width];
};

/// One-byte weights, symmetric, with one float scale per row and 32 k, Int8Scale::best. In memory a
/// sequence of Int8Block; `data` points to the first.
template <>
struct Packing<int8> {
  static constexpr std::int64_t group = Int8Block::size;

  static constexpr std::int64_t groups(std::int64_t K) { return (K + group - 1) / group; }
  static constexpr std::int64_t bytes(std::int64_t N, std::int64_t K) {
    return round_up(N, panel_width) / panel_width * groups(K) *
           static_cast<std::int64_t>(sizeof(Int8Block));
  }

  static void set_row(int8* data, std::int64_t row, std::int64_t K, const float* values) {
    set_part(data, row, K, {0, K}, values);
  }
  static void set_part(int8* data, std::int64_t row, std::int64_t K, Range part,
                       const float* values) {
    for (std::int64_t begin = part.begin; begin < part.end; begin += group) {
      const float* const from = values + begin - part.begin;
      const std::int64_t n = (std::min)(part.end - begin, group);
      const Int8Scale scale = Int8Scale::best(from, n);
      int8 q[group] = {};
      for (std::int64_t k = 0; scale.is_finite() && k < n; ++k)
        q[k] = static_cast<int8>(std::lrint(from[k] * scale.inverse));
      set_group(data, row, K, begin / group, scale.value, q, n);
    }
  }
  /// Sets n <= 32 k of a row, from 32 `number`, to scale * q, where q may be -128 too.
  static void set_group(int8* data, std::int64_t row, std::int64_t K, std::int64_t number,
                        float scale, const int8* q, std::int64_t n) {
    Int8Block& block = reinterpret_cast<Int8Block*>(data)[row / panel_width * groups(K) + number];
    const auto r = row % panel_width;
    block.scale[r] = scale;
    for (std::int64_t k = 0; k < n; ++k)
      block.q[k / 4][r][k % 4] = static_cast<std::uint8_t>(128 + q[k]);
  }
  static void get_row(const int8* data, std::int64_t row, std::int64_t K, float* values) {
    const auto* block = reinterpret_cast<const Int8Block*>(data) + row / panel_width * groups(K);
    const auto r = row % panel_width;
    for (std::int64_t k = 0; k < K; ++k) {
      const Int8Block& b = block[k / group];
      values[k] = b.scale[r] * static_cast<float>(b.q[k % group / 4][r][k % 4] - 128);
    }
  }
};

}  // namespace samba::inline SAMBA_TARGET
