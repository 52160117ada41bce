#pragma once
/// \file
/// A strict JSON reader (RFC 8259) for file headers and indices. It builds no tree: the caller asks
/// for the value it expects next, and anything else is an error that gives the byte offset and the
/// keys that lead there.
#include <samba/core/callback.hpp>
#include <samba/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <forward_list>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// Length of the longest prefix of `text` that is valid UTF-8 (RFC 3629).
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
    // The second byte reveals overlong forms, surrogates, and code points above U+10FFFF.
    if (lead == 0xe0) valid = valid && second >= 0xa0;
    if (lead == 0xed) valid = valid && second < 0xa0;
    if (lead == 0xf0) valid = valid && second >= 0x90;
    if (lead == 0xf4) valid = valid && second < 0x90;
    if (!valid) break;
    at += length;
  }
  return at;
}

/// Reads one JSON text from front to back. Where the RFC leaves a choice, the reader is strict: an
/// object's keys must be distinct, nesting is bounded, and surrogates come in pairs. After an error
/// it must not be used any more.
class JsonReader {
 public:
  static constexpr int max_depth = 32;  ///< of nested objects and arrays

  /// Reads `text`, which must outlive the reader; `where` starts every message.
  [[gnu::cold]] JsonReader(std::string_view text, std::string where)
      : text_(text), where_(std::move(where)) {
    at_ = valid_utf8_prefix(text_);
    if (at_ != text_.size()) error({"invalid UTF-8"});
    at_ = 0;
  }

  /// Reads an object; calls member(key), which must read the value, for each of its members.
  /// Duplicate keys are detected at the object's end.
  [[gnu::cold]] void object(Callback<const std::string&> member) {
    open('{', "an object");
    std::forward_list<std::string> keys;
    std::size_t n = 0;
    if (!take('}')) {
      do {
        keys.push_front(string());
        ++n;
        path_[depth_ - 1] = &keys.front();
        if (!take(':')) expected("':'");
        member(keys.front());
        path_[depth_ - 1] = nullptr;
      } while (more('}'));
    }
    check_distinct(keys, n);
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
    if (!take('"')) expected("a string");
    std::string result;
    while (true) {
      if (at_ == text_.size()) error({"the string does not end"});
      const char c = text_[at_];
      if (static_cast<unsigned char>(c) < 0x20) error({"control character in a string"});
      ++at_;
      if (c == '"') return result;
      if (c == '\\') {
        escape(result);
      } else {
        result.append(&c, 1);  // and no other operation of strings: each costs compile time
      }
    }
  }

  /// Reads an integer from 0 to 2^63 - 1, written without fraction and exponent.
  [[gnu::cold]] std::int64_t whole_number() {
    skip_space();
    const std::size_t start = at_;
    const std::string_view token = number();
    constexpr auto largest = (std::numeric_limits<std::int64_t>::max)();
    std::int64_t value = 0;
    for (const char c : token) {
      if (c < '0' || c > '9' || value > (largest - (c - '0')) / 10) {
        at_ = start;
        error({"expected an integer from 0 to 2^63 - 1, found ", token.substr(0, 40)});
      }
      value = value * 10 + (c - '0');
    }
    return value;
  }

  /// Consumes null if it comes next; returns whether it did.
  [[gnu::cold]] bool null() {
    skip_space();
    return literal("null");
  }

