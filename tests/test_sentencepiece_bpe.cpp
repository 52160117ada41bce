// Tokenizers of SentencePiece's kind, out of tokenizer.json, tokenizer.model and GGUF files, against the packages
// tokenizers and sentencepiece (bpe/make_sentencepiece_data.py) and against merging by its definition.
#include <samba/io/load_tokenizer.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using namespace samba;
using samba_test::data_path;
using samba_test::message_of;
using samba_test::Random;

namespace {

using Ids = std::vector<std::int32_t>;

const nlohmann::json& expected() {
  static const auto json =
      nlohmann::json::parse(samba_test::read_file(data_path("sentencepiece/expected.json")));
  return json;
}
const std::vector<std::string>& texts() {
  static const auto all = expected()["texts"].get<std::vector<std::string>>();
  return all;
}

/// The tokenizer of a file of tests/data/sentencepiece.
const BpeTokenizer& read(const std::string& file) {
  static std::map<std::string, BpeTokenizer> all;
  if (!all.contains(file)) all.emplace(file, load_tokenizer(data_path("sentencepiece/" + file)));
  return all.at(file);
}
const std::vector<std::string> json_names = {"prepend", "replace", "metaspace"},
                               model_names = {"prefix", "user", "unknown"};

std::string stream(const BpeTokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) text += decoder(id);
  return text + decoder.finish();
}

/// What is UTF-8 in a text, and U+FFFD for every byte that is not.
std::string shown(std::string_view bytes) {
  std::string text;
  unicode::split_utf8(
      bytes, [&](std::string_view part) { text += part; }, [&](char) { text += "\xef\xbf\xbd"; });
  return text;
}

/// The texts cut and joined anew, with bytes that are no UTF-8 in some of them and no U+2581.
std::string random_text(Random& random) {
  std::string text;
  for (int parts = 1 + random.below(4); parts > 0; --parts) {
    const std::string& from =
        texts()[static_cast<std::size_t>(random.below(static_cast<int>(texts().size())))];
    const auto begin = static_cast<std::size_t>(random.below(static_cast<int>(from.size()) + 1));
    text += from.substr(begin, static_cast<std::size_t>(random.below(24)));
    if (random.below(3) == 0) text += static_cast<char>(random.below(256));
    if (random.below(5) == 0) text.append(static_cast<std::size_t>(random.below(9)), ' ');
  }
  return detail::with_spaces(text);
}

/// Metadata of a GGUF file, written by hand.
struct Metadata {
  std::string bytes;
  std::uint64_t entries = 0;

  template <class X>
  void raw(X x) {
    const auto all = std::bit_cast<std::array<char, sizeof(X)>>(x);
    bytes.append(all.data(), all.size());
  }
  void text(std::string_view s) {
    raw(static_cast<std::uint64_t>(s.size()));
    bytes += s;
  }
  /// 4: UINT32, 5: INT32, 6: FLOAT32, 7: BOOL, 8: STRING
  template <class X>
  void value(const X& x) {
    if constexpr (std::is_convertible_v<X, std::string_view>)
      text(x);
    else
      raw(x);
  }
  template <class X>
  Metadata& one(std::string_view key, std::uint32_t type, const X& x) {
    text(key);
    raw(type);
    value(x);
    ++entries;
    return *this;
  }
  template <class X>
  Metadata& many(std::string_view key, std::uint32_t type, const std::vector<X>& all) {
    text(key);
    raw(std::uint32_t{9});
    raw(type);
    raw(static_cast<std::uint64_t>(all.size()));
    for (const X& x : all) value(x);
    ++entries;
    return *this;
  }
  std::string file() const {
    Metadata start;
    start.bytes = "GGUF";
    start.raw(std::uint32_t{3});
    start.raw(std::uint64_t{0});
    start.raw(entries);
    return start.bytes + bytes;
  }
};

/// A small vocabulary as the metadata of a GGUF file.
struct Vocabulary {
  std::string model = "llama";
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab"};
  std::vector<float> scores = {0, 0, 0, -2, -3, -4, -1};
  std::vector<std::int32_t> types = {2, 3, 3, 1, 1, 1, 1};

  Metadata metadata() const {
    Metadata all;
    all.one("tokenizer.ggml.model", 8, model);
    all.many("tokenizer.ggml.tokens", 8, tokens);
    if (!scores.empty()) all.many("tokenizer.ggml.scores", 6, scores);
    all.many("tokenizer.ggml.token_type", 5, types);
    all.one("tokenizer.ggml.bos_token_id", 4, std::uint32_t{1});
    return all;
  }
};

