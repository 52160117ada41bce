#include <samba/io/bpe.hpp>
#include <samba/io/tokenizer_json.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace samba;
using samba_test::data_path;
using samba_test::message_of;

namespace {

using Ids = std::vector<std::int32_t>;

/// What the package tokenizers says, written by bpe/make_data.py.
const nlohmann::json& expected() {
  static const auto json =
      nlohmann::json::parse(samba_test::read_file(data_path("bpe/expected.json")));
  return json;
}
std::vector<std::string> texts() { return expected()["texts"].get<std::vector<std::string>>(); }

const std::vector<std::string> names = {"gpt2", "smollm", "llama3", "qwen2", "neox"};
const BpeTokenizer& trained(const std::string& name) {
  static std::map<std::string, BpeTokenizer> all;
  if (!all.contains(name))
    all.emplace(name, load_tokenizer_json(data_path("bpe/" + name + ".json")));
  return all.at(name);
}

/// A generator of numbers below n.
struct Random {
  std::uint64_t state;
  std::size_t operator()(std::size_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>(state >> 33) % n;
  }
};

/// The texts cut and joined anew, with bytes that are no UTF-8 in some of them.
std::string random_text(Random& random) {
  static const std::vector<std::string> all = texts();
  std::string text;
  for (std::size_t parts = 1 + random(4); parts > 0; --parts) {
    const std::string& from = all[random(all.size())];
    const std::size_t begin = random(from.size() + 1);
    text += from.substr(begin, random(24));  // may begin and end within a character
    if (random(3) == 0) text += static_cast<char>(random(256));
  }
  return text;
}

/// The bytes of a text that belong to no UTF-8 character.
std::size_t invalid_bytes(std::string_view text) {
  std::size_t n = 0;
  while (!text.empty()) {
    const int length = detail::utf8_length(text);
    n += length <= 0;
    text.remove_prefix(static_cast<std::size_t>((std::max)(length, 1)));
  }
  return n;
}

/// Normal form C of what is UTF-8 in a text.
std::string normal_form(std::string_view text) {
  std::string normal;
  unicode::split_utf8(
      text, [&](std::string_view part) { normal += unicode::nfc(part); },
      [&](char byte) { normal += byte; });
  return normal;
}

std::string stream(const BpeTokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) text += decoder(id);
  return text + decoder.finish();
}

/// Parts that own what they show: all bytes, then `more` tokens.
struct Made {
  std::vector<std::string> tokens, merges;
  std::vector<std::string_view> token_views, merge_views;
  BpeParts parts;

  explicit Made(std::vector<std::string> more, std::vector<std::string> the_merges = {})
      : merges(std::move(the_merges)) {
    for (const char32_t c : detail::byte_alphabet()) {
      tokens.emplace_back();
      unicode::append(tokens.back(), c);
    }
    tokens.insert(tokens.end(), more.begin(), more.end());
    show();
  }
  void show() {
    token_views.assign(tokens.begin(), tokens.end());
    merge_views.assign(merges.begin(), merges.end());
    parts.tokens = token_views;
    parts.merges = merge_views;
  }
  std::string error() const {
    return message_of([&] { BpeTokenizer tokenizer(parts); });
  }
};

/// Merging by its definition: the first merge in the list that occurs, leftmost, until none does.
Ids merged(Ids ids, const std::vector<std::pair<std::pair<int, int>, int>>& merges) {
  while (true) {
    std::size_t best = merges.size(), where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i)
      for (std::size_t rank = 0; rank < best; ++rank)
        if (merges[rank].first == std::pair<int, int>(ids[i], ids[i + 1])) best = rank, where = i;
    if (best == merges.size()) return ids;
    ids[where] = merges[best].second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

}  // namespace

TEST_CASE("the ids are those of the package tokenizers") {
  const std::vector<std::string> all = texts();
  for (const std::string& name : names) {
    const BpeTokenizer& tokenizer = trained(name);
    const auto& ids = expected()[name]["ids"];
    const auto& plain = expected()[name]["plain"];
    REQUIRE(ids.size() == all.size());
    REQUIRE(plain.size() == all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      CAPTURE(name, i, all[i]);
      CHECK(tokenizer.encode(all[i]) == ids[i].get<Ids>());
      CHECK(tokenizer.encode(all[i], {.parse_special = false}) ==
            (plain[i].is_null() ? ids[i] : plain[i]).get<Ids>());
    }
    CHECK(tokenizer.encode("", {.add_bos = tokenizer.adds_bos()}) ==
          expected()[name]["bos"].get<Ids>());
  }
}

