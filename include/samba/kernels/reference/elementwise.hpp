#pragma once
#include <samba/kernels/elementwise.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// 1 / (1 + e^-x)
template <class R>
R sigmoid(R x) {
  return R{1} / (R{1} + std::exp(-x));
}

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

/// x += y for a range of columns of one row.
template <class R>
void add(const R* y, Range columns, R* x) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) x[i] += y[i];
}

/// x += factor * y for a range of columns of one row.
template <class R>
void add_scaled(const R* y, R factor, Range columns, R* x) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) x[i] += factor * y[i];
}

/// out = factor * x for n numbers. Compilers vectorise this loop, with the same bits for any vector
/// width.
template <class R>
[[gnu::noinline]] void scale(const R* __restrict x, R factor, std::int64_t n, R* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = factor * x[i];
}

/// The derivative of silu, with s = 1 / (1 + e^-x): s (1 + x (1 - s))
template <class R>
R silu_derivative(R x) {
  const R s = sigmoid(x);
  return s * (R{1} + x * (R{1} - s));
}

/// The gradients of silu_mul given dout, the gradient of out, for a range of columns of one row.
/// dgate may be dout.
template <class R>
void silu_mul_backward(const R* gate, const R* up, const R* dout, Range columns, R* dgate, R* dup) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) {
    const R d = dout[i];
    dup[i] = d * silu(gate[i]);
    dgate[i] = d * up[i] * silu_derivative(gate[i]);
  }
}

/// out = sigmoid(gate) * up for some columns of one row. out may be an input.
template <class R>
void sigmoid_mul(const R* gate, const R* up, Range columns, R* out) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) out[i] = sigmoid(gate[i]) * up[i];
}
/// Its gradients given dout, the gradient of out. dgate may be dout.
template <class R>
void sigmoid_mul_backward(const R* gate, const R* up, const R* dout, Range columns, R* dgate,
                          R* dup) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) {
    const R d = dout[i], s = sigmoid(gate[i]);
    dup[i] = d * s;
    dgate[i] = d * up[i] * s * (R{1} - s);
  }
}

/// x Phi(x), Phi the normal distribution; or x / (1 + e^-2t) with t = sqrt(2 / pi) (x + 0.044715 x^3),
/// which is 0.5 x (1 + tanh(t)).
template <class R>
R gelu(R x, Gelu form) {
  if (form == Gelu::exact) return x * std::erfc(-x * std::numbers::sqrt2_v<R> / 2) / 2;
  const R t2 = R(1.5957691216057308) * (x + R(0.044715) * x * x * x);
  return x / (R{1} + std::exp(-t2));
}
template <class R>
R gelu_derivative(R x, Gelu form) {
  if (form == Gelu::exact)
    return std::erfc(-x * std::numbers::sqrt2_v<R> / 2) / 2 +
           x * R(0.3989422804014327) * std::exp(-x * x / 2);
  // Beyond 10 the derivative is 0 or 1, and exponentials come to overflow.
  x = (std::max)(R{-10}, (std::min)(x, R{10}));
  const R t2 = R(1.5957691216057308) * (x + R(0.044715) * x * x * x);
  const R s = sigmoid(t2), rest = sigmoid(-t2);  // 1 - s, which rounding would make too much of
  return s + x * s * rest * R(1.5957691216057308) * (R{1} + R(0.134145) * x * x);
}

/// out = gelu(gate) * up for some columns of one row. out may be an input.
template <class R>
void gelu_mul(const R* gate, const R* up, Range columns, Gelu form, R* out) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) out[i] = gelu(gate[i], form) * up[i];
}
/// Its gradients given dout, the gradient of out. dgate may be dout.
template <class R>
void gelu_mul_backward(const R* gate, const R* up, const R* dout, Range columns, Gelu form,
                       R* dgate, R* dup) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) {
    const R d = dout[i];
    dup[i] = d * gelu(gate[i], form);
    dgate[i] = d * up[i] * gelu_derivative(gate[i], form);
  }
}

/// x = cap * tanh(x / cap) for some columns of one row.
template <class R>
void soft_cap(R cap, Range columns, R* x) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i) x[i] = cap * std::tanh(x[i] / cap);
}
/// Its gradient, where x is the result: tanh'(t) = 1 - tanh(t)^2.
template <class R>
void soft_cap_backward(R cap, const R* x, Range columns, R* dx) {
  for (std::int64_t i = columns.begin; i < columns.end; ++i)
    dx[i] *= R{1} - (x[i] / cap) * (x[i] / cap);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
