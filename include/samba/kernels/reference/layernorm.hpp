#pragma once
#include <samba/kernels/layernorm.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

/// The mean of a row, and 1 / sqrt(variance + eps).
template <class R>
struct RowStatistics {
  R mean, inverse;
};

namespace reference {

/// In two passes: the variance is computed around the mean.
template <class R>
RowStatistics<R> row_statistics(const R* x, R eps, std::int64_t n) {
  R sum = 0, squares = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += x[i];
  const R mean = sum / static_cast<R>(n);
  for (std::int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, R{1} / std::sqrt(squares / static_cast<R>(n) + eps)};
}

/// out = (x - mean) inverse weight + bias over n values. bias may be null, out may be x.
template <class R>
void layernorm(const R* x, const R* weight, const R* bias, R eps, std::int64_t n, R* out) {
  const auto [mean, inverse] = row_statistics(x, eps, n);
  for (std::int64_t i = 0; i < n; ++i)
    out[i] = (x[i] - mean) * inverse * weight[i] + (bias ? bias[i] : R{0});
}

/// dx += the gradient of x, given dy, the gradient of out. With y = (x - mean) inverse, g = weight
/// dy:
///   dx = inverse (g - mean(g) - y mean(g y))
template <class R>
void layernorm_backward(const R* x, const R* weight, RowStatistics<R> s, std::int64_t n,
                        const R* dy, R* dx) {
  R sum = 0, products = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const R g = weight[i] * dy[i];
    sum += g;
    products += g * ((x[i] - s.mean) * s.inverse);
  }
  const R mean = sum / static_cast<R>(n), along = products / static_cast<R>(n);
  for (std::int64_t i = 0; i < n; ++i) {
    const R y = (x[i] - s.mean) * s.inverse;
    dx[i] += s.inverse * (weight[i] * dy[i] - mean - y * along);
  }
}

/// dweight += y dy and dbias += dy for a range of columns of one row. dbias may be null.
template <class R>
void layernorm_backward_weight(const R* x, RowStatistics<R> s, const R* dy, Range columns,
                               R* dweight, R* dbias) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) {
    dweight[i] += (x[i] - s.mean) * s.inverse * dy[i];
    if (dbias) dbias[i] += dy[i];
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