BpeTokenizer tokenizer_of(const Metadata& metadata) {
  const samba_test::TempDir folder;
  const std::string path = folder.file("m.gguf");
  samba_test::write_file(path, metadata.file());
  return load_tokenizer(path);
}

/// The message without the folder.
std::string error_of(const Metadata& metadata) {
  const std::string message = message_of([&] { tokenizer_of(metadata); });
  const std::size_t file = message.find("m.gguf: ");
  return file == message.npos ? message : message.substr(file);
}

bool starts(const std::string& message, const std::string& beginning) {
  UNSCOPED_INFO(message);
  return message.starts_with(beginning);
}

/// Merging by its definition: of neighbours that are a token together, those of the highest score, the
/// leftmost of these, until there are none.
std::vector<std::string> merged(std::vector<std::string> parts,
                                const std::map<std::string, float>& scores) {
  while (true) {
    std::size_t best = parts.size();
    float score = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = scores.find(parts[i] + parts[i + 1]);
      if (found == scores.end() || (best < parts.size() && found->second <= score)) continue;
      best = i;
      score = found->second;
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("the ids of a tokenizer.json are those of the package tokenizers") {
  for (const std::string& name : json_names) {
    const BpeTokenizer& tokenizer = read(name + ".json");
    const auto& all = expected()[name];
    REQUIRE(all["ids"].size() == texts().size());
    for (std::size_t i = 0; i < texts().size(); ++i) {
      CAPTURE(name, i, texts()[i]);
      const Ids ids = all["ids"][i].get<Ids>();
      const Ids plain = all["plain"][i].is_null() ? ids : all["plain"][i].get<Ids>();
      CHECK(tokenizer.encode(texts()[i]) == ids);
      CHECK(tokenizer.encode(texts()[i], {.parse_special = false}) == plain);
      // The package keeps the space that it puts behind an added token, and strips those in front.
      const bool own = texts()[i].find("<tool>") != std::string::npos ||
                       (name == "metaspace" && texts()[i].starts_with("\u2581\u2581"));
      const std::string text =
          own ? detail::with_spaces(texts()[i]) : all["decoded"][i].get<std::string>();
      CHECK(tokenizer.decode(plain) == text);
      CHECK(stream(tokenizer, plain) == text);
    }
    CHECK(tokenizer.encode("", {.add_bos = tokenizer.adds_bos()}) == all["bos"].get<Ids>());
  }
}

TEST_CASE("the ids of a tokenizer.model and a GGUF file are those of the package sentencepiece") {
  for (const std::string& name : model_names)
    for (const std::string kind : {".model", ".gguf"}) {
      const BpeTokenizer& tokenizer = read(name + kind);
      const auto& all = expected()[name];
      REQUIRE(all["ids"].size() == texts().size());
      for (std::size_t i = 0; i < texts().size(); ++i) {
        CAPTURE(name, kind, i, texts()[i]);
        const Ids ids = all["ids"][i].get<Ids>();
        CHECK(tokenizer.encode(texts()[i], {.parse_special = false}) == ids);
        if (name == "unknown") continue;  // the package writes the unknown token as a mark
        CHECK(tokenizer.decode(ids) == all["decoded"][i].get<std::string>());
        CHECK(stream(tokenizer, ids) == all["decoded"][i].get<std::string>());
      }
      CHECK(tokenizer.bos_id() == 1);
      CHECK(tokenizer.eos_id() == 2);
      CHECK(tokenizer.adds_bos() == (kind == ".gguf"));
      CHECK(tokenizer.is_special(0));
    }
}

TEST_CASE("of all pairs that are a token, the highest score is merged first, then the leftmost") {
  Random random;
  CAPTURE(random.seed);
  for (int round = 0; round < 200; ++round) {
    // Tokens of three letters and few scores, so that many are equal; not all letters are tokens.
    Vocabulary vocabulary;
    vocabulary.tokens = {"<unk>", "<s>", "a", "b"};
    vocabulary.scores = {0, 0, -9, -9};
    std::map<std::string, float> scores = {{"a", -9.f}, {"b", -9.f}};
    for (int i = 0; i < 20; ++i) {
      std::string token;
      for (int n = 2 + random.below(4); n > 0; --n) token += "abc"[random.below(3)];
      if (scores.contains(token)) continue;
      vocabulary.tokens.push_back(token);
      vocabulary.scores.push_back(static_cast<float>(-random.below(4)));
      scores[token] = vocabulary.scores.back();
    }
    vocabulary.types.assign(vocabulary.tokens.size(), 1);
    vocabulary.types[0] = 2;
    vocabulary.types[1] = 3;
    Metadata metadata = vocabulary.metadata();
    metadata.one("tokenizer.ggml.unknown_token_id", 4, std::uint32_t{0});
    metadata.one("tokenizer.ggml.add_space_prefix", 7, std::uint8_t{0});
    const BpeTokenizer tokenizer = tokenizer_of(metadata);
    for (int i = 0; i < 20; ++i) {
      std::vector<std::string> letters;
      std::string text;
      for (int n = random.below(30); n > 0; --n)
        text += letters.emplace_back(1, "abc"[random.below(3)]);
      Ids ids;
      for (const std::string& part : merged(letters, scores)) {
        const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), part);
        const bool known = found != vocabulary.tokens.end();
        if (known || ids.empty() || ids.back() != 0)
          ids.push_back(known ? static_cast<std::int32_t>(found - vocabulary.tokens.begin()) : 0);
      }
      CAPTURE(round, text, vocabulary.tokens, vocabulary.scores);
      REQUIRE(tokenizer.encode(text) == ids);
    }
  }
}

