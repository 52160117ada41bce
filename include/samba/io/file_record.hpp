#pragma once
#include <samba/io/safetensors.hpp>

#include <locale.h>

#include <charconv>
#include <concepts>
#include <cstdlib>
#include <string>

namespace samba::inline SAMBA_TARGET {

/// The entries "samba.<key>" in the metadata of a safetensors file, which must outlive it. An entry
/// that is missing or malformed is an Error.
class FileRecord {
 public:
  /// kind: the expected kind of file, for example "a state file".
  FileRecord(const SafetensorsFile& file, const char* kind) : file_(&file), kind_(kind) {}

  [[gnu::cold]] std::string text(std::string_view key) const {
    const std::string_view* const found = file_->metadata(detail::join({"samba.", key}));
    if (!found) fail({file_->path(), ": not ", kind_, ": its metadata has no \"samba.", key, "\""});
    return std::string(*found);
  }

  /// A number as written by detail::join, exact to the bit.
  template <class N>
  [[gnu::cold]] N number(std::string_view key) const {
    const std::string text = this->text(key);
    N n = 0;
    if constexpr (std::integral<N>) {
      std::from_chars(text.data(), text.data() + text.size(), n);
    } else {  // before version 20, libc++ has no from_chars for floating-point types
      static const locale_t point_not_comma = ::newlocale(LC_ALL_MASK, "C", locale_t{});
      n = ::strtod_l(text.c_str(), nullptr, point_not_comma);
    }
    if (detail::join({n}) != text)
      fail({file_->path(), ": metadata \"samba.", key, "\": expected ",
            std::integral<N> ? "an integer" : "a number", ", found \"", text, "\""});
    return n;
  }

 private:
  const SafetensorsFile* file_;
  const char* kind_;
};

}  // namespace samba::inline SAMBA_TARGET
