#pragma once
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

/// How the learning rate falls from its peak.
enum class RateCurve {
  cosine,  ///< Loshchilov and Hutter 2017, without restarts
  linear,
  /// Constant, then linear in the last decay_steps (WSD, Hu et al. 2024). With decay_steps = 0 it
  /// stays at the peak, and is at the floor only after `steps`.
  stable
};

/// The learning rate of a step: it rises linearly from 0 at step 0 to `peak` at warmup_steps, falls
/// along the curve to `floor` at `steps`, and stays there. The first step of a run is step 1. If no
/// step lies between the peak and the end, the last step has the peak rate.
struct LearningRate {
  double peak = 1e-3, floor = 0;
  std::int64_t warmup_steps = 0, steps = 1;
  RateCurve curve = RateCurve::cosine;
  std::int64_t decay_steps = 0;  ///< for RateCurve::stable

  double at(std::int64_t step) const {
    check_options();
    check_at_least("LearningRate::at: step", step, 0);
    const auto part = [&](std::int64_t begin, std::int64_t end) {
      return static_cast<double>(step - begin) / static_cast<double>(end - begin);
    };
    if (step < warmup_steps) return peak * part(0, warmup_steps);
    const std::int64_t begin = curve == RateCurve::stable ? steps - decay_steps : warmup_steps;
    if (step >= steps) return step <= std::max<std::int64_t>(begin, 1) ? peak : floor;
    if (step <= begin) return peak;
    if (curve != RateCurve::cosine) return floor + (peak - floor) * (1 - part(begin, steps));
    return floor + (peak - floor) * (1 + std::cos(std::numbers::pi * part(begin, steps))) / 2;
  }

  /// Throws Error if the options do not form a schedule.
  void check_options() const {
    check_option("LearningRate::peak", peak, 1e-12, 1e3);
    check_option("LearningRate::floor", floor, 0, peak);
    check_at_least("LearningRate::steps", steps, 1);
    check_at_least("LearningRate::warmup_steps", warmup_steps, 0);
    if (warmup_steps > steps)
      fail({"LearningRate::warmup_steps: expected at most ", steps, " (steps), found ",
            warmup_steps});
    const std::int64_t most = curve == RateCurve::stable ? steps - warmup_steps : 0;
    if (decay_steps < 0 || decay_steps > most)
      fail({"LearningRate::decay_steps: expected 0 to ", most,
            most > 0 ? " (steps - warmup_steps)" : " except for RateCurve::stable", ", found ",
            decay_steps});
  }
};

}  // namespace samba::inline SAMBA_TARGET
