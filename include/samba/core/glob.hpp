#pragma once
#include <samba/core/config.hpp>

#include <cstddef>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// True if a pattern matches a whole text: `*` matches any number of characters, including none,
/// `?` matches one, and every other character matches itself.
constexpr bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = pattern.npos, taken = 0;  // the last star takes up to `taken`
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != pattern.npos) {
      p = star + 1;
      t = ++taken;
    } else
      return false;
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace samba::inline SAMBA_TARGET
