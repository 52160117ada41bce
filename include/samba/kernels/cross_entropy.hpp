#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/cross_entropy.hpp>
#endif

#include <algorithm>

namespace samba::inline SAMBA_TARGET::kernels {

/// losses[i] = -log softmax(logits of row i)[targets[i]], and the logits become scale times its
/// gradient; 0 for both where a target is negative, and a loss of NaN where a logit is not finite.
/// logits: (rows, N). weights: what loss and gradient of each row count, or null: 1; with 0 both are
/// 0 whatever the logits. Threads take rows.
template <class R, int N>
void cross_entropy(const Team& team, const std::int32_t* targets, R scale, Rows<R, N> logits,
                   R* losses, const float* weights = nullptr) {
  const Range rows = team.share(logits.count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    const R weight = weights ? static_cast<R>(weights[i]) : R{1};
    if (targets[i] < 0 || weight == 0) {
      losses[i] = 0;
      std::fill_n(logits.row(i), N, R{0});
    } else if constexpr (std::is_same_v<R, float>) {
      losses[i] = weight * simd::cross_entropy(logits.row(i), N, targets[i], weight * scale);
    } else {
      losses[i] = weight * reference::cross_entropy(logits.row(i), N, targets[i], weight * scale);
    }
  }
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
