#pragma once
/// \file
/// Arithmetic on sizes that callers choose: overflow is an Error and never wraps around.
#include <samba/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <vector>

namespace samba::inline SAMBA_TARGET {

namespace detail {

inline constexpr std::int64_t most_bytes = INT64_MAX;

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_too_large(const char* what, std::int64_t a,
                                                                  const char* sign,
                                                                  std::int64_t b) {
  fail({what, ": ", a, sign, b, " is more than any memory holds"});
}

}  // namespace detail

/// The product of two non-negative sizes. Throws Error, naming what they are sizes of, if it
/// exceeds 2^63 - 1.
[[gnu::noinline]] constexpr std::int64_t checked_product(const char* what, std::int64_t a,
                                                         std::int64_t b) {
  if (b > 0 && a > detail::most_bytes / b) detail::fail_too_large(what, a, " x ", b);
  return a * b;
}

/// The sum of two sizes, checked in the same way.
[[gnu::noinline]] constexpr std::int64_t checked_sum(const char* what, std::int64_t a,
                                                     std::int64_t b) {
  if (a > detail::most_bytes - b) detail::fail_too_large(what, a, " + ", b);
  return a + b;
}

/// The smallest multiple of `unit` that is at least n, checked in the same way.
constexpr std::int64_t checked_round_up(const char* what, std::int64_t n, std::int64_t unit) {
  return checked_sum(what, n, unit - 1) / unit * unit;
}

/// Throws Error: this much memory is not available.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail_no_memory(const char* what,
                                                                  std::int64_t bytes) {
  fail({what, ": the system cannot provide the ", bytes, " bytes of memory that this takes"});
}

/// vector.resize(n). If there is not enough memory, throws Error with the purpose and the size.
template <class X>
[[gnu::cold]] void resize(std::vector<X>& vector, std::int64_t n, const char* what) {
  const std::int64_t bytes = checked_product(what, n, sizeof(X));
  try {
    vector.resize(static_cast<std::size_t>(n));
  } catch (const std::exception&) {
    fail_no_memory(what, bytes);
  }
}

}  // namespace samba::inline SAMBA_TARGET