TEST_CASE("SentencePiece: any bytes come back from their ids") {
  Random random;
  CAPTURE(random.seed);
  for (const std::string file : {"prepend.json", "replace.json", "metaspace.json", "prefix.model",
                                 "prefix.gguf", "user.model", "user.gguf"}) {
    const BpeTokenizer& tokenizer = read(file);
    for (int round = 0; round < 2000; ++round) {
      std::string text = random_text(random);
      // Metaspace puts no space in front of one, so takes one too many away.
      if (file == "metaspace.json")
        text.erase(0, (std::min)(text.find_first_not_of(' '), text.size()));
      CAPTURE(file, round, text);
      const Ids plain = tokenizer.encode(text, {.parse_special = false});
      REQUIRE(tokenizer.decode(plain) == text);
      REQUIRE(stream(tokenizer, plain) == shown(text));
      for (const std::int32_t id : plain) REQUIRE(!tokenizer.is_special(id));
      // Some special tokens of prepend.json take white space.
      if (file != "prepend.json") REQUIRE(tokenizer.decode(tokenizer.encode(text), true) == text);
    }
  }
}

TEST_CASE("SentencePiece: a byte that is no UTF-8 is its own token") {
  const BpeTokenizer& tokenizer = read("user.gguf");
  const Ids byte = tokenizer.encode("\xff");
  REQUIRE(byte.size() == 1);
  CHECK(tokenizer.decode(byte) == "\xff");
  Ids ids = tokenizer.encode("the ");
  ids.push_back(byte[0]);
  const Ids after = tokenizer.encode("sea");
  ids.insert(ids.end(), after.begin(), after.end());
  CHECK(tokenizer.encode("the \xffsea") == ids);
  CHECK(tokenizer.encode("\xe2\x82").size() == 2);  // a character broken off
  CHECK(read("unknown.gguf").encode("\xff\xff") == read("unknown.gguf").encode("\xff"));
}

TEST_CASE("SentencePiece: any ids stream to what they decode to") {
  Random random;
  CAPTURE(random.seed);
  for (const std::string file : {"prepend.json", "replace.json", "metaspace.json", "prefix.model",
                                 "user.gguf", "unknown.gguf"}) {
    const BpeTokenizer& tokenizer = read(file);
    for (int round = 0; round < 500; ++round) {
      Ids ids;
      for (int n = random.below(12); n > 0; --n) {
        ids.push_back(random.below(random.below(2) ? tokenizer.vocab_size() : 300));
        // A special token, or a space in front that is left out, ends a character in a stream.
        if (tokenizer.is_special(ids.back()) || tokenizer.decode(Ids{ids.back()}).empty())
          ids.pop_back();
      }
      CAPTURE(file, round, ids);
      REQUIRE(stream(tokenizer, ids) == shown(tokenizer.decode(ids)));
    }
  }
}

