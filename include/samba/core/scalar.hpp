#pragma once
#include <samba/core/config.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even.
struct bf16 {
  std::uint16_t bits = 0;

  constexpr bf16() = default;
  constexpr explicit bf16(float f) {
    const auto u = std::bit_cast<std::uint32_t>(f);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>((nan ? u | 0x400000u : u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  constexpr operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// The value of an IEEE half (binary16), exactly; a NaN keeps its sign and payload.
constexpr float f16_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  std::uint32_t exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 31) {
    exponent = 255 - 112;  // infinity or NaN
  } else if (exponent == 0) {
    if (fraction == 0) return std::bit_cast<float>(sign);
    const int shift = std::countl_zero(fraction) - 21;  // moves the leading one to bit 10
    fraction = fraction << shift & 0x3ffu;
    exponent = 1u - static_cast<std::uint32_t>(shift);  // may wrap; adding the bias below undoes it
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

/// The nearest IEEE half as its bits, ties to even; numbers from 65520 on are infinite.
constexpr std::uint16_t f16_from_float(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f), magnitude = bits & 0x7fffffffu;
  const auto rounded = [](std::uint32_t x, int shift) {
    return (x + (1u << (shift - 1)) - 1 + (x >> shift & 1u)) >> shift;
  };
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u)
    half = 0x7e00;  // NaN
  else if (magnitude >= 0x477ff000u)
    half = 0x7c00;
  else if (magnitude >= 0x38800000u)  // 2^-14, the smallest normal half
    half = rounded(magnitude - (112u << 23), 13);
  else if (magnitude >= 0x33000000u)  // half of the smallest half, 2^-24
    half = rounded((magnitude & 0x7fffffu) | 0x800000u, static_cast<int>(126 - (magnitude >> 23)));
  return static_cast<std::uint16_t>(bits >> 16 & 0x8000u) | static_cast<std::uint16_t>(half);
}

/// One-byte weights, quantised in groups; see Packing<int8>.
using int8 = std::int8_t;

/// Weights of 4 bits, quantised in groups; see Packing<q4>. An object is one byte of a packed matrix.
enum class q4 : std::uint8_t {};

/// Stands in for T where every tensor is row major, as in a file: matrices of E, vectors of
/// Real<RowMajor<E>>.
template <class E>
struct RowMajor {};

/// The layout, in R, of weights that an optimiser updates, of their gradients and of its own state.
template <class R>
using Master = RowMajor<R>;

namespace detail {
template <class T>
struct Types {
  using Real = float;
  using Element = T;
  using TableElement = T;
  using HeadWeight = T;
};
template <>
struct Types<double> {
  using Real = double;
  using Element = double;
  using TableElement = double;
  using HeadWeight = double;
};
template <>
struct Types<int8> {
  using Real = float;
  using Element = int8;
  using TableElement = bf16;  // int8 scales only make sense in products
  using HeadWeight = int8;
};
template <>
struct Types<q4> {
  using Real = float;
  using Element = q4;
  using TableElement = bf16;
  using HeadWeight = int8;  // where 4 bits cost most: see docs/numerics.md
};
template <class E>
struct Types<RowMajor<E>> : Types<E> {
  using HeadWeight = RowMajor<E>;
};
}  // namespace detail

/// The type of vectors, states and sums for matrices of type T, or for a Policy.
template <class T>
using Real = typename detail::Types<T>::Real;

/// The type of a matrix's elements as stored.
template <class T>
using Element = typename detail::Types<T>::Element;

/// The type of a lookup table's elements for matrices of type T.
template <class T>
using TableElement = typename detail::Types<T>::TableElement;

/// The type of the head's matrix, which is also the embedding if they are tied, in a model with
/// matrices of type T.
template <class T>
using HeadWeight = typename detail::Types<T>::HeadWeight;

/// True for a number that is neither infinite nor NaN. Tests bits, so it works under -ffast-math.
constexpr bool is_finite(float f) {
  return (std::bit_cast<std::uint32_t>(f) & 0x7f800000u) != 0x7f800000u;
}

/// A half-open range of indices.
struct Range {
  std::int64_t begin = 0, end = 0;
};

/// The smallest multiple of `unit` that is at least n.
constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace samba::inline SAMBA_TARGET