TEST_CASE("the words are those of the package tokenizers") {
  const auto check = [](const char* name, auto cut) {
    const std::vector<std::string> all = texts();
    for (std::size_t i = 0; i < all.size(); ++i) {
      CAPTURE(name, i, all[i]);
      std::vector<std::size_t> lengths;
      std::string joined;
      cut(all[i], [&](std::string_view word) {
        lengths.push_back(word.size());
        joined += word;
      });
      CHECK(lengths == expected()[name]["words"][i].get<std::vector<std::size_t>>());
      CHECK(joined == all[i]);
    }
  };
  check("gpt2", [](const std::string& text, auto word) {
    detail::cut_words<BpePattern::gpt2>(text, word);
  });
  check("smollm", [](const std::string& text, auto word) {
    detail::cut_words<BpePattern::smollm>(text, word);
  });
  check("llama3", [](const std::string& text, auto word) {
    detail::cut_words<BpePattern::llama3>(text, word);
  });
  check("qwen2", [](const std::string& text, auto word) {
    detail::cut_words<BpePattern::qwen2>(text, word);
  });
}

TEST_CASE("texts come back from their ids") {
  const std::vector<std::string> all = texts();
  for (const std::string& name : names) {
    const BpeTokenizer& tokenizer = trained(name);
    for (std::size_t i = 0; i < all.size(); ++i) {
      CAPTURE(name, i, all[i]);
      const Ids ids = tokenizer.encode(all[i]);
      const Ids plain = tokenizer.encode(all[i], {.parse_special = false});
      if (name == "neox" || name == "qwen2") {
        // One of neox's added tokens is not in normal form.
        const auto text = expected()["nfc"][i].get<std::string>();
        CHECK(unicode::nfc(tokenizer.decode(ids, true)) == text);
        CHECK(unicode::nfc(stream(tokenizer, plain)) == text);
        continue;
      }
      CHECK(tokenizer.decode(plain) == all[i]);
      CHECK(stream(tokenizer, plain) == all[i]);
      // Some special tokens of gpt2 take white space.
      const bool strips = all[i].find("<|both|>") != std::string::npos && name == "gpt2";
      if (!strips) CHECK(tokenizer.decode(ids, true) == all[i]);
    }
  }
}

TEST_CASE("any bytes come back from their ids") {
  for (const std::string name : {"gpt2", "smollm", "llama3"}) {
    const BpeTokenizer& tokenizer = trained(name);
    Random random{7};
    for (int round = 0; round < 3000; ++round) {
      const std::string text = random_text(random);
      CAPTURE(name, round, text);
      const Ids plain = tokenizer.encode(text, {.parse_special = false});
      REQUIRE(tokenizer.decode(plain) == text);
      for (const std::int32_t id : plain) REQUIRE(!tokenizer.is_special(id));
      if (name != "gpt2")  // whose special tokens take white space
        REQUIRE(tokenizer.decode(tokenizer.encode(text), true) == text);
    }
    std::string bytes;
    for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
    CHECK(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
  }
}

TEST_CASE("normalised text with other bytes comes back normalised") {
  for (const std::string name : {"neox", "qwen2"}) {
    const BpeTokenizer& tokenizer = trained(name);
    Random random{8};
    for (int round = 0; round < 3000; ++round) {
      const std::string text = random_text(random);
      CAPTURE(name, round, text);
      // One of neox's added tokens is not in normal form.
      REQUIRE(normal_form(tokenizer.decode(tokenizer.encode(text), true)) == normal_form(text));
    }
  }
}

TEST_CASE("a byte that is no UTF-8 is one token, and ends the text before it") {
  for (const std::string& name : names) {
    const BpeTokenizer& tokenizer = trained(name);
    Random random{9};
    for (int round = 0; round < 1000; ++round) {
      const std::string text = random_text(random);
      CAPTURE(name, round, text);
      Ids joined;
      std::size_t invalid = 0;
      unicode::split_utf8(
          text,
          [&](std::string_view part) {
            const Ids ids = tokenizer.encode(part, {.parse_special = false});
            joined.insert(joined.end(), ids.begin(), ids.end());
          },
          [&](char byte) {
            const Ids ids = tokenizer.encode(std::string(1, byte));
            REQUIRE(ids.size() == 1);
            joined.push_back(ids[0]);
            ++invalid;
          });
      CHECK(invalid == invalid_bytes(text));
      REQUIRE(tokenizer.encode(text, {.parse_special = false}) == joined);
    }
  }
  const BpeTokenizer& gpt2 = trained("gpt2");
  CHECK(gpt2.encode("the\xff").size() == 1 + gpt2.encode("the").size());
  CHECK(gpt2.encode("\xe2\x82").size() == 2);  // a character broken off
}

TEST_CASE("any ids stream to what they decode to") {
  for (const std::string& name : names) {
    const BpeTokenizer& tokenizer = trained(name);
    Random random{10};
    for (int round = 0; round < 500; ++round) {
      Ids ids;
      for (std::size_t n = random(12); n > 0; --n) {
        auto id =
            static_cast<std::int32_t>(random(static_cast<std::size_t>(tokenizer.vocab_size())));
        if (tokenizer.is_special(id)) id = 0;  // these end a character in a stream
        if (!tokenizer.is_special(id)) ids.push_back(id);
      }
      std::string text;
      unicode::split_utf8(
          tokenizer.decode(ids), [&](std::string_view part) { text += part; },
          [&](char) { text += "\xef\xbf\xbd"; });
      CAPTURE(name, round, ids);
      REQUIRE(stream(tokenizer, ids) == text);
    }
  }
  // A character of several tokens appears with the last; a special token ends it.
  const BpeTokenizer& tokenizer = trained("smollm");
  const Ids ids = tokenizer.encode("𒀀");
  REQUIRE(ids.size() >= 3);
  StreamDecoder decoder(tokenizer);
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) CHECK(decoder(ids[i]) == "");
  CHECK(decoder(ids.back()) == "𒀀");
  CHECK(decoder(ids[0]) == "");
  CHECK(decoder(tokenizer.id_of("<|im_end|>")).starts_with("\xef\xbf\xbd"));
}