TEST_CASE("SentencePiece: special tokens, and the spaces around them") {
  const BpeTokenizer& user = read("user.gguf");
  const std::int32_t start = user.id_of("<start_of_turn>"), end = user.id_of("<end_of_turn>");
  const std::string turn = "<start_of_turn>user\n<table>  Hi<end_of_turn>\n";
  const Ids ids = user.encode(turn), plain = user.encode(turn, {.parse_special = false});
  CHECK(ids.front() == start);
  CHECK(std::count(ids.begin(), ids.end(), end) == 1);
  CHECK(std::count(plain.begin(), plain.end(), end) == 0);
  // User-defined tokens are those of all texts.
  for (const Ids& some : {ids, plain})
    CHECK(std::count(some.begin(), some.end(), user.id_of("<table>")) == 1);
  CHECK(std::count(ids.begin(), ids.end(), user.id_of("  ")) == 1);
  CHECK_FALSE(user.is_special(user.id_of("<table>")));
  CHECK(user.decode(ids) == "user\n<table>  Hi\n");
  CHECK(user.decode(ids, true) == turn);

  // A space is put in front of text, after special tokens too, and taken away.
  for (const std::string file : {"prefix.gguf", "prefix.model", "prepend.json"}) {
    const BpeTokenizer& prefix = read(file);
    const Ids the = prefix.encode("the");
    Ids twice = the;
    twice.push_back(2);
    twice.insert(twice.end(), the.begin(), the.end());
    CAPTURE(file);
    CHECK(prefix.encode("the</s>the") == twice);
    CHECK(prefix.decode(twice, true) == "the</s>the");
    CHECK(prefix.decode(twice) == "thethe");
    CHECK(prefix.decode(prefix.encode("  the")) == "  the");
    Ids begun = the;
    begun.insert(begun.begin(), 1);
    CHECK(prefix.encode("the", {.add_bos = true}) == begun);
    CHECK(prefix.decode(begun) == "the");
  }
  CHECK(read("metaspace.json").encode("the") == read("metaspace.json").encode(" the"));
  const Ids once = read("metaspace.json").encode("</s>the");
  CHECK(once != read("metaspace.json").encode("</s> the"));
  CHECK(read("metaspace.json").decode(once, true) == "</s>the");
}

TEST_CASE("GGUF: what the metadata leave out, and user-defined tokens behind the space in front") {
  Vocabulary v;
  const BpeTokenizer plain = tokenizer_of(v.metadata());
  CHECK(plain.adds_bos());
  CHECK(plain.encode("ab", {.add_bos = true}) == Ids{1, 3, 6});
  CHECK(plain.decode(Ids{1, 3, 6}) == "ab");
  CHECK(plain.eos_id() == -1);
  v.types[6] = 4;
  CHECK(tokenizer_of(v.metadata()).encode("abaab") == Ids{3, 6, 4, 6});
  v.tokens[6] = " a";  // the space in front belongs to the text in which it is found
  CHECK(tokenizer_of(v.metadata()).encode("ab a") == Ids{6, 5, 6});
  CHECK(tokenizer_of(v.metadata()).decode(Ids{6, 5, 6}) == "ab a");
}

TEST_CASE("gemma3_chat gives the ids of the model's template") {
  const BpeTokenizer& tokenizer = read("user.gguf");
  const ChatMessage messages[] = {{"system", " Be short. "},
                                  {"user", "\n Who are <end_of_turn> you?\u00a0 "},
                                  {"assistant", "  "},
                                  {"user", "x"}};
  const auto rendered = [&](std::string_view text, Ids ids) {
    const Ids more = tokenizer.encode(text);
    ids.insert(ids.end(), more.begin(), more.end());
    return ids;
  };
  // What looks like a special token is text.
  Ids first = rendered("<start_of_turn>", {1});
  const Ids question =
      tokenizer.encode("user\n Be short. \n\nWho are <end_of_turn> you?", {.parse_special = false});
  first.insert(first.end(), question.begin(), question.end());
  CHECK(gemma3_chat(tokenizer, messages) == rendered("<end_of_turn>\n<start_of_turn>model\n<end_of_"
                                                     "turn>\n<start_of_turn>user\nx<end_of_turn>\n"
                                                     "<start_of_turn>model\n",
                                                     first));
  CHECK(gemma3_chat(tokenizer, std::span(messages + 3, 1)) ==
        rendered("<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n", {1}));
  CHECK(gemma3_chat(tokenizer, {}) == rendered("<start_of_turn>model\n", {1}));

  CHECK(message_of([&] { gemma3_chat(tokenizer, std::span(messages + 2, 2)); }) ==
        "gemma3_chat: message 0 after the system's: expected the role user, found \"assistant\"");
  const ChatMessage twice[] = {{"user", "a"}, {"user", "b"}};
  CHECK(message_of([&] { gemma3_chat(tokenizer, twice); }) ==
        "gemma3_chat: message 1 after the system's: expected the role assistant, found \"user\"");
  CHECK(message_of([&] { gemma3_chat(read("prefix.gguf"), messages); }) ==
        data_path("sentencepiece/prefix.gguf") + ": there is no added token \"<start_of_turn>\"");
}

