#pragma once
#include <samba/kernels/reference/cross_entropy.hpp>
#include <samba/kernels/simd/vec.hpp>

#include <limits>

namespace samba::inline SAMBA_TARGET::kernels::simd {

[[gnu::noinline]] inline float cross_entropy(float* logits, std::int64_t n, std::int64_t target,
                                             float scale) {
  const ints exponent(0x7f800000);  // all ones if the number is not finite
  vec highest(logits[0]), total(0.f);
  ints exponents(0);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec x = m == lanes ? load(logits + i) : part_and(logits + i, m, logits[i]);
    highest = (xsimd::max)(highest, x);
    exponents = (xsimd::max)(exponents, std::bit_cast<ints>(x) & exponent);
  });
  if (xsimd::any(exponents == exponent)) return std::numeric_limits<float>::quiet_NaN();
  const float maximum = greatest(highest), found = logits[target] - maximum;
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    const vec e = exp_below(load_part(logits + i, m) - vec(maximum));
    store_part(logits + i, e, m);
    total += load_part(logits + i, m);
  });
  const float all = sum(total);
  for_each_vec({0, n}, [&](std::int64_t i, std::int64_t m) {
    store_part(logits + i, load_part(logits + i, m) * vec(scale / all), m);
  });
  logits[target] -= scale;
  return std::log(all) - found;
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