TEST_CASE("special tokens have ids, names and no text") {
  const BpeTokenizer& tokenizer = trained("smollm");
  const std::int32_t begin = tokenizer.id_of("<|im_start|>"), end = tokenizer.id_of("<|im_end|>");
  CHECK(begin == 1);
  CHECK(end == 2);
  CHECK(tokenizer.is_special(begin));
  CHECK_FALSE(tokenizer.is_special(3));
  CHECK_FALSE(tokenizer.is_special(-1));
  CHECK_FALSE(tokenizer.is_special(tokenizer.vocab_size()));
  CHECK(tokenizer.vocab_size() == 800);

  const std::string turn = "<|im_start|>user\nHi<|im_end|>\n";
  const Ids ids = tokenizer.encode(turn), text = tokenizer.encode(turn, {.parse_special = false});
  CHECK(ids.front() == begin);
  CHECK(std::count(ids.begin(), ids.end(), end) == 1);
  CHECK(std::count(text.begin(), text.end(), begin) == 0);
  CHECK(std::count(text.begin(), text.end(), end) == 0);
  CHECK(tokenizer.decode(ids) == "user\nHi\n");
  CHECK(tokenizer.decode(ids, true) == turn);
  CHECK(tokenizer.decode(text) == turn);
  CHECK(stream(tokenizer, ids) == "user\nHi\n");
  CHECK(message_of([&] { tokenizer.id_of("<|eot_id|>"); }) ==
        data_path("bpe/smollm.json") + ": there is no added token \"<|eot_id|>\"");
  CHECK(message_of([&] { tokenizer.id_of("e"); }) != "<nothing was thrown>");

  CHECK(trained("gpt2").id_of("<tool_call>") > 0);
  CHECK_FALSE(trained("gpt2").is_special(trained("gpt2").id_of("<tool_call>")));
}

TEST_CASE("the beginning of text is a token on request") {
  const BpeTokenizer& tokenizer = trained("llama3");
  CHECK(tokenizer.adds_bos());
  CHECK(tokenizer.bos_id() == tokenizer.id_of("<|begin_of_text|>"));
  CHECK(tokenizer.eos_id() == -1);
  Ids ids = tokenizer.encode("the sea");
  const Ids with_bos = tokenizer.encode("the sea", {.add_bos = true});
  ids.insert(ids.begin(), tokenizer.bos_id());
  CHECK(with_bos == ids);
  CHECK(tokenizer.decode(with_bos) == "the sea");

  CHECK_FALSE(trained("smollm").adds_bos());
  CHECK(trained("smollm").bos_id() == -1);
  CHECK(message_of([&] { trained("smollm").encode("x", {.add_bos = true}); }) ==
        data_path("bpe/smollm.json") + ": there is no beginning-of-text token");
}

