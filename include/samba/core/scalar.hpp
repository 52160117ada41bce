#pragma once
#include <samba/core/config.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// bfloat16: the upper half of a float. Converting to it rounds to nearest, ties to even.
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

/// Weights of one byte, quantised in groups; see Packing<int8>.
using int8 = std::int8_t;

/// Used instead of T: every tensor by rows, as in a file, with elements E; vectors in Real<RowMajor<E>>.
template <class E>
struct RowMajor {};

/// The weights that an optimiser changes, their gradients, and what it keeps of them: in R.
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
  using TableElement = bf16;  // scales serve products
};
template <class E>
struct Types<RowMajor<E>> : Types<E> {};
}  // namespace detail

/// The type of vectors, states and sums that go with matrices of type T, and of those of a Policy.
template <class T>
using Real = typename detail::Types<T>::Real;

/// The type of a matrix's elements in memory.
template <class T>
using Element = typename detail::Types<T>::Element;

/// The type of a look-up table that go with matrices of type T.
template <class T>
using TableElement = typename detail::Types<T>::TableElement;

/// True for a number that is neither infinite nor NaN; tests bits, so it holds under -ffast-math.
constexpr bool is_finite(float f) {
  return (std::bit_cast<std::uint32_t>(f) & 0x7f800000u) != 0x7f800000u;
}

/// A half-open range of indices.
struct Range {
  std::int64_t begin = 0, end = 0;
};

/// The smallest multiple of `unit` that is not below n.
constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

}  // namespace samba::inline SAMBA_TARGET
