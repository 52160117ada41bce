#pragma once
#include <samba/core/error.hpp>

namespace samba::inline SAMBA_TARGET {

#ifdef SAMBA_COMPILED

/// The instruction set that the kernels use: the best that samba::compiled holds and the processor
/// has, or the one given to use_instruction_set.
std::string_view instruction_set();

/// Makes all kernels of the program use an instruction set: sse2, avx2, avx512, avx512_vnni or
/// avx512_bf16. For the same bits on different processors, and for comparisons; while no session
/// runs. Throws if the library does not hold it or the processor lacks it, and changes nothing.
void use_instruction_set(std::string_view name);

#else

/// The instruction set that the kernels use: the one that this was compiled for.
constexpr std::string_view instruction_set() { return SAMBA_TEXT(SAMBA_INSTRUCTION_SET); }

#endif

/// Whether this translation unit is compiled with optimisation: at -O0, which is what CMake without
/// a build type gives, everything is tens of times slower.
#ifdef __OPTIMIZE__
constexpr bool is_optimised = true;
#else
constexpr bool is_optimised = false;
#endif

/// One line on what was compiled: version, instruction set, threads, compiler, and whether it was
/// not optimised. (Static, because that belongs to a translation unit, not to its instruction set.)
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