TEST_CASE("ids outside the vocabulary are named") {
  const BpeTokenizer& tokenizer = trained("smollm");
  const std::string file = data_path("bpe/smollm.json");
  CHECK(message_of([&] { tokenizer.decode(Ids{5, 800}); }) ==
        file + ": id 800 at index 1 is outside [0, 800)");
  CHECK(message_of([&] { tokenizer.decode(Ids{-1}); }) ==
        file + ": id -1 at index 0 is outside [0, 800)");
  StreamDecoder decoder(tokenizer);
  CHECK(message_of([&] { decoder(800); }) == file + ": id 800 is outside [0, 800)");
}

TEST_CASE("letters, numbers and white space are those of the package tokenizers") {
  const auto check = [](const char* name, auto is) {
    const auto bounds = expected()[name].get<std::vector<char32_t>>();
    REQUIRE(bounds.size() > 4);
    std::size_t passed = 0, wrong = 0;
    for (char32_t c = 0; c < 0x110000; ++c) {
      while (passed < bounds.size() && bounds[passed] <= c) ++passed;
      const bool surrogate = c >= 0xd800 && c < 0xe000;
      wrong += !surrogate && is(c) != (passed % 2 == 1);
    }
    CAPTURE(name);
    CHECK(wrong == 0);
  };
  check("letters", [](char32_t c) { return unicode::is_letter(c); });
  check("numbers", [](char32_t c) { return unicode::is_number(c); });
  check("white_space", [](char32_t c) { return unicode::is_space(c); });
  CHECK(unicode::is_digit(U'½'));
  CHECK(unicode::is_digit(0x11de0));
  CHECK_FALSE(unicode::is_number(0x11de0));
  CHECK_FALSE(unicode::is_digit(U'x'));
}

TEST_CASE("the normal form is that of the package tokenizers") {
  const std::vector<std::string> all = texts();
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(i, all[i]);
    CHECK(unicode::nfc(all[i]) == expected()["nfc"][i].get<std::string>());
  }
}

TEST_CASE("a text in normal form stays as it is") {
  std::string everything;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string one, after;
    unicode::append(one, c);
    const unicode::Character read = unicode::character_at(one, 0);
    if (read.code != c || read.bytes != one.size()) FAIL("UTF-8 of " << static_cast<unsigned>(c));
    after = unicode::nfc("a" + one + "\u0301\u0323");
    if (unicode::nfc(after) != after) FAIL("not stable: " << static_cast<unsigned>(c));
    everything += one;
  }
  const std::string normal = unicode::nfc(everything);
  CHECK(normal != everything);
  CHECK(unicode::nfc(normal) == normal);
}

TEST_CASE("merges are made in the order of their list, leftmost first") {
  Random random{11};
  for (int round = 0; round < 300; ++round) {
    // Random merges of a, b and c and of what they make.
    std::vector<std::string> words = {"a", "b", "c"}, merges;
    std::map<std::string, int> ids = {{"a", 'a'}, {"b", 'b'}, {"c", 'c'}};
    std::vector<std::pair<std::pair<int, int>, int>> list;
    std::vector<std::string> more;
    for (int i = 0; i < 12; ++i) {
      const std::string left = words[random(words.size())], right = words[random(words.size())];
      const std::string merge = left + " " + right, both = left + right;
      if (std::find(merges.begin(), merges.end(), merge) != merges.end() || both.size() > 12)
        continue;
      merges.push_back(merge);
      if (!ids.contains(both)) {
        ids[both] = static_cast<int>(256 + more.size());
        more.push_back(both);
        words.push_back(both);
      }
      list.push_back({{ids[left], ids[right]}, ids[both]});
    }
    const Made made(more, merges);
    const BpeTokenizer tokenizer(made.parts);
    for (int i = 0; i < 20; ++i) {
      std::string word;
      for (std::size_t n = 1 + random(30); n > 0; --n) word += static_cast<char>('a' + random(3));
      CAPTURE(round, word, merges);
      REQUIRE(tokenizer.encode(word) == merged(Ids(word.begin(), word.end()), list));
    }
  }
}

