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

/// One-byte weights, quantised in groups; see Packing<int8>.
using int8 = std::int8_t;

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
};
template <>
struct Types<double> {
  using Real = double;
  using Element = double;
  using TableElement = double;
};
template <>
struct Types<int8> {
  using Real = float;
  using Element = int8;
  using TableElement = bf16;  // int8 scales only make sense in products
};
template <class E>
struct Types<RowMajor<E>> : Types<E> {};
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