  /// Reads any value and discards it, after the usual checks.
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
      expected("a value");
    }
  }

  /// Checks that only white space follows the value.
  [[gnu::cold]] void end() {
    skip_space();
    if (at_ != text_.size()) expected("the end");
  }

  /// Throws "<where>, byte <offset>, in <keys>: <parts>".
  [[noreturn, gnu::cold]] void error(std::initializer_list<detail::Part> parts) const {
    std::string message = detail::join({where_, ", byte ", at_});
    const char* separator = ", in ";
    for (const std::string* key : path_)
      if (key) {
        detail::append(message, {separator, Quoted{*key}});
        separator = ".";
      }
    fail({message, ": ", detail::join(parts)});
  }

 private:
  [[gnu::cold]] void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }

  [[gnu::cold]] bool is_digit() const {
    return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9';
  }

  /// Consumes c if it comes next after white space; returns whether it did.
  [[gnu::cold]] bool take(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  [[gnu::cold]] bool literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  [[gnu::cold]] void open(char bracket, const char* what) {
    if (!take(bracket)) expected(what);
    if (++depth_ > max_depth) error({"nested deeper than ", max_depth, " levels"});
  }

  /// After a member or element: true if a comma follows, false if the closing bracket does.
  [[gnu::cold]] bool more(char bracket) {
    if (take(',')) return true;
    if (take(bracket)) return false;
    expected(bracket == '}' ? "',' or '}'" : "',' or ']'");
  }

  /// keys: n of them.
  [[gnu::cold]] void check_distinct(const std::forward_list<std::string>& keys,
                                    std::size_t n) const {
    std::vector<const std::string*> sorted(n);
    for (const std::string& key : keys) sorted[--n] = &key;
    // With std::qsort, which costs nothing to compile.
    if (!sorted.empty()) std::qsort(sorted.data(), sorted.size(), sizeof(sorted[0]), by_text);
    for (std::size_t i = 1; i < sorted.size(); ++i)
      if (*sorted[i] == *sorted[i - 1]) error({"duplicate key ", Quoted{*sorted[i]}});
  }
  [[gnu::cold]] static int by_text(const void* a, const void* b) {
    return (*static_cast<const std::string* const*>(a))
        ->compare(**static_cast<const std::string* const*>(b));
  }

  [[noreturn, gnu::cold]] void expected(const char* what) const {
    error({"expected ", what, ", found ", found()});
  }

  /// Describes what comes next, for messages.
  [[gnu::cold]] std::string found() const {
    if (at_ == text_.size()) return "the end";
    const char c = text_[at_];
    if (c == '{') return "an object";
    if (c == '[') return "an array";
    if (c == '"') return "a string";
    if (c == '-' || is_digit()) return "a number";
    if (static_cast<unsigned char>(c) >= 0x80) return "a character beyond ASCII";
    return detail::join({Quoted{text_.substr(at_, 1)}});
  }

  /// Moves past one or more digits.
  [[gnu::cold]] void digits() {
    if (!is_digit()) expected("a digit");
    while (is_digit()) ++at_;
  }

  /// Moves past a number and returns its text.
  [[gnu::cold]] std::string_view number() {
    skip_space();
    const std::size_t start = at_;
    if (at_ < text_.size() && text_[at_] == '-') {
      ++at_;
    } else if (!is_digit()) {
      expected("a number");
    }
    if (!literal("0")) digits();
    if (literal(".")) digits();
    if (literal("e") || literal("E")) {
      if (!literal("+")) literal("-");
      digits();
    }
    return text_.substr(start, at_ - start);
  }

  /// Appends the character of an escape sequence, after its backslash.
  [[gnu::cold]] void escape(std::string& result) {
    constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const std::size_t which = letters.find(c);
    if (which != std::string_view::npos) {
      ++at_;
      result.append(&meanings[which], 1);
      return;
    }
    if (c != 'u') error({"unknown escape in a string"});
    std::uint32_t code = utf16_unit();
    if (code >= 0xd800 && code < 0xdc00) {
      std::uint32_t low = 0;
      if (text_.substr(at_, 2) == "\\u") {
        ++at_;
        low = utf16_unit();
      }
      if (low < 0xdc00 || low > 0xdfff) error({"half a surrogate pair in a string"});
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code <= 0xdfff) {
      error({"half a surrogate pair in a string"});
    }
    append_utf8(result, code);
  }

  /// Reads "uXXXX".
  [[gnu::cold]] std::uint32_t utf16_unit() {
    ++at_;
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) error({"\\u needs four hexadecimal digits"});
      code = code * 16 + static_cast<std::uint32_t>(digit);
    }
    return code;
  }

  [[gnu::cold]] static void append_utf8(std::string& s, std::uint32_t code) {
    const int tail = code < 0x80      ? 0
                     : code < 0x800   ? 1
                     : code < 0x10000 ? 2
                                      : 3;  // bytes after the first
    constexpr std::uint32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    for (int i = tail; i >= 0; --i) {
      const auto byte = i == tail ? lead[tail] | code >> 6 * i : 0x80 | (code >> 6 * i & 0x3f);
      const char c = static_cast<char>(byte);
      s.append(&c, 1);
    }
  }

  std::string_view text_;
  std::string where_;
  std::size_t at_ = 0;
  int depth_ = 0;
  // The keys that lead to the value being read, by depth; null within an array.
  const std::string* path_[max_depth] = {};
};

}  // namespace samba::inline SAMBA_TARGET
