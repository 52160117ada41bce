#pragma once
#include <samba/kernels/reference/rope.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

inline void rope(const float* cos, const float* sin, int half, float* head) {
  for_each_vec({0, half}, [&](std::int64_t i, std::int64_t n) {
    const vec a = load_part(head + i, n), b = load_part(head + i + half, n);
    const vec c = load_part(cos + i, n), s = load_part(sin + i, n);
    store_part(head + i, fma(a, c, -(b * s)), n);
    store_part(head + i + half, fma(a, s, b * c), n);
  });
}

inline void rope_backward(const float* cos, const float* sin, int half, float* head) {
  for_each_vec({0, half}, [&](std::int64_t i, std::int64_t n) {
    const vec a = load_part(head + i, n), b = load_part(head + i + half, n);
    const vec c = load_part(cos + i, n), s = load_part(sin + i, n);
    store_part(head + i, fma(a, c, b * s), n);
    store_part(head + i + half, fma(b, c, -(a * s)), n);
  });
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
