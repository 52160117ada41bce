#pragma once
#include <samba/core/config.hpp>

#include <concepts>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace samba {

/// Everything the library throws. The message names the file, tensor or layer, what was expected
/// and what was found. Stands outside the inline namespace: one type in a program of mixed flags.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline namespace SAMBA_TARGET {
namespace detail {

/// The shape as "[2, 3]".
[[gnu::cold]] inline std::string text(const auto& shape) {
  std::string s = "[";
  for (const auto extent : shape) {
    if (s.size() > 1) s += ", ";
    s += std::to_string(extent);
  }
  return s += "]";
}

/// A part of a message, by reference: text, an integer, or a shape. Trivial, so that the many places
/// that throw cost little to compile.
class Part {
 public:
  constexpr Part(const char* s) : pointer_(s), append_(append_text) {}
  constexpr Part(const std::string& s) : pointer_(&s), append_(append_string) {}
  constexpr Part(std::string_view s) : pointer_(s.data()), number_(static_cast<long long>(s.size())), append_(append_view) {}
  constexpr Part(std::integral auto i)
      : number_(static_cast<long long>(i)), append_(std::is_signed_v<decltype(i)> ? append_signed : append_unsigned) {}
  template <class Shape>
    requires(!std::integral<Shape> && !std::convertible_to<const Shape&, std::string_view>)
  constexpr Part(const Shape& shape) : pointer_(&shape), append_(append_shape<Shape>) {}

  void append_to(std::string& message) const { append_(*this, message); }

 private:
  static void append_text(const Part& p, std::string& m) { m += static_cast<const char*>(p.pointer_); }
  static void append_string(const Part& p, std::string& m) { m += *static_cast<const std::string*>(p.pointer_); }
  static void append_view(const Part& p, std::string& m) {
    m.append(static_cast<const char*>(p.pointer_), static_cast<std::size_t>(p.number_));
  }
  static void append_signed(const Part& p, std::string& m) { m += std::to_string(p.number_); }
  static void append_unsigned(const Part& p, std::string& m) {
    m += std::to_string(static_cast<unsigned long long>(p.number_));
  }
  template <class Shape>
  static void append_shape(const Part& p, std::string& m) {
    m += detail::text(*static_cast<const Shape*>(p.pointer_));
  }

  const void* pointer_ = nullptr;
  long long number_ = 0;
  void (*append_)(const Part&, std::string&);
};

[[gnu::cold, gnu::noinline]] inline std::string join_parts(std::initializer_list<Part> parts) {
  std::string message;
  for (const Part& part : parts) part.append_to(message);
  return message;
}
[[noreturn, gnu::cold, gnu::noinline]] inline void throw_error(std::initializer_list<Part> parts) {
  throw Error(join_parts(parts));
}

/// The parts joined. For names and messages: cheaper to compile than a chain of +.
template <class... Parts>
[[gnu::always_inline]] inline std::string join(const Parts&... parts) {
  return join_parts({Part(parts)...});
}

}  // namespace detail

/// Throws Error with the parts joined; parts are strings, integers and shapes (any range of integers).
template <class... Parts>
[[noreturn, gnu::always_inline]] inline void fail(const Parts&... parts) {
  detail::throw_error({detail::Part(parts)...});
}

}  // namespace SAMBA_TARGET
}  // namespace samba
