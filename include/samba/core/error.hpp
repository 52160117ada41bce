#pragma once
#include <samba/core/config.hpp>

#include <bit>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace samba {

/// Everything the library throws. The message names the file, tensor or layer, what was expected
/// and what was found. Outside the inline namespace, so that there is one type in a program of
/// mixed flags.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline namespace SAMBA_TARGET {

class Shape;

/// Text from a file, shown in messages as a JSON string with its quotes.
struct Quoted {
  std::string_view text;
};

namespace detail {

/// A part of a message, by reference: text, a number, or a shape. Plain data, formatted in one
/// place, so that the many places that throw are cheap to compile.
class Part {
 public:
  constexpr Part(const char* s) : Part(std::string_view(s)) {}
  constexpr Part(const std::string& s) : Part(std::string_view(s)) {}
  constexpr Part(std::string_view s) : Part(Kind::text, s.data(), s.size()) {}
  constexpr Part(Quoted s) : Part(Kind::quoted, s.text.data(), s.text.size()) {}
  Part(const Shape& s);  // in shape.hpp
  constexpr Part(bool b) : Part(b ? "true" : "false") {}
  constexpr Part(float x) : Part(Kind::real, nullptr, std::bit_cast<std::uint32_t>(x)) {}
  constexpr Part(double x) : Part(Kind::wide_real, nullptr, std::bit_cast<std::uint64_t>(x)) {}
  constexpr Part(std::integral auto i)
      : Part(std::is_signed_v<decltype(i)> ? Kind::integer : Kind::natural, nullptr,
             static_cast<std::uint64_t>(i)) {}

  [[gnu::cold, gnu::noinline]] void append_to(std::string& message) const {
    const auto* const text = static_cast<const char*>(data_);
    switch (kind_) {
      case Kind::text: return put(message, text, number_);
      case Kind::quoted: return put_quoted(message, {text, number_});
      case Kind::integer: return put_integer(message, static_cast<std::int64_t>(number_));
      case Kind::natural: return put_number(message, number_);
      case Kind::real:
        return put_number(message, std::bit_cast<float>(static_cast<std::uint32_t>(number_)));
      case Kind::wide_real: return put_number(message, std::bit_cast<double>(number_));
      case Kind::shape: break;
    }
    put(message, "[", 1);
    for (std::uint64_t i = 0; i < number_; ++i) {
      if (i > 0) put(message, ", ", 2);
      put_integer(message, static_cast<const std::int64_t*>(data_)[i]);
    }
    put(message, "]", 1);
  }

 private:
  enum class Kind { text, quoted, integer, natural, real, wide_real, shape };

  constexpr Part(Kind kind, const void* data, std::uint64_t number)
      : data_(data), number_(number), kind_(kind) {}

  [[gnu::cold, gnu::noinline]] static void put(std::string& message, const char* text,
                                               std::size_t n) {
    message.append(text, n);
  }
  /// The shortest text that reads back as the same number, whatever the locale.
  [[gnu::cold]] static void put_number(std::string& message, auto x) {
    char text[32];
    put(message, text,
        static_cast<std::size_t>(std::to_chars(text, text + sizeof text, x).ptr - text));
  }
  [[gnu::cold]] static void put_integer(std::string& message, std::int64_t i) {
    if (i < 0) put(message, "-", 1);
    put_number(message, i < 0 ? -static_cast<std::uint64_t>(i) : static_cast<std::uint64_t>(i));
  }
  [[gnu::cold]] static void put_quoted(std::string& message, std::string_view text) {
    constexpr const char* hex = "0123456789abcdef";
    put(message, "\"", 1);
    for (const char c : text) {
      const auto code = static_cast<unsigned char>(c);
      const bool control = code < 0x20 || code == 0x7f, special = c == '"' || c == '\\';
      const char code_point[] = {'u', '0', '0', hex[code >> 4], hex[code & 15]};
      if (control || special) put(message, "\\", 1);
      put(message, control ? code_point : &c, control ? 5 : 1);
    }
    put(message, "\"", 1);
  }

  const void* data_;
  std::uint64_t number_;  // the number, or the length of what data_ points to
  Kind kind_;
};

/// Appends parts, none of which may refer to the text itself. Names and messages are cheaper to
/// compile so than as a chain of +.
[[gnu::cold, gnu::noinline]] inline void append(std::string& text,
                                                std::initializer_list<Part> parts) {
  for (const Part& part : parts) part.append_to(text);
}
/// Joins parts into a text.
[[gnu::cold, gnu::noinline]] inline std::string join(std::initializer_list<Part> parts) {
  std::string text;
  append(text, parts);
  return text;
}

}  // namespace detail

/// Throws Error with the parts joined; parts are strings, Quoted, numbers and shapes. A list, not a
/// pack, so that callers instantiate no template.
[[noreturn, gnu::cold, gnu::noinline]] inline void fail(std::initializer_list<detail::Part> parts) {
  throw Error(detail::join(parts));
}

}  // namespace SAMBA_TARGET
}  // namespace samba
