#pragma once
#include <samba/core/config.hpp>

#include <type_traits>

namespace samba::inline SAMBA_TARGET::detail {

/// Whether a template argument has the type of options that is expected.
template <class Options, auto given>
inline constexpr bool are_options = std::is_same_v<std::remove_cvref_t<decltype(given)>, Options>;

/// The options; defaults where they are not of that type, so that a message about it is all that
/// the compiler says.
template <class Options, auto given>
inline constexpr Options options_of = [] {
  if constexpr (are_options<Options, given>)
    return given;
  else
    return Options{};
}();

}  // namespace samba::inline SAMBA_TARGET::detail
