#pragma once
/// \file
/// The sizes in which the library `samba::compiled` has its templates. The list of its functions, the
/// check of a program's sizes and the message of that check follow from these two lines.
#include <samba/core/config.hpp>

#include <utility>

#define SAMBA_COMPILED_D_STATES 4, 8, 16, 32, 64, 128
#define SAMBA_COMPILED_D_CONVS 2, 3, 4, 5, 6

namespace samba::inline SAMBA_TARGET::kernels::compiled {

using DStates = std::integer_sequence<int, SAMBA_COMPILED_D_STATES>;
using DConvs = std::integer_sequence<int, SAMBA_COMPILED_D_CONVS>;

/// Whether a size is in a list.
template <int... sizes>
constexpr bool holds(std::integer_sequence<int, sizes...>, int size) {
  return ((size == sizes) || ...);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
