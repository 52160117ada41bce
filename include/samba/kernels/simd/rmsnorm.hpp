#pragma once
#include <samba/kernels/reference/rmsnorm.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline void rmsnorm(const float* x, const float* weight, float eps,
                                      std::int64_t n, float* out) {
  vec squares(0.f);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec v = load_part(x + i, m);
    squares = fma(v, v, squares);
  });
  const vec scale(1.f / std::sqrt(sum(squares) / static_cast<float>(n) + eps));
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    store_part(out + i, load_part(x + i, m) * scale * load_part(weight + i, m), m);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
