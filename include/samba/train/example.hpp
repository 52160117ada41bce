#pragma once
#include <samba/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace samba::inline SAMBA_TARGET {

/// The tokens of one sequence and their targets: targets[i] follows tokens[i]. A negative target
/// does not count; the others have weight weights[i], or 1 if there are no weights.
struct Example {
  std::span<const std::int32_t> tokens, targets;
  std::span<const float> weights = {};

  /// The sum of the weights of all targets that count.
  double weight() const {
    double sum = 0;
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] >= 0) sum += weights.empty() ? 1. : static_cast<double>(weights[i]);
    return sum;
  }
};

}  // namespace samba::inline SAMBA_TARGET