TEST_CASE("load_tokenizer finds the kind of a file or folder") {
  const samba_test::TempDir folder;
  const auto copy = [&](const std::string& from, const std::string& to) {
    samba_test::write_file(folder.file(to), samba_test::read_file(data_path(from)));
  };
  const std::string path = folder.file("");
  CHECK(message_of([&] { load_tokenizer(path); }) ==
        path + ": expected a folder with tokenizer.json or tokenizer.model, found neither");
  copy("sentencepiece/prefix.model", "tokenizer.model");
  CHECK(load_tokenizer(path).encode("the sea") == read("prefix.model").encode("the sea"));
  copy("sentencepiece/prepend.json", "tokenizer.json");
  CHECK(load_tokenizer(path).encode("the sea") == read("prepend.json").encode("the sea"));
  copy("bpe/gpt2.json", "tokenizer.json");
  CHECK(load_tokenizer(path).encode("the sea") ==
        load_tokenizer_json(data_path("bpe/gpt2.json")).encode("the sea"));
  CHECK(load_tokenizer(data_path("sentencepiece/user.gguf")).vocab_size() == 900);

  const std::string other = folder.file("other");
  samba_test::write_file(other, "# a text");
  CHECK(message_of([&] { load_tokenizer(other); }) ==
        other +
            ": expected a GGUF file, a tokenizer.json or a tokenizer.model, found a file that "
            "begins with "
            "\"# a text\"");
  samba_test::write_file(other, "");
  CHECK_MESSAGE_OF(load_tokenizer(other), other + ": expected a GGUF file, a ");
  CHECK_MESSAGE_OF(load_tokenizer(folder.file("absent")), folder.file("absent") + ": cannot open");
  samba_test::write_file(other, "GGUF");
  CHECK_MESSAGE_OF(load_tokenizer(other), other + ": ");
}

