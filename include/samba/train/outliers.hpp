#pragma once
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET {

/// Which steps stand out.
struct OutlierOptions {
  double z_limit = 6;      ///< standard deviations above the mean; 0: none stands out
  int horizon = 100;       ///< steps that mean and variance go back, by exponential weights
  int warmup_steps = 100;  ///< that are only counted
  bool skip = false;       ///< leave the step out, instead of reporting it only

  void check_options() const {
    check_option("OutlierOptions::z_limit", z_limit, 0, 1e9);
    check_at_least("OutlierOptions::horizon", horizon, 2);
    check_at_least("OutlierOptions::warmup_steps", warmup_steps, 2);
  }
};

/// Mean and variance of a number that changes slowly: of all numbers equally until there are
/// `horizon` of them, then with exponential weights (West 1979).
struct RunningStatistics {
  std::int64_t count = 0;
  double mean = 0, variance = 0;

  /// The difference that rounding alone may make between equal numbers.
  double deviation() const { return (std::max)(std::sqrt(variance), 1e-6 * std::abs(mean)); }

  /// Standard deviations that x is above the mean; 0 within the warm-up.
  double z(double x, const OutlierOptions& options) const {
    return count < options.warmup_steps || deviation() == 0 ? 0 : (x - mean) / deviation();
  }

  /// Takes x in; an outlier as the largest number that is none, so that the mean follows where the
  /// numbers stay.
  void add(double x, const OutlierOptions& options) {
    if (options.z_limit > 0 && z(x, options) > options.z_limit)
      x = mean + options.z_limit * deviation();
    ++count;
    const double weight = 1 / static_cast<double>(std::min<std::int64_t>(count, options.horizon));
    const double difference = x - mean;
    mean += weight * difference;
    variance = (1 - weight) * (variance + weight * difference * difference);
  }
};

}  // namespace samba::inline SAMBA_TARGET
