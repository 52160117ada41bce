#pragma once
#include <samba/core/config.hpp>

#include <cstdint>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// FNV-1a, 64 bits. Of a text in parts: each part from the hash of those before it.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace samba::inline SAMBA_TARGET