TEST_CASE("a word of a million letters takes no longer than many words") {
  // A quadratic algorithm would take hours.
  std::string word;
  Random random{12};
  for (int i = 0; i < 1000000; ++i) word += static_cast<char>('a' + random(26));
  for (const std::string& name : names) {
    const BpeTokenizer& tokenizer = trained(name);
    for (const std::string& text :
         {word, std::string(1000000, 'a'), std::string(1000000, ' '), std::string(1000000, '\n'),
          std::string(1000000, '!'), std::string(1000000, '<'), std::string(1000000, '\xff')}) {
      CAPTURE(name, text[0]);
      CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
    }
  }
}

TEST_CASE("a word that is a token needs no merges where these are ignored") {
  Made made({"ab", "cd", "abcd"}, {"a b", "c d"});
  CHECK(BpeTokenizer(made.parts).encode("abcd") == Ids{256, 257});
  made.parts.ignore_merges = true;
  CHECK(BpeTokenizer(made.parts).encode("abcd") == Ids{258});
  CHECK(BpeTokenizer(made.parts).encode("abcda") == Ids{256, 257, 'a'});
  // Only tokens that are no special ones: text never becomes one of these by itself.
  const BpeAddedToken added[] = {{.id = 258}};
  made.parts.added = added;
  CHECK(BpeTokenizer(made.parts).encode("abcd") == Ids{258});
  CHECK(BpeTokenizer(made.parts).encode("abcd", {.parse_special = false}) == Ids{256, 257});
}

TEST_CASE("parts as GGUF files have them") {
  Made made({"<|im_end|>", "ab", "<tool>", "[PAD1]", "<unk>"}, {"a b"});
  std::vector<std::int32_t> types(256, 1);
  for (const std::int32_t type : {3, 1, 4, 5, 2}) types.push_back(type);
  made.parts.types = types;
  made.parts.bos = 256;
  made.parts.eos = 256;
  made.parts.adds_bos = true;
  made.parts.set_pre("smollm");
  const BpeTokenizer tokenizer(made.parts);
  CHECK(tokenizer.bos_id() == 256);
  CHECK(tokenizer.eos_id() == 256);
  CHECK(tokenizer.encode("ab<|im_end|><tool>ab12", {.add_bos = true}) ==
        Ids{256, 257, 256, 258, 257, '1', '2'});
  CHECK(tokenizer.encode("<tool>", {.parse_special = false}) == Ids{258});
  CHECK(tokenizer.encode("[PAD1]").size() == 6);
  CHECK(tokenizer.decode(Ids{256, 257, 258, 259, 260}) == "ab<tool>[PAD1]");
  CHECK(tokenizer.is_special(260));

  BpeParts parts{.source = "model.gguf"};
  for (const char* name : {"gpt-2", "mpt"}) {
    parts.set_pre(name);
    CHECK((parts.pattern == BpePattern::gpt2 && !parts.ignore_merges));
  }
  parts.set_pre("llama-bpe");
  CHECK((parts.pattern == BpePattern::llama3 && parts.ignore_merges));
  parts.set_pre("qwen2");
  CHECK((parts.pattern == BpePattern::qwen2 && !parts.ignore_merges && parts.nfc));
  for (const char* name : {"smollm", "starcoder", "refact"}) {
    parts.set_pre(name);
    CHECK((parts.pattern == BpePattern::smollm && !parts.ignore_merges && !parts.nfc));
  }
  CHECK(message_of([&] { parts.set_pre("deepseek-llm"); }) ==
        "model.gguf: tokenizer.ggml.pre: expected gpt-2, mpt, smollm, starcoder, refact, llama-bpe "
        "or "
        "qwen2, found \"deepseek-llm\"");
}

TEST_CASE("a byte without a token is an error, or the unknown token") {
  Made made({"<unk>"});
  made.tokens['x'] = "xy";
  made.show();
  CHECK(message_of([&] { BpeTokenizer(made.parts).encode("ax"); }) ==
        "BpeTokenizer: byte 120 of the text has no token, and there is no unknown token");
  made.parts.unknown = 256;
  CHECK(BpeTokenizer(made.parts).encode("axb") == Ids{'a', 256, 'b'});
}

