#pragma once
#include <samba/core/tensor.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// out = x / sqrt(mean(x^2) + eps) * weight over n values (Zhang & Sennrich 2019). out may be x.
template <class R>
void rmsnorm(const R* x, const R* weight, R eps, std::int64_t n, R* out) {
  R sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const R scale = R{1} / std::sqrt(sum / static_cast<R>(n) + eps);
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
