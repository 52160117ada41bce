#include <samba/io/tokenizer.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

using namespace samba;
using samba_test::message_of;

namespace {

const std::string replacement = "\xef\xbf\xbd";  // U+FFFD

/// What appears after each byte, then at the end.
std::vector<std::string> stream(std::string_view bytes) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> texts;
  for (const std::int32_t id : tokenizer.encode(bytes)) texts.push_back(decoder(id));
  texts.push_back(decoder.finish());
  return texts;
}

std::string join(const std::vector<std::string>& texts) {
  return std::accumulate(texts.begin(), texts.end(), std::string());
}

}  // namespace

TEST_CASE("every byte is the id of its value and comes back") {
  const ByteTokenizer tokenizer;
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  const std::vector<std::int32_t> ids = tokenizer.encode(all);
  REQUIRE(ids.size() == 256);
  for (int i = 0; i < 256; ++i) CHECK(ids[static_cast<std::size_t>(i)] == i);
  CHECK(tokenizer.decode(ids) == all);
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode({}).empty());
}

TEST_CASE("an id that is no byte is named with its index") {
  const ByteTokenizer tokenizer;
  CHECK(message_of([&] { tokenizer.decode(std::vector<std::int32_t>{65, 66, 256}); }) ==
        "ByteTokenizer: id 256 at index 2 is outside [0, 256)");
  CHECK(message_of([&] { tokenizer.decode(std::vector<std::int32_t>{-1}); }) ==
        "ByteTokenizer: id -1 at index 0 is outside [0, 256)");
}

TEST_CASE("a character appears with its last byte, never before") {
  // One, two, three and four bytes: the first and the last code point of each length, and those
  // around the surrogates.
  const std::vector<std::string> characters = {std::string(1, '\0'),
                                               "\x7f",
                                               "\xc2\x80",
                                               "\xdf\xbf",
                                               "\xe0\xa0\x80",
                                               "\xed\x9f\xbf",
                                               "\xee\x80\x80",
                                               "\xef\xbf\xbf",
                                               "\xf0\x90\x80\x80",
                                               "\xf4\x8f\xbf\xbf",
                                               "a",
                                               "é",
                                               "€",
                                               "😀"};
  for (const std::string& character : characters) {
    CAPTURE(character);
    const std::vector<std::string> texts = stream("x" + character + "y");
    REQUIRE(texts.size() == character.size() + 3);
    for (std::size_t i = 1; i < character.size(); ++i) CHECK(texts[i].empty());
    CHECK(texts[character.size()] == character);
    CHECK(texts[character.size() + 1] == "y");
    CHECK(texts.back().empty());
  }
  CHECK(join(stream("naïve — 日本語 🎵 done")) == "naïve — 日本語 🎵 done");
}

TEST_CASE("a byte that is part of no character becomes U+FFFD once that is certain") {
  const std::string& r = replacement;
  const auto check = [](const std::string& bytes, const std::vector<std::string>& expected) {
    CAPTURE(bytes);
    CHECK(stream(bytes) == expected);
  };
  check("\x80", {r, ""});              // a continuation without a beginning
  check("\xff", {r, ""});              // in no character at all
  check("\xc0\x80", {r, r, ""});       // overlong
  check("\xe0\x9f", {"", r + r, ""});  // overlong
  check("\xed\xa0", {"", r + r, ""});  // surrogate
  check("\xf0\x8f", {"", r + r, ""});  // overlong
  check("\xf4\x90", {"", r + r, ""});  // above U+10FFFF
  check("\xf5", {r, ""});              // above U+10FFFF
  check(
      "\xe2\x82"
      "A",
      {"", "", r + r + "A", ""});                  // broken off
  check("\xe2\xc3\xa9", {"", r, "é", ""});         // broken off by another character
  check("\xf0\x9f\x98", {"", "", "", r + r + r});  // broken off by the end
}

TEST_CASE("streamed text is UTF-8 whatever the bytes") {
  std::uint32_t state = 1;
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    std::string bytes;
    for (int i = 0; i < 40; ++i) {
      state = state * 1664525u + 1013904223u;
      // Bytes that begin and continue characters, and a few plain ones.
      bytes += static_cast<char>((state >> 31) != 0 ? 0x80 + (state >> 24) % 0x40
                                                    : 0x41 + (state >> 24) % 0xbf);
    }
    std::string text = join(stream(bytes));
    bool valid = true;
    for (std::string_view rest = text; !rest.empty();) {
      const int length = detail::utf8_length(rest);
      valid = valid && length > 0;
      if (!valid) break;
      rest.remove_prefix(static_cast<std::size_t>(length));
    }
    CHECK(valid);
    // What was valid is still there, in order, and each other byte is one U+FFFD.
    std::size_t at = 0;
    for (std::size_t i = 0; i < text.size();) {
      if (bytes.compare(at, 1, text, i, 1) == 0 && text.compare(i, 3, replacement) != 0) {
        ++at;
        ++i;
      } else {
        REQUIRE(text.compare(i, 3, replacement) == 0);
        ++at;
        i += 3;
      }
    }
    CHECK(at == bytes.size());
  }
}

TEST_CASE("a stream survives a wrong id and starts afresh after finish") {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  CHECK(decoder(0xc3) == "");
  CHECK(message_of([&] { decoder(256); }) ==
        "ByteTokenizer: id 256 at index 0 is outside [0, 256)");
  CHECK(decoder(0xa9) == "é");
  CHECK(decoder(0xc3) == "");
  CHECK(decoder.finish() == replacement);
  CHECK(decoder.finish() == "");
  CHECK(decoder('z') == "z");
}
