#pragma once
#include <samba/core/config.hpp>

#include <type_traits>

namespace samba::inline SAMBA_TARGET::detail {

/// Whether a template argument has the expected type of options.
template <class Options, auto given>
inline constexpr bool are_options = std::is_same_v<std::remove_cvref_t<decltype(given)>, Options>;

/// The options, or defaults if they have another type, so that the message about it is the only
/// error.
template <class Options, auto given>
inline constexpr Options options_of = [] {
  if constexpr (are_options<Options, given>)
    return given;
  else
    return Options{};
}();

}  // namespace samba::inline SAMBA_TARGET::detail
