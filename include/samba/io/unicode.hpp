#pragma once
/// \file
/// What tokenizers need of Unicode: characters of UTF-8, the categories that the regular expressions
/// of tokenizers tell apart, and normalisation form C (Unicode Standard Annex 15).
#include <samba/io/tokenizer.hpp>
#include <samba/io/unicode_tables.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {
namespace unicode {

/// A code point, and the bytes that it takes in UTF-8.
struct Character {
  char32_t code;
  std::size_t bytes;
};

/// The character that begins at byte `at` of a text, which must be valid UTF-8.
inline Character character_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[at + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0) return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (lead < 0xf0) return {(lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f),
          4};
}

/// Appends a code point in UTF-8.
inline void append(std::string& text, char32_t code) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xe0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xf0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

/// Calls valid(part) and invalid(byte) for what a text consists of, in order: the longest parts that
/// are UTF-8, and single bytes that belong to no character.
template <class Valid, class Invalid>
void split_utf8(std::string_view text, Valid&& valid, Invalid&& invalid) {
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const int length = detail::utf8_length(text.substr(at));
    if (length > 0) {
      at += static_cast<std::size_t>(length);
      continue;
    }
    if (begin < at) valid(text.substr(begin, at - begin));
    invalid(text[at]);
    begin = ++at;
  }
  if (begin < text.size()) valid(text.substr(begin));
}

/// Whether `code` is in one of the ranges whose bounds are given: the first inside, the second not.
template <std::size_t n>
bool within(char32_t code, const std::uint32_t (&bounds)[n]) {
  return (std::upper_bound(bounds, bounds + n, code) - bounds) % 2 != 0;
}

/// Category L of Unicode 16.0.
inline bool is_letter(char32_t code) { return within(code, tables::letters); }
/// Category N of Unicode 16.0.
inline bool is_number(char32_t code) { return within(code, tables::numbers); }
/// Category N of Unicode 17.0: what the pre-tokenizer Digits of PyPI's tokenizers 0.23 isolates.
inline bool is_digit(char32_t code) {
  return is_number(code) || within(code, tables::later_numbers);
}
/// The property White_Space.
inline bool is_space(char32_t code) { return within(code, tables::white_space); }

/// Where the white space ends that begins at byte `at` of a text.
inline std::size_t after_spaces(std::string_view text, std::size_t at) {
  while (at < text.size() && detail::utf8_length(text.substr(at)) > 0) {
    const Character c = character_at(text, at);
    if (!is_space(c.code)) break;
    at += c.bytes;
  }
  return at;
}

/// Where the white space begins that ends at byte `at` of a text.
inline std::size_t before_spaces(std::string_view text, std::size_t at) {
  while (at > 0) {
    std::size_t begin = at - 1;
    while (begin > 0 && at - begin < 4 && (text[begin] & 0xc0) == 0x80) --begin;
    const std::string_view last = text.substr(begin, at - begin);
    if (detail::utf8_length(last) != static_cast<int>(last.size())) break;
    if (!is_space(character_at(last, 0).code)) break;
    at = begin;
  }
  return at;
}

namespace normalization {

inline constexpr char32_t hangul = 0xac00, leading = 0x1100, vowel = 0x1161, trailing = 0x11a7;
inline constexpr char32_t leadings = 19, vowels = 21, trailings = 28;

/// A code point and its canonical combining class.
struct Mark {
  char32_t code;
  int combining;
};

inline int combining_class(char32_t code) {
  const auto after = std::upper_bound(std::begin(tables::combining_classes),
                                      std::end(tables::combining_classes), code << 8 | 0xff);
  return after == std::begin(tables::combining_classes) ? 0 : static_cast<int>(after[-1] & 0xff);
}

constexpr char32_t composite_of(std::uint64_t entry) { return static_cast<char32_t>(entry >> 42); }
constexpr char32_t first_of(std::uint64_t entry) {
  return static_cast<char32_t>(entry >> 21 & 0x1fffff);
}
constexpr char32_t second_of(std::uint64_t entry) {
  return static_cast<char32_t>(entry & 0x1fffff);
}

/// Appends the full canonical decomposition of a code point.
inline void decompose(std::vector<Mark>& marks, char32_t code) {
  if (code >= hangul && code < hangul + leadings * vowels * trailings) {
    const char32_t i = code - hangul;
    marks.push_back({leading + i / (vowels * trailings), 0});
    marks.push_back({vowel + i / trailings % vowels, 0});
    if (i % trailings != 0) marks.push_back({trailing + i % trailings, 0});
    return;
  }
  const auto found =
      std::lower_bound(std::begin(tables::decompositions), std::end(tables::decompositions),
                       static_cast<std::uint64_t>(code) << 42);
  if (found == std::end(tables::decompositions) || composite_of(*found) != code) {
    marks.push_back({code, combining_class(code)});
    return;
  }
  decompose(marks, first_of(*found));
  if (second_of(*found) != 0) decompose(marks, second_of(*found));
}

/// The code point that two compose to, 0 if there is none.
inline char32_t compose(char32_t a, char32_t b) {
  if (a - leading < leadings && b - vowel < vowels)
    return hangul + ((a - leading) * vowels + b - vowel) * trailings;
  if (a - hangul < leadings * vowels * trailings && (a - hangul) % trailings == 0 &&
      b - trailing - 1 < trailings - 1)
    return a + b - trailing;
  constexpr std::uint64_t pair_bits = (std::uint64_t{1} << 42) - 1;
  const std::uint64_t pair = static_cast<std::uint64_t>(a) << 21 | b;
  const auto found = std::lower_bound(
      std::begin(tables::composites), std::end(tables::composites), pair,
      [](std::uint16_t i, std::uint64_t p) { return (tables::decompositions[i] & pair_bits) < p; });
  if (found == std::end(tables::composites)) return 0;
  const std::uint64_t entry = tables::decompositions[*found];
  return (entry & pair_bits) == pair ? composite_of(entry) : 0;
}

}  // namespace normalization

/// Normalisation form C of a text, which must be valid UTF-8. Characters that Unicode has since
/// version 10.0 do not combine, as in PyPI's tokenizers 0.23.
inline std::string nfc(std::string_view text) {
  using normalization::Mark;
  std::vector<Mark> marks;
  bool below_marks = true;  // no code point below U+0300 combines with another
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    below_marks = below_marks && c.code < 0x300;
    at += c.bytes;
  }
  if (below_marks) return std::string(text);
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    normalization::decompose(marks, c.code);
    at += c.bytes;
  }
  // Runs of marks in the order of their classes.
  for (auto begin = marks.begin(); begin != marks.end();) {
    if (begin->combining == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, marks.end(), [](Mark m) { return m.combining == 0; });
    std::stable_sort(begin, end, [](Mark a, Mark b) { return a.combining < b.combining; });
    begin = end;
  }
  // Each character joins the last starter unless one of its class or a higher one stands between.
  std::vector<Mark> composed;
  constexpr std::size_t nowhere = static_cast<std::size_t>(-1);
  std::size_t starter = nowhere;
  for (const Mark m : marks) {
    if (starter != nowhere) {
      const bool adjacent = starter + 1 == composed.size();
      if (adjacent || composed.back().combining < m.combining) {
        if (const char32_t both = normalization::compose(composed[starter].code, m.code)) {
          composed[starter].code = both;
          continue;
        }
      }
    }
    if (m.combining == 0) starter = composed.size();
    composed.push_back(m);
  }
  std::string result;
  result.reserve(text.size());
  for (const Mark m : composed) append(result, m.code);
  return result;
}

}  // namespace unicode
}  // namespace samba::inline SAMBA_TARGET
