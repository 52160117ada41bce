#pragma once
#include <samba/core/error.hpp>

namespace samba::inline SAMBA_TARGET {

/// One line on what was compiled: version, instruction set, width of a vector, threads, compiler.
inline std::string build_info() {
  constexpr std::string_view path = target;
  return detail::join({"samba ", SAMBA_VERSION_MAJOR, ".", SAMBA_VERSION_MINOR, ".",
                       SAMBA_VERSION_PATCH, ", ", path, ", vectors of ", vector_floats, " floats, ",
                       path.ends_with("_serial") ? "one thread" : "OpenMP", ", compiler ",
                       __VERSION__});
}

}  // namespace samba::inline SAMBA_TARGET
