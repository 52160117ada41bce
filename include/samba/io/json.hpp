#pragma once
/// \file
/// A strict JSON reader (RFC 8259) for file headers and indices. It builds no tree: the caller asks
/// for the value it expects next, and anything else is an error with its byte offset and the keys
/// that lead to it.
#include <samba/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// Length of the longest beginning of `text` that is valid UTF-8 (RFC 3629); all of it, if it is.
[[gnu::cold]] inline std::size_t valid_utf8_prefix(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  std::size_t at = 0;
  while (at < text.size()) {
    const unsigned lead = byte(at), second = byte(at + 1);
    const std::size_t length = lead < 0x80                   ? 1
                               : lead >= 0xc2 && lead < 0xe0 ? 2
                               : lead >= 0xe0 && lead < 0xf0 ? 3
                               : lead >= 0xf0 && lead < 0xf5 ? 4
                                                             : 0;
    bool valid = length > 0;
    for (std::size_t i = 1; i < length; ++i) valid = valid && (byte(at + i) & 0xc0u) == 0x80;
    // Longer forms of shorter codes, surrogates, and codes past U+10FFFF show in the second byte.
    if (lead == 0xe0) valid = valid && second >= 0xa0;
    if (lead == 0xed) valid = valid && second < 0xa0;
    if (lead == 0xf0) valid = valid && second >= 0x90;
    if (lead == 0xf4) valid = valid && second < 0x90;
    if (!valid) break;
    at += length;
  }
  return at;
}

/// The text as a JSON string with its quotes; also how names from files are shown in messages.
/// Precondition of valid JSON: the text is valid UTF-8.
[[gnu::cold]] inline std::string json_quoted(std::string_view text) {
  constexpr const char* hex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f) {
      quoted += std::string("\\u00") + hex[code >> 4] + hex[code & 15];
    } else {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted + '"';
}

/// A reference to a callable that takes Args; a plain pointer pair, so that code which calls back is
/// compiled once. Valid while the callable lives.
template <class... Args>
class Callback {
 public:
  template <class F>
  Callback(F&& f)
      : object_(&f), call_([](const void* o, Args... args) {
          (*static_cast<std::remove_reference_t<F>*>(const_cast<void*>(o)))(args...);
        }) {}
  void operator()(Args... args) const { call_(object_, args...); }

 private:
  const void* object_;
  void (*call_)(const void*, Args...);
};

/// Reads one JSON text from front to back. Stricter than the RFC where it leaves a choice: keys of
/// an object are distinct, nesting has a bound, surrogates come in pairs. After an error the reader
/// is not used any more.
class JsonReader {
 public:
  static constexpr int max_depth = 32;  ///< objects and arrays within each other

  /// Reads `text`, which must outlive the reader; `where` starts every message.
  JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {
    at_ = valid_utf8_prefix(text_);
    if (at_ != text_.size()) error("invalid UTF-8");
    at_ = 0;
  }

  /// Reads an object; calls member(key), which must read the value, for each of its members.
  [[gnu::cold]] void object(Callback<const std::string&> member) {
    open('{', "an object");
    std::set<std::string> keys;
    if (!take('}')) {
      do {
        const auto [key, is_new] = keys.insert(string());
        if (!is_new) error("duplicate key ", json_quoted(*key));
        path_.push_back(&*key);
        if (!take(':')) error("expected ':', found ", found());
        member(*key);
        path_.pop_back();
      } while (more('}'));
    }
    --depth_;
  }

  /// Reads an array; calls element(), which must read it, for each of its elements.
  [[gnu::cold]] void array(Callback<> element) {
    open('[', "an array");
    if (!take(']')) {
      do {
        element();
      } while (more(']'));
    }
    --depth_;
  }

