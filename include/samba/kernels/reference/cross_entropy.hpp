#pragma once
#include <samba/kernels/cross_entropy.hpp>

#include <cmath>
#include <limits>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// -log softmax(logits)[target]. The logits, (n), are replaced by scale times its gradient,
/// scale (softmax(logits) - onehot(target)). If a logit is not finite, returns NaN and leaves the
/// logits unchanged.
template <class R>
R cross_entropy(R* logits, std::int64_t n, std::int64_t target, R scale) {
  for (std::int64_t i = 0; i < n; ++i)
    if (!is_finite(static_cast<float>(logits[i]))) return std::numeric_limits<R>::quiet_NaN();
  R maximum = logits[0], total = 0;
  for (std::int64_t i = 1; i < n; ++i) maximum = logits[i] > maximum ? logits[i] : maximum;
  const R found = logits[target] - maximum;
  for (std::int64_t i = 0; i < n; ++i) total += logits[i] = std::exp(logits[i] - maximum);
  for (std::int64_t i = 0; i < n; ++i) logits[i] *= scale / total;
  logits[target] -= scale;
  return std::log(total) - found;
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
