#pragma once
// The parts of a GGUF file, byte by byte.
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

namespace samba_test::gguf_bytes {

template <class X>
std::string raw(X x) {
  std::string bytes(sizeof(X), '\0');
  std::memcpy(bytes.data(), &x, sizeof(X));
  return bytes;
}
inline std::string u32(std::uint32_t x) { return raw(x); }
inline std::string u64(std::uint64_t x) { return raw(x); }
inline std::string text(const std::string& s) { return u64(s.size()) + s; }

/// Numbers of metadata types, as the specification has them.
inline constexpr std::uint32_t t_u8 = 0, t_i32 = 5, t_u32 = 4, t_f32 = 6, t_bool = 7, t_string = 8,
                               t_array = 9, t_u64 = 10;

inline std::string header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
  return "GGUF" + u32(version) + u64(tensors) + u64(entries);
}
inline std::string entry(const std::string& key, std::uint32_t type, const std::string& value) {
  return text(key) + u32(type) + value;
}
inline std::string array(std::uint32_t type, std::uint64_t count, const std::string& values) {
  return u32(type) + u64(count) + values;
}
inline std::string tensor(const std::string& name, std::initializer_list<std::uint64_t> extents,
                          std::uint32_t type, std::uint64_t offset) {
  std::string info = text(name) + u32(static_cast<std::uint32_t>(extents.size()));
  for (const std::uint64_t extent : extents) info += u64(extent);
  return info + u32(type) + u64(offset);
}
/// Zeros up to a multiple of the alignment.
inline std::string padded(std::string bytes, std::size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
  return bytes;
}

}  // namespace samba_test::gguf_bytes