  /// Reads a string; escapes are resolved, the result is valid UTF-8.
  [[gnu::cold]] std::string string() {
    if (!take('"')) error("expected a string, found ", found());
    std::string result;
    while (true) {
      if (at_ == text_.size()) error("the string does not end");
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) error("control character in a string");
      ++at_;
      if (c == '"') return result;
      if (c == '\\') {
        escape(result);
      } else {
        result += c;
      }
    }
  }

  /// Reads a number that is an integer from 0 to 2^63 - 1, written without fraction and exponent.
  [[gnu::cold]] std::int64_t whole_number() {
    skip_space();
    const std::size_t start = at_;
    const std::string_view token = number();
    constexpr auto largest = std::numeric_limits<std::int64_t>::max();
    std::int64_t value = 0;
    for (const char c : token) {
      if (c < '0' || c > '9' || value > (largest - (c - '0')) / 10) {
        at_ = start;
        error("expected an integer from 0 to 2^63 - 1, found ", std::string(token.substr(0, 40)));
      }
      value = value * 10 + (c - '0');
    }
    return value;
  }

  /// Reads any value and forgets it; it is checked all the same.
  [[gnu::cold]] void skip() {
    skip_space();
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    if (c == '{') {
      object([this](const std::string&) { skip(); });
    } else if (c == '[') {
      array([this] { skip(); });
    } else if (c == '"') {
      string();
    } else if (c == '-' || is_digit()) {
      number();
    } else if (!literal("true") && !literal("false") && !literal("null")) {
      error("expected a value, found ", found());
    }
  }

  /// Checks that nothing but white space follows the value.
  void end() {
    skip_space();
    if (at_ != text_.size()) error("expected the end, found ", found());
  }

  /// Throws "<where>, byte <offset>, in <keys>: <parts>".
  template <class... Parts>
  [[noreturn, gnu::always_inline]] inline void error(const Parts&... parts) const {
    fail(where_, ", byte ", at_, keys(), ": ", parts...);
  }

 private:
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  bool is_digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }

  /// Takes c if it is what comes next after white space.
  [[gnu::cold]] bool take(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  [[gnu::cold]] void open(char bracket, const char* what) {
    if (!take(bracket)) error("expected ", what, ", found ", found());
    if (++depth_ > max_depth) error("nested deeper than ", max_depth, " levels");
  }

  /// After a member or element: true if a comma announces another, false if the bracket closes.
  [[gnu::cold]] bool more(char bracket) {
    if (take(',')) return true;
    if (take(bracket)) return false;
    error("expected ',' or '", std::string(1, bracket), "', found ", found());
  }

  /// The keys that lead to the value being read, for messages.
  [[gnu::cold]] std::string keys() const {
    std::string keys;
    for (const std::string* key : path_) keys += (keys.empty() ? ", in " : ".") + json_quoted(*key);
    return keys;
  }

  /// What comes next, for messages.
  [[gnu::cold]] std::string found() const {
    if (at_ == text_.size()) return "the end";
    const char c = text_[at_];
    if (c == '{') return "an object";
    if (c == '[') return "an array";
    if (c == '"') return "a string";
    if (c == '-' || is_digit()) return "a number";
    if (static_cast<unsigned char>(c) >= 0x80) return "a character beyond ASCII";
    return json_quoted(text_.substr(at_, 1));
  }

  /// Moves past one or more digits.
  void digits() {
    if (!is_digit()) error("expected a digit, found ", found());
    while (is_digit()) ++at_;
  }

  /// Moves past a number and returns its text.
  [[gnu::cold]] std::string_view number() {
    skip_space();
    const std::size_t start = at_;
    if (at_ < text_.size() && text_[at_] == '-') {
      ++at_;
    } else if (!is_digit()) {
      error("expected a number, found ", found());
    }
    if (!literal("0")) digits();
    if (literal(".")) digits();
    if (literal("e") || literal("E")) {
      if (!literal("+")) literal("-");
      digits();
    }
    return text_.substr(start, at_ - start);
  }

  /// Appends what stands after a backslash.
  [[gnu::cold]] void escape(std::string& result) {
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const std::size_t which = letters.find(c);
    if (which != std::string_view::npos) {
      ++at_;
      result += meanings[which];
      return;
    }
    if (c != 'u') error("unknown escape in a string");
    std::uint32_t code = utf16_unit();
    if (code >= 0xd800 && code < 0xdc00) {
      const std::uint32_t low = text_.substr(at_, 2) == "\\u" ? (++at_, utf16_unit()) : 0;
      if (low < 0xdc00 || low > 0xdfff) error("half a surrogate pair in a string");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      error("half a surrogate pair in a string");
    }
    append_utf8(result, code);
  }

  /// Reads "uXXXX".
  std::uint32_t utf16_unit() {
    ++at_;
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) error("\\u needs four hexadecimal digits");
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return code;
  }

  [[gnu::cold]] static void append_utf8(std::string& s, std::uint32_t code) {
    const auto tail = [&](int shift) { s += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) {
      s += static_cast<char>(code);
    } else if (code < 0x800) {
      s += static_cast<char>(0xc0 | code >> 6);
      tail(0);
    } else if (code < 0x10000) {
      s += static_cast<char>(0xe0 | code >> 12);
      tail(6), tail(0);
    } else {
      s += static_cast<char>(0xf0 | code >> 18);
      tail(12), tail(6), tail(0);
    }
  }

  std::string_view text_;
  std::string where_;
  std::size_t at_ = 0;
  int depth_ = 0;
  std::vector<const std::string*> path_;  // keys that lead to the value being read
};

}  // namespace samba::inline SAMBA_TARGET
