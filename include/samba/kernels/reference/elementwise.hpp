#pragma once
#include <samba/kernels/elementwise.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// x / (1 + e^-x)
template <class R>
R silu(R x) {
  return x / (R{1} + std::exp(-x));
}

/// log(1 + e^x), without overflow
template <class R>
R softplus(R x) {
  return (x > R{0} ? x : R{0}) + std::log1p(std::exp(x > R{0} ? -x : x));
}

/// out = silu(gate) * up for the columns [columns.begin, columns.end) of one row. out may be an
/// input.
template <class R>
void silu_mul(const R* gate, const R* up, Range columns, R* out) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) out[i] = silu(gate[i]) * up[i];
}

/// x += y for some columns of one row.
template <class R>
void add(const R* y, Range columns, R* x) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) x[i] += y[i];
}

/// x += factor * y for some columns of one row.
template <class R>
void add_scaled(const R* y, R factor, Range columns, R* x) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) x[i] += factor * y[i];
}

/// out = factor * x for n numbers. Compilers vectorise this loop, and a product has the same bits
/// in vectors of any width.
template <class R>
[[gnu::noinline]] void scale(const R* __restrict x, R factor, std::int64_t n, R* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = factor * x[i];
}

/// The derivative of silu, with s = 1 / (1 + e^-x): s (1 + x (1 - s))
template <class R>
R silu_derivative(R x) {
  const R s = R{1} / (R{1} + std::exp(-x));
  return s * (R{1} + x * (R{1} - s));
}

/// The gradients of silu_mul, given dout, the gradient of out, for some columns of one row. dgate
/// may be dout.
template <class R>
void silu_mul_backward(const R* gate, const R* up, const R* dout, Range columns, R* dgate, R* dup) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) {
    const R d = dout[i];
    dup[i] = d * silu(gate[i]);
    dgate[i] = d * up[i] * silu_derivative(gate[i]);
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
