#pragma once
#include <samba/core/tensor.hpp>

#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 takes the undefined operands inside its own AVX-512 intrinsics for uninitialised
// variables.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <xsimd/xsimd.hpp>
#pragma GCC diagnostic pop
#else
#include <xsimd/xsimd.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// The widest vector of floats of the compiled instruction set.
using vec = xsimd::batch<float>;
inline constexpr int lanes = static_cast<int>(vec::size);
static_assert(lanes == vector_floats, "xsimd and samba disagree about the instruction set");

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
