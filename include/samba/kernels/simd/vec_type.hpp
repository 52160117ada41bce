#pragma once
#include <samba/core/tensor.hpp>

#ifdef __CUDACC__  // nvcc passes "#pragma GCC unroll" to g++, but warns that it does not know it
#pragma nv_diag_suppress 1675
#endif

// Macros named min and max, if any, would break xsimd.
#pragma push_macro("min")
#pragma push_macro("max")
#undef min
#undef max
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 mistakes the undefined operands in its own AVX-512 intrinsics for uninitialised variables.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <xsimd/xsimd.hpp>
#pragma GCC diagnostic pop
#else
#include <xsimd/xsimd.hpp>
#endif
#pragma pop_macro("min")
#pragma pop_macro("max")

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// The widest vector of floats of the compiled instruction set.
using vec = xsimd::batch<float>;
inline constexpr int lanes = static_cast<int>(vec::size);
static_assert(lanes == vector_floats, "xsimd and samba disagree about the instruction set");

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
