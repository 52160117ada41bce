#pragma once
#include <samba/train/check_option.hpp>

#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

/// The learning rate of a step: it rises linearly from 0 at step 0 to `peak` at warmup_steps, falls
/// by a cosine to `floor` at `steps`, and stays there (Loshchilov and Hutter 2017, without
/// restarts). The first step of a training has the number 1.
struct LearningRate {
  double peak = 1e-3, floor = 0;
  std::int64_t warmup_steps = 0, steps = 1;

  double at(std::int64_t step) const {
    check_options();
    check_at_least("LearningRate::at: step", step, 0);
    const auto part = [&](std::int64_t begin, std::int64_t end) {
      return static_cast<double>(step - begin) / static_cast<double>(end - begin);
    };
    if (step < warmup_steps) return peak * part(0, warmup_steps);
    if (step >= steps) return floor;
    return floor +
           (peak - floor) * (1 + std::cos(std::numbers::pi * part(warmup_steps, steps))) / 2;
  }

  /// Throws Error where the numbers make no schedule.
  void check_options() const {
    check_option("LearningRate::peak", peak, 1e-12, 1e3);
    check_option("LearningRate::floor", floor, 0, peak);
    check_at_least("LearningRate::steps", steps, 1);
    check_at_least("LearningRate::warmup_steps", warmup_steps, 0);
    if (warmup_steps > steps)
      fail({"LearningRate::warmup_steps: expected at most ", steps, " (steps), found ",
            warmup_steps});
  }
};

}  // namespace samba::inline SAMBA_TARGET
