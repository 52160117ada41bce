#pragma once
/// \file
/// The sizes for which the library `samba::compiled` instantiates its templates. The list of its
/// functions, the check of a program's sizes and that check's message all follow from these two
/// lines.
#include <samba/core/config.hpp>

#include <utility>

#define SAMBA_COMPILED_D_STATES 4, 8, 16, 32, 64, 128
#define SAMBA_COMPILED_D_CONVS 2, 3, 4, 5, 6

namespace samba::inline SAMBA_TARGET::kernels::compiled {

using DStates = std::integer_sequence<int, SAMBA_COMPILED_D_STATES>;
using DConvs = std::integer_sequence<int, SAMBA_COMPILED_D_CONVS>;

/// True if a list contains a size.
template <int... sizes>
constexpr bool contains(std::integer_sequence<int, sizes...>, int size) {
  return ((size == sizes) || ...);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
