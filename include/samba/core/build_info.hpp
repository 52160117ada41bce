#pragma once
#include <samba/core/error.hpp>

namespace samba::inline SAMBA_TARGET {

#ifdef SAMBA_COMPILED

/// The instruction set that the kernels use: the best one that samba::compiled contains and the
/// processor supports, or the one given to use_instruction_set.
std::string_view instruction_set();

/// Makes all kernels of the program use one instruction set: sse2, avx2, avx512, avx512_vnni or
/// avx512_bf16, to get the same bits on different processors or to compare them. Call it only while
/// no session is running. Throws, and changes nothing, if the library does not contain the set or
/// the processor lacks it.
void use_instruction_set(std::string_view name);

#else

/// The instruction set that the kernels use: the one this file was compiled for.
constexpr std::string_view instruction_set() { return SAMBA_TEXT(SAMBA_INSTRUCTION_SET); }

#endif

/// Whether this translation unit is compiled with optimisation. At -O0, CMake's default without a
/// build type, everything is tens of times slower.
#ifdef __OPTIMIZE__
constexpr bool is_optimised = true;
#else
constexpr bool is_optimised = false;
#endif

/// One line about the build: version, instruction set, threading, compiler, and a note if it was
/// not optimised. (Static, because optimisation is a property of the translation unit.)
[[maybe_unused]] static std::string build_info() {
  constexpr std::string_view path = target;
  const bool chosen = path.starts_with("compiled");
  return detail::join({"samba ", SAMBA_VERSION_MAJOR, ".", SAMBA_VERSION_MINOR, ".",
                       SAMBA_VERSION_PATCH, ", ", path, chosen ? " for " : "",
                       chosen ? instruction_set() : "", ", ",
                       path.ends_with("_serial") ? "one thread" : "OpenMP", ", compiler ",
                       __VERSION__, is_optimised ? "" : ", not optimised"});
}

}  // namespace samba::inline SAMBA_TARGET
