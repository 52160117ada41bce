#pragma once
#include <samba/core/error.hpp>

namespace samba::inline SAMBA_TARGET {

#ifdef SAMBA_COMPILED

/// The instruction set that the kernels use: the best that samba::compiled holds and the processor
/// has, or the one given to use_instruction_set.
std::string_view instruction_set();

/// Makes all kernels of the program use an instruction set: sse2, avx2, avx512, avx512_vnni or
/// avx512_bf16. For the same bits on different processors, and for comparisons; while no session
/// runs. Throws where the library does not hold it or the processor lacks it, and changes nothing.
void use_instruction_set(std::string_view name);

#else

/// The instruction set that the kernels use: the one that this was compiled for.
constexpr std::string_view instruction_set() { return SAMBA_TEXT(SAMBA_INSTRUCTION_SET); }

#endif

/// One line on what was compiled: version, instruction set, threads, compiler.
inline std::string build_info() {
  constexpr std::string_view path = target;
  const bool chosen = path.starts_with("compiled");
  return detail::join(
      {"samba ", SAMBA_VERSION_MAJOR, ".", SAMBA_VERSION_MINOR, ".", SAMBA_VERSION_PATCH, ", ",
       path, chosen ? " for " : "", chosen ? instruction_set() : "", ", ",
       path.ends_with("_serial") ? "one thread" : "OpenMP", ", compiler ", __VERSION__});
}

}  // namespace samba::inline SAMBA_TARGET
