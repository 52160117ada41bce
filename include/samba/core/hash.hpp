#pragma once
#include <samba/core/config.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace samba::inline SAMBA_TARGET {

/// FNV-1a, 64 bits. To hash a text in parts, pass each part the hash of the parts before it.
constexpr std::uint64_t fnv1a(std::string_view text, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// A hash for large data, eight bytes at a time: about eight times as fast as FNV-1a. It depends on
/// how the data was split into calls of add.
class ContentHash {
 public:
  void add(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      std::uint64_t word = 0;
      const std::size_t n = (std::min)(bytes.size(), sizeof word);
      std::memcpy(&word, bytes.data(), n);
      hash_ = (hash_ ^ word) * 0x9e3779b97f4a7c15u;
      hash_ ^= hash_ >> 32;
      bytes = bytes.subspan(n);
    }
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0;
};

}  // namespace samba::inline SAMBA_TARGET
