#pragma once
#include <samba/core/error.hpp>
#include <samba/core/scalar.hpp>

namespace samba::inline SAMBA_TARGET {

/// Throws Error, naming the option, unless low <= x <= high.
[[gnu::cold]] inline void check_option(const char* option, double x, double low, double high) {
  if (!is_finite(static_cast<float>(x)) || x < low || x > high)
    fail({option, ": expected a number in [", low, ", ", high, "], found ", x});
}
[[gnu::cold]] inline void check_at_least(const char* option, std::int64_t x, std::int64_t low) {
  if (x < low) fail({option, ": expected at least ", low, ", found ", x});
}

}  // namespace samba::inline SAMBA_TARGET