TEST_CASE("parts that contradict each other are refused") {
  const auto contains = [](const std::string& message, const std::string& part) {
    CAPTURE(message, part);
    CHECK(message.starts_with("f.gguf: "));
    CHECK(message.find(part) != message.npos);
  };
  const auto made = [](std::vector<std::string> more, std::vector<std::string> merges) {
    Made result(std::move(more), std::move(merges));
    result.parts.source = "f.gguf";
    return result;
  };
  contains(made({"ab", "c", "ab"}, {}).error(), "tokens 99 and 257 are both \"c\"");
  contains(made({"ab", "ab"}, {}).error(), "tokens 256 and 257 are both \"ab\"");
  contains(made({""}, {}).error(), "token 256 is empty");
  contains(made({"a b"}, {}).error(),
           "token 256, \"a b\": expected characters of the byte alphabet of GPT-2");
  contains(made({"東"}, {}).error(), "expected characters of the byte alphabet");
  contains(made({"\xff"}, {}).error(), "expected characters of the byte alphabet");
  contains(made({"ab"}, {"a b", "a c"}).error(), "merges[1], \"a c\": \"ac\" is no token");
  contains(made({"ab"}, {"ax b"}).error(), "merges[0], \"ax b\": \"ax\" is no token");
  contains(made({"ab"}, {"a bx"}).error(), "merges[0], \"a bx\": \"bx\" is no token");
  contains(made({"ab"}, {"a b", "a b"}).error(), "merges[0] and merges[1] are both \"a b\"");
  for (const char* merge : {"", " ", "ab", " ab", "ab ", "a  b", "a b c"})
    contains(made({"ab"}, {merge}).error(),
             "merges[0]: expected two tokens with a space between, found \"");

  Made special = made({"ab"}, {"a b"});
  const BpeAddedToken added[] = {{.id = 256}};
  special.parts.added = added;
  contains(special.error(), "merges[0], \"a b\": \"ab\" is a special, unused or byte token");
  const BpeAddedToken twice[] = {{.id = 7}, {.id = 7}};
  special.parts.added = twice;
  contains(special.error(), "added tokens: id 7 is there twice");
  const BpeAddedToken outside[] = {{.id = 257}};
  special.parts.added = outside;
  contains(special.error(), "added tokens: expected an id in [0, 257), found 257");
  const BpeAddedToken without_id[] = {{}};
  special.parts.added = without_id;
  contains(special.error(), "added tokens: expected an id, found -1");

  Made types = made({"ab"}, {});
  std::vector<std::int32_t> numbers(256, 1);
  types.parts.types = numbers;
  contains(types.error(), "types: expected one for each of 257 tokens, found 256");
  for (const std::int32_t wrong : {0, 6, -1}) {
    numbers.assign(257, 1);
    numbers[5] = wrong;
    types.parts.types = numbers;
    contains(types.error(), "types: expected 1 to 5 for token 5, found " + std::to_string(wrong));
  }
  types.parts.added = added;
  contains(types.error(), "expected added tokens or types, found both");

  Made ids = made({}, {});
  ids.parts.bos = 256;
  contains(ids.error(), "bos: expected an id in [0, 256), found 256");
  ids.parts.bos = -1;
  ids.parts.eos = -2;
  contains(ids.error(), "eos: expected an id in [0, 256), found -2");
  ids.parts.eos = -1;
  ids.parts.unknown = 1000;
  contains(ids.error(), "unknown: expected an id in [0, 256), found 1000");
  ids.parts.unknown = -1;
  ids.parts.adds_bos = true;
  contains(ids.error(), "adds_bos: expected a beginning-of-text token, found none");
  ids.parts.tokens = {};
  contains(ids.error(), "tokens: expected at least one, found none");

  const std::string bytes =
      "scores, byte_fallback, prefix and metaspace: expected none for symbols that are bytes";
  Made scored = made({}, {});
  std::vector<float> scores(256);
  scored.parts.scores = scores;
  contains(scored.error(), bytes);
  scored.parts.symbols = BpeSymbols::characters;
  CHECK(scored.error() == "<nothing was thrown>");
  scored.parts.nfc = true;
  contains(scored.error(), "nfc: expected false for symbols that are characters");
  Made both = made({"ab"}, {"a b"});
  both.parts.symbols = BpeSymbols::characters;
  both.parts.scores = scores;
  contains(both.error(), "expected merges or scores, found both");
  for (const int field : {0, 1, 2}) {
    Made other = made({}, {});
    other.parts.byte_fallback = field == 0;
    other.parts.prefix = field == 1 ? SpacePrefix::first : SpacePrefix::off;
    other.parts.metaspace = field == 2;
    contains(other.error(), bytes);
  }
}
