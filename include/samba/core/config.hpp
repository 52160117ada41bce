#pragma once
/// \file
/// What a translation unit was compiled for. The instruction set, the floating-point mode and the
/// presence of OpenMP become part of every name in the library (an inline namespace), so that
/// translation units built with different flags can be linked together: each keeps its own code.
/// In programs that link samba::compiled it is `compiled`: that library chooses at run time.

/// \namespace samba
/// The library: layers and their composition, models, files, sessions, training.

#if __cplusplus < 202002L
#error "samba needs C++20: compile with -std=c++20"
#define SAMBA_STOP
#elif !defined(__cpp_exceptions)
#error "samba reports errors by exceptions: compile without -fno-exceptions"
#define SAMBA_STOP
#endif
#ifdef SAMBA_STOP  // with a missing file: compilers carry on after #error
#define SAMBA_STOP_AT <samba stops here>
#include SAMBA_STOP_AT
#endif

#if defined(SAMBA_COMPILED)
#define SAMBA_INSTRUCTION_SET compiled
#define SAMBA_VECTOR_FLOATS 16
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define SAMBA_INSTRUCTION_SET avx512_bf16
#elif defined(__AVX512VNNI__)
#define SAMBA_INSTRUCTION_SET avx512_vnni
#else
#define SAMBA_INSTRUCTION_SET avx512
#endif
#define SAMBA_VECTOR_FLOATS 16
#elif defined(__AVX512F__)  // but not all four of them
#define SAMBA_INSTRUCTION_SET avx512f
#define SAMBA_VECTOR_FLOATS 16
#elif defined(__AVX2__) && defined(__FMA__)
#define SAMBA_INSTRUCTION_SET avx2
#define SAMBA_VECTOR_FLOATS 8
#elif defined(__AVX__)
#define SAMBA_INSTRUCTION_SET avx
#define SAMBA_VECTOR_FLOATS 8
#elif defined(__SSE4_1__)
#define SAMBA_INSTRUCTION_SET sse4
#define SAMBA_VECTOR_FLOATS 4
#elif defined(__SSE2__)
#define SAMBA_INSTRUCTION_SET sse2
#define SAMBA_VECTOR_FLOATS 4
#elif defined(__ARM_NEON)
#define SAMBA_INSTRUCTION_SET neon
#define SAMBA_VECTOR_FLOATS 4
#else
#error "samba needs a vector instruction set: SSE2, AVX, AVX2, AVX-512 or NEON"
#endif

// The parts of -ffast-math change results, too. g++ has a macro for each, clang++ only for the
// last.
#ifdef __FAST_MATH__
#define SAMBA_MATH_MODE _fast
#else
#ifdef __ASSOCIATIVE_MATH__
#define SAMBA_ASSOCIATIVE _associative
#else
#define SAMBA_ASSOCIATIVE
#endif
#ifdef __RECIPROCAL_MATH__
#define SAMBA_RECIPROCAL _reciprocal
#else
#define SAMBA_RECIPROCAL
#endif
#ifdef __NO_SIGNED_ZEROS__
#define SAMBA_SIGNED_ZEROS _unsigned
#else
#define SAMBA_SIGNED_ZEROS
#endif
#if __FINITE_MATH_ONLY__
#define SAMBA_FINITE _finite
#else
#define SAMBA_FINITE
#endif
#define SAMBA_MATH_MODE \
  SAMBA_JOIN(SAMBA_JOIN(SAMBA_ASSOCIATIVE, SAMBA_RECIPROCAL, ), SAMBA_SIGNED_ZEROS, SAMBA_FINITE)
#endif

#ifdef _OPENMP
#define SAMBA_THREADING
#else
#define SAMBA_THREADING _serial
#endif

#define SAMBA_JOIN_(a, b, c) a##b##c
#define SAMBA_JOIN(a, b, c) SAMBA_JOIN_(a, b, c)
#define SAMBA_TEXT_(...) #__VA_ARGS__
#define SAMBA_TEXT(...) SAMBA_TEXT_(__VA_ARGS__)

/// The inline namespace that contains the whole library, for example `avx512_bf16` or `avx2_fast`.
#define SAMBA_TARGET SAMBA_JOIN(SAMBA_INSTRUCTION_SET, SAMBA_MATH_MODE, SAMBA_THREADING)

#define SAMBA_VERSION_MAJOR 0
#define SAMBA_VERSION_MINOR 1
#define SAMBA_VERSION_PATCH 0

namespace samba::inline SAMBA_TARGET {

/// Name of the compiled path: the instruction set, then `_fast` under -ffast-math (or the names of
/// the parts of it that are on), then `_serial` without OpenMP.
inline constexpr const char* target = SAMBA_TEXT(SAMBA_TARGET);

/// Floats in one vector register of the compiled path (for samba::compiled, of the widest one).
inline constexpr int vector_floats = SAMBA_VECTOR_FLOATS;

/// Outputs side by side in a packed weight matrix: two of the widest vectors on every instruction
/// set, so that packed weights are the same for all of them.
inline constexpr int panel_width = 32;

/// Alignment, in bytes, of every tensor in an arena: a cache line, and the widest vector.
inline constexpr int alignment = 64;

/// Floats in a cache line: threads that share columns take whole lines.
inline constexpr int line_floats = 16;

}  // namespace samba::inline SAMBA_TARGET
