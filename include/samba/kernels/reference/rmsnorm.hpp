#pragma once
#include <samba/kernels/rmsnorm.hpp>

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

/// 1 / sqrt(mean(x^2) + eps)
template <class R>
R rms_inverse(const R* x, R eps, std::int64_t n) {
  R sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return R{1} / std::sqrt(sum / static_cast<R>(n) + eps);
}

/// dx += the gradient of x, given dy, the gradient of out. With s = rms_inverse(x):
///   dx = s (weight dy - s x mean(s x weight dy))
template <class R>
void rmsnorm_backward(const R* x, const R* weight, R s, std::int64_t n, const R* dy, R* dx) {
  R sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * weight[i] * dy[i];
  const R mean = s * (sum / static_cast<R>(n));
  for (std::int64_t i = 0; i < n; ++i) dx[i] += s * (weight[i] * dy[i] - x[i] * s * mean);
}

/// dweight += x s dy for a range of columns of one row.
template <class R>
void rmsnorm_backward_weight(const R* x, R s, const R* dy, Range columns, R* dweight) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) dweight[i] += x[i] * s * dy[i];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
