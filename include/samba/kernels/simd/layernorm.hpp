#pragma once
#include <samba/kernels/reference/layernorm.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline RowStatistics<float> row_statistics(const float* x, float eps,
                                                             std::int64_t n) {
  vec total(0.f), squares(0.f);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) { total += load_part(x + i, m); });
  const float mean = sum(total) / static_cast<float>(n);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    // Lanes past the end of the row are set to the mean, so that they do not count.
    const vec away = m == lanes ? load(x + i) - vec(mean) : part_and(x + i, m, mean) - vec(mean);
    squares = fma(away, away, squares);
  });
  return {mean, 1.f / std::sqrt(sum(squares) / static_cast<float>(n) + eps)};
}

[[gnu::noinline]] inline void layernorm(const float* x, const float* weight, const float* bias,
                                        float eps, std::int64_t n, float* out) {
  const RowStatistics<float> s = row_statistics(x, eps, n);
  const vec mean(s.mean), inverse(s.inverse);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec y = (load_part(x + i, m) - mean) * inverse;
    const vec start = bias ? load_part(bias + i, m) : vec(0.f);
    store_part(out + i, fma(y, load_part(weight + i, m), start), m);
  });
}

[[gnu::noinline]] inline void layernorm_backward(const float* x, const float* weight,
                                                 RowStatistics<float> s, std::int64_t n,
                                                 const float* dy, float* dx) {
  vec total(0.f), products(0.f);
  const vec mean(s.mean), inverse(s.inverse);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec g = load_part(weight + i, m) * load_part(dy + i, m);  // 0 past the end
    total += g;
    products = fma(g, (load_part(x + i, m) - mean) * inverse, products);
  });
  const vec mean_g(sum(total) / static_cast<float>(n)),
      along(sum(products) / static_cast<float>(n));
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec g = load_part(weight + i, m) * load_part(dy + i, m);
    const vec y = (load_part(x + i, m) - mean) * inverse;
    store_part(dx + i, fma(inverse, g - mean_g - y * along, load_part(dx + i, m)), m);
  });
}

[[gnu::noinline]] inline void layernorm_backward_weight(const float* x, RowStatistics<float> s,
                                                        const float* dy, Range columns,
                                                        float* dweight, float* dbias) {
  for_each_vec(columns, [&](std::int64_t i, std::int64_t m) {
    const vec y = (load_part(x + i, m) - vec(s.mean)) * vec(s.inverse), d = load_part(dy + i, m);
    store_part(dweight + i, fma(y, d, load_part(dweight + i, m)), m);
    if (dbias) store_part(dbias + i, load_part(dbias + i, m) + d, m);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
