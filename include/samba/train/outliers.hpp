#pragma once
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET {

/// When a step counts as an outlier.
struct OutlierOptions {
  double z_limit = 6;      ///< standard deviations above the mean; 0: no outliers
  int horizon = 100;       ///< steps over which mean and variance average, exponentially weighted
  int warmup_steps = 100;  ///< first steps, which only update mean and variance
  bool skip = false;       ///< skip the step instead of only reporting it

  void check_options() const {
    check_option("OutlierOptions::z_limit", z_limit, 0, 1e9);
    check_at_least("OutlierOptions::horizon", horizon, 2);
    check_at_least("OutlierOptions::warmup_steps", warmup_steps, 2);
  }
};

/// Mean and variance of a slowly changing number: over all numbers equally until there are
/// `horizon` of them, then with exponential weights (West 1979).
struct RunningStatistics {
  std::int64_t count = 0;
  double mean = 0, variance = 0;

  /// The standard deviation, but no less than the differences that rounding alone may cause.
  double deviation() const { return (std::max)(std::sqrt(variance), 1e-6 * std::abs(mean)); }

  /// The number of standard deviations by which x exceeds the mean; 0 during warm-up.
  double z(double x, const OutlierOptions& options) const {
    return count < options.warmup_steps || deviation() == 0 ? 0 : (x - mean) / deviation();
  }

  /// Adds x. An outlier counts as the largest number that is not one, so that the mean follows if
  /// the numbers stay at a new level.
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
