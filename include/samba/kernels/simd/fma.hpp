#pragma once
#include <samba/kernels/simd/vec_type.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// a * b + c, rounded once if the instruction set has such an instruction. Spelled out for AVX-512,
/// where xsimd 8.1 relies on the compiler to contract product and sum: g++ does, clang does not.
inline vec fma(vec a, vec b, vec c) {
#ifdef __AVX512F__
  return _mm512_fmadd_ps(a, b, c);
#else
  return xsimd::fma(a, b, c);
#endif
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
