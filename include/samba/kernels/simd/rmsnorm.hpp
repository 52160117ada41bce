#pragma once
#include <samba/kernels/reference/rmsnorm.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline float rms_inverse(const float* x, float eps, std::int64_t n) {
  vec squares(0.f);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec v = load_part(x + i, m);
    squares = fma(v, v, squares);
  });
  return 1.f / std::sqrt(sum(squares) / static_cast<float>(n) + eps);
}

[[gnu::noinline]] inline void rmsnorm(const float* x, const float* weight, float eps,
                                      std::int64_t n, float* out) {
  const vec scale(rms_inverse(x, eps, n));
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    store_part(out + i, load_part(x + i, m) * scale * load_part(weight + i, m), m);
  });
}

[[gnu::noinline]] inline void rmsnorm_backward(const float* x, const float* weight, float s,
                                               std::int64_t n, const float* dy, float* dx) {
  vec products(0.f);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    products = fma(load_part(x + i, m) * load_part(weight + i, m), load_part(dy + i, m), products);
  });
  const vec scale(s), mean(s * (sum(products) / static_cast<float>(n)));
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec gradient = load_part(weight + i, m) * load_part(dy + i, m);
    const vec along = load_part(x + i, m) * scale * mean;
    store_part(dx + i, fma(scale, gradient - along, load_part(dx + i, m)), m);
  });
}

[[gnu::noinline]] inline void rmsnorm_backward_weight(const float* x, float s, const float* dy,
                                                      Range columns, float* dweight) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t m) {
    const vec normed = load_part(x + i, m) * vec(s);
    store_part(dweight + i, fma(normed, load_part(dy + i, m), load_part(dweight + i, m)), m);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
