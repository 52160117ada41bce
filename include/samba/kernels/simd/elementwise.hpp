#pragma once
#include <samba/kernels/reference/elementwise.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline void silu_mul(const float* gate, const float* up, Range columns,
                                       float* out) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(out + i, silu(load_part(gate + i, n)) * load_part(up + i, n), n);
  });
}

[[gnu::noinline]] inline void add(const float* y, Range columns, float* x) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(x + i, load_part(x + i, n) + load_part(y + i, n), n);
  });
}

[[gnu::noinline]] inline void add_scaled(const float* y, float factor, Range columns, float* x) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    store_part(x + i, fma(vec(factor), load_part(y + i, n), load_part(x + i, n)), n);
  });
}

[[gnu::noinline]] inline void silu_mul_backward(const float* gate, const float* up,
                                                const float* dout, Range columns, float* dgate,
                                                float* dup) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t n) {
    const vec x = load_part(gate + i, n), s = sigmoid(x), d = load_part(dout + i, n);
    const vec u = load_part(up + i, n);
    store_part(dup + i, d * x * s, n);
    store_part(dgate + i, d * u * s * fma(x, vec(1.f) - s, vec(1.f)), n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