TEST_CASE("GGUF vocabularies that are wrong are refused by file and field") {
  const Vocabulary right;
  CHECK(tokenizer_of(right.metadata()).decode(tokenizer_of(right.metadata()).encode("ab ab")) ==
        "ab ab");

  Vocabulary v = right;
  v.model = "t5";
  CHECK(error_of(v.metadata()) ==
        "m.gguf: tokenizer.ggml.model: expected gpt2 or llama, found \"t5\"");
  v = right;
  v.scores.pop_back();
  CHECK(error_of(v.metadata()) == "m.gguf: scores: expected one for each of 7 tokens, found 6");
  v.scores = {};
  CHECK(starts(error_of(v.metadata()), "m.gguf: metadata \"tokenizer.ggml.scores\" is missing"));
  v = right;
  v.scores[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK(
      starts(error_of(v.metadata()), "m.gguf: scores: expected a finite one for token 4, found "));
  v = right;
  v.types.push_back(1);
  CHECK(error_of(v.metadata()) == "m.gguf: types: expected one for each of 7 tokens, found 8");
  v = right;
  v.types[4] = 7;
  CHECK(error_of(v.metadata()) == "m.gguf: types: expected 1 to 5 for token 4, found 7");
  v.types[4] = 6;
  CHECK(error_of(v.metadata()) ==
        "m.gguf: token 4 of type 6: expected <0x00> to <0xFF>, found \"a\"");
  v.tokens[4] = "<0x41>";
  CHECK(error_of(v.metadata()) ==
        "m.gguf: byte_fallback: expected a token for each byte, found none <0x00>");
  for (const char* name : {"<0x4g>", "<0x4a>", "<0X41>", "<0x41", "<0x-1>", "<0x411>"}) {
    v.tokens[4] = name;
    CAPTURE(name);
    CHECK(starts(error_of(v.metadata()),
                 "m.gguf: token 4 of type 6: expected <0x00> to <0xFF>, found "));
  }
  v = right;
  v.tokens[5] = "a";
  CHECK(error_of(v.metadata()) == "m.gguf: tokens 4 and 5 are both \"a\"");
  v.tokens[5] = "";
  CHECK(error_of(v.metadata()) == "m.gguf: token 5 is empty");
  v.tokens = {};
  CHECK(starts(error_of(v.metadata()), "m.gguf: "));

  const auto with = [&](std::string_view key, std::uint32_t type, auto value) {
    return right.metadata().one(key, type, value);
  };
  CHECK(error_of(with("tokenizer.ggml.eos_token_id", 4, std::uint32_t{7})) ==
        "m.gguf: tokenizer.ggml.eos_token_id: expected an id below 7, found 7");
  CHECK(error_of(with("tokenizer.ggml.unknown_token_id", 5, std::int32_t{-2})) ==
        "m.gguf: tokenizer.ggml.unknown_token_id: expected an id below 7, found -2");
  CHECK(error_of(with("tokenizer.ggml.remove_extra_whitespaces", 7, std::uint8_t{1})) ==
        "m.gguf: tokenizer.ggml.remove_extra_whitespaces: expected false, found true");
  CHECK(error_of(right.metadata().many("tokenizer.ggml.precompiled_charsmap", 5, Ids{1})) ==
        "m.gguf: tokenizer.ggml.precompiled_charsmap: expected none, found one");
  CHECK(starts(error_of(with("tokenizer.ggml.add_bos_token", 4, std::uint32_t{1})),
               "m.gguf: metadata \"tokenizer.ggml.add_bos_token\": expected "));

  // Without an unknown token and tokens of bytes, what has none is an Error when it is encoded.
  const BpeTokenizer tokenizer = tokenizer_of(right.metadata());
  for (const char* text : {"東", "\xff"})
    CHECK(message_of([&] { tokenizer.encode(text); })
              .ends_with("m.gguf: \"" + std::string(text) +
                         "\" in the text has no token, and there is no unknown token"));
}

TEST_CASE("tokenizer.model files that are wrong or of another kind are refused") {
  const std::string model = samba_test::read_file(data_path("sentencepiece/prefix.model"));
  const auto error = [](const std::string& bytes) {
    return message_of([&] { parse_sentencepiece_model(bytes, "t.model"); });
  };
  const std::string broken = "t.model: expected a SentencePiece model, found ";
  CHECK(error("") == broken + "no pieces");
  for (const std::string& bytes :
       {std::string("\n"), std::string("\n\x05"), std::string("\n\xff\xff"), std::string("\x0b"),
        std::string("\x00\x01", 2), std::string(12, '\xff'), std::string("\x08\x01")})
    CHECK(error(bytes).starts_with(broken));
  for (std::size_t size = 1; size < 2000; ++size) {
    CAPTURE(size);
    CHECK(error(model.substr(0, size)).starts_with("t.model: "));
  }
  // Fields at the end stand in for those before: ModelProto has trainer_spec as 2 and normalizer_spec as 3.
  CHECK(starts(error(model + "\x12\x02\x18\x01"),
               "t.model: trainer_spec.model_type: expected 2, BPE, found 1 (io/"));
  CHECK(
      starts(error(model + "\x12\x03\xc0\x01\x01"),
             "t.model: trainer_spec.treat_whitespace_as_suffix: expected false, found true (io/"));
  CHECK(starts(error(model + "\x1a\x03\x12\x01x"),
               "t.model: normalizer_spec.precompiled_charsmap: expected none, found one (io/"));
  CHECK(
      starts(error(model + "\x1a\x02\x20\x01"),
             "t.model: normalizer_spec.remove_extra_whitespaces: expected false, found true (io/"));
  CHECK(starts(error(model + std::string("\x1a\x02\x28\x00", 4)),
               "t.model: normalizer_spec.escape_whitespaces: expected true, found false (io/"));
  CHECK(error(model + "\n\x03\n\x01"
                      "e")
            .find(" are both \"e\"") != std::string::npos);
  CHECK(error(model + "\n\x05\n\x01\x01\x18\x09")
            .find("types: expected 1 to 6 for token 900, found 0") != std::string::npos);
}
