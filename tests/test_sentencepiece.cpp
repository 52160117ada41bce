#include <sentencepiece_trainer.h>
#include <samba/io/sentencepiece.hpp>
#include <samba/io/sentencepiece_model.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

using namespace samba;
using samba_test::message_of;

namespace {

using Ids = std::vector<std::int32_t>;
using Options = std::unordered_map<std::string, std::string>;

const std::string replacement = "\xef\xbf\xbd";  // U+FFFD

const std::vector<std::string> sentences = {
    "The river runs past the mill and down to the sea.",
    "A small boat lies on the sand below the old stone wall.",
    "In the morning the baker opens his door before the sun is up.",
    "She counted the stars until the clouds came over the hill.",
    "Two dogs ran along the shore and barked at the waves.",
    "The clock on the tower struck nine, and the market began.",
    "Rain fell all day; the children stayed at home and read.",
    "He wrote a letter to his brother, who lived across the water.",
    "When the wind turned, the ships in the harbour set sail.",
    "No one knew where the path through the forest would end.",
    "An apple, a loaf of bread and some cheese were all they had.",
    "The teacher drew a circle and asked what was inside it.",
    "Winter came early, and the lake froze from shore to shore.",
    "They sang the same song every evening, and never the same way.",
};

/// Writes a file into a folder of this program and returns its path.
std::string written(const std::string& name, const std::string& content) {
  static const samba_test::TempDir folder;
  const std::string path = folder.file(name);
  samba_test::write_file(path, content);
  return path;
}

class Sentences : public sentencepiece::SentenceIterator {
 public:
  bool done() const override { return next_ == sentences.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::size_t next_ = 0;
};

/// The content of a model file with 256 byte tokens, trained on the sentences.
std::string train(Options options) {
  options.insert({{"model_type", "bpe"},
                  {"vocab_size", "400"},
                  {"byte_fallback", "true"},
                  {"minloglevel", "2"},
                  {"num_threads", "1"}});
  Sentences iterator;
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &iterator, &model);
  if (!status.ok()) throw Error(status.ToString());
  return model;
}

/// The three ways in which models treat spaces: at the start of a text, and in a row.
const std::vector<std::string>& models() {
  static const std::vector<std::string> contents = {
      train({}),
      train({{"remove_extra_whitespaces", "false"}, {"normalization_rule_name", "identity"}}),
      train({{"add_dummy_prefix", "false"},
             {"remove_extra_whitespaces", "false"},
             {"normalization_rule_name", "identity"}})};
  return contents;
}

SentencePieceTokenizer tokenizer(std::size_t i) {
  return SentencePieceTokenizer(written("model" + std::to_string(i) + ".model", models()[i]));
}

std::string stream(const SentencePieceTokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string part = decoder(id);
    std::string_view rest = part;
    while (!rest.empty()) {
      const int length = detail::utf8_length(rest);
      REQUIRE(length > 0);
      rest.remove_prefix(static_cast<std::size_t>(length));
    }
    text += part;
  }
  return text + decoder.finish();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("text comes back from its ids, at once and streamed") {
  for (std::size_t i = 0; i < models().size(); ++i) {
    const SentencePieceTokenizer t = tokenizer(i);
    CHECK(t.vocab_size() == 400);
    for (const std::string text : {"The river runs past the old mill.", "one", "x = {1, 2};",
                                   "naïve — 日本語 🎵 done", ""}) {
      CAPTURE(i, text);
      const Ids ids = t.encode(text);
      CHECK(t.decode(ids) == text);
      CHECK(stream(t, ids) == text);
    }
    // Words of the sentences are single tokens, bytes are the last resort.
    CHECK(t.encode("the shore").size() < 9);
    CHECK(t.encode("🎵").size() >= 4);
  }
}

TEST_CASE("the model's own treatment of spaces is kept") {
  const std::string text = "  two  spaces ";
  CHECK(tokenizer(0).decode(tokenizer(0).encode(text)) == "two spaces");
  for (const std::size_t i : {1u, 2u}) {
    const SentencePieceTokenizer t = tokenizer(i);
    CHECK(t.decode(t.encode(text)) == text);
    CHECK(stream(t, t.encode(text)) == text);
  }
}

TEST_CASE("the beginning of text is a token on request") {
  const SentencePieceTokenizer t = tokenizer(1);
  CHECK(t.bos_id() == 1);
  CHECK(t.eos_id() == 2);
  Ids ids = t.encode("the sea");
  Ids with_bos = t.encode("the sea", true);
  REQUIRE(with_bos.size() == ids.size() + 1);
  CHECK(with_bos[0] == t.bos_id());
  CHECK(Ids(with_bos.begin() + 1, with_bos.end()) == ids);
  with_bos.push_back(t.eos_id());
  CHECK(t.decode(with_bos) == "the sea");
  CHECK(stream(t, with_bos) == "the sea");

  const SentencePieceTokenizer without(written("no_bos.model", train({{"bos_id", "-1"}})));
  CHECK(without.bos_id() == -1);
  CHECK(message_of([&] { without.encode("the sea", true); }) ==
        "SentencePieceTokenizer: the model has no beginning-of-text token");
}

TEST_CASE("any ids stream to what they decode to") {
  std::uint32_t state = 2024;
  const auto random = [&](int n) {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::int32_t>((state >> 8) % static_cast<std::uint32_t>(n));
  };
  for (std::size_t i = 0; i < models().size(); ++i) {
    const SentencePieceTokenizer t = tokenizer(i);
    // The pieces that are a space and nothing else, and a space and a word.
    const std::int32_t letter = t.encode("xx").back();
    Ids spaces;
    for (std::int32_t id = 259; id < t.vocab_size(); ++id) {
      const std::string text = t.decode(Ids{letter, id});
      if (text == "x " || text == "x  " || text == "x the") spaces.push_back(id);
    }
    REQUIRE(spaces.size() >= 2);
    for (int round = 0; round < 2000; ++round) {
      Ids ids;
      // From all of the vocabulary, from its first part (unknown, control, bytes), from what is
      // around the space, so that texts begin with every mixture of them.
      const int n = random(12);
      for (int j = 0; j < n; ++j) {
        const int kind = random(4);
        if (kind == 0) ids.push_back(random(t.vocab_size()));
        if (kind == 1) ids.push_back(random(259));
        if (kind == 2) ids.push_back(random(3));
        if (kind == 3)
          ids.push_back(spaces[static_cast<std::size_t>(random(static_cast<int>(spaces.size())))]);
      }
      CAPTURE(i, round, ids);
      REQUIRE(stream(t, ids) == t.decode(ids));
    }
  }
}

TEST_CASE("a character of several byte tokens appears with the last") {
  const SentencePieceTokenizer t = tokenizer(1);
  Ids ids = t.encode("a🎵");
  StreamDecoder decoder(t);
  REQUIRE(ids.size() >= 5);
  for (std::size_t i = 0; i + 5 < ids.size() + 1; ++i) CHECK_NOTHROW(decoder(ids[i]));
  for (std::size_t i = ids.size() - 4; i + 1 < ids.size(); ++i) CHECK(decoder(ids[i]) == "");
  CHECK(decoder(ids.back()) == "🎵");

  // The end of the text settles an unfinished one.
  CHECK(decoder(ids[ids.size() - 4]) == "");
  CHECK(decoder(t.eos_id()) == replacement);
}

TEST_CASE("a continuation keeps its space when the prompt went through the decoder") {
  const SentencePieceTokenizer t = tokenizer(1);
  const Ids prompt = t.encode("the sea"), more = t.encode("the shore");
  StreamDecoder decoder(t);
  std::string text;
  for (const std::int32_t id : prompt) text += decoder(id);
  for (const std::int32_t id : more) text += decoder(id);
  CHECK(text == "the sea the shore");
}

TEST_CASE("a stream keeps a fixed number of ids") {
  for (std::size_t i = 0; i < models().size(); ++i) {
    CAPTURE(i);
    const SentencePieceTokenizer t = tokenizer(i);
    std::int32_t space = t.vocab_size() - 1;
    while (space > 0 && t.decode(Ids{t.encode("xx").back(), space}) != "x ") --space;
    REQUIRE(space > 0);
    SentencePieceTokenizer::Context context;
    for (int j = 0; j < 100; ++j) t.piece(space, context);
    CHECK(context.start.size() <= 2);
  }
}

TEST_CASE("ids outside the vocabulary are named") {
  const SentencePieceTokenizer t = tokenizer(0);
  CHECK(message_of([&] { t.decode(Ids{5, 400}); }) ==
        "SentencePieceTokenizer: id 400 at index 1 is outside [0, 400)");
  CHECK(message_of([&] { t.decode(Ids{-1}); }) ==
        "SentencePieceTokenizer: id -1 at index 0 is outside [0, 400)");
  StreamDecoder decoder(t);
  CHECK(message_of([&] { decoder(400); }) == "SentencePieceTokenizer: id 400 is outside [0, 400)");
}

TEST_CASE("BpeTokenizer reads the same files and gives the same ids") {
  samba_test::Random random;
  CAPTURE(random.seed);
  for (const std::size_t i : {1u, 2u}) {
    const SentencePieceTokenizer library = tokenizer(i);
    const BpeTokenizer own = parse_sentencepiece_model(models()[i], "t.model");
    CHECK(own.vocab_size() == library.vocab_size());
    CHECK(own.bos_id() == library.bos_id());
    CHECK(own.eos_id() == library.eos_id());
    for (int round = 0; round < 2000; ++round) {
      std::string text;
      for (int n = random.below(5); n > 0; --n) {
        const std::string& from = sentences[static_cast<std::size_t>(random.below(14))];
        text += from.substr(static_cast<std::size_t>(random.below(30)),
                            static_cast<std::size_t>(random.below(20)));
        text.append(static_cast<std::size_t>(random.below(4)), ' ');
        if (random.below(4) == 0) text += "東\u2581é🎵\n";
      }
      CAPTURE(i, round, text);
      const Ids ids = library.encode(text);
      REQUIRE(own.encode(text, {.parse_special = false}) == ids);
      REQUIRE(own.decode(ids) == library.decode(ids));
    }
  }
  CHECK(message_of([&] { parse_sentencepiece_model(models()[0], "t.model"); }) ==
        "t.model: normalizer_spec.precompiled_charsmap: expected none, found one "
        "(io/sentencepiece.hpp "
        "reads such models)");
}

TEST_CASE("files that are no model are refused by name") {
  const auto found = [](const std::string& path) {
    return message_of([&] { SentencePieceTokenizer t(path); });
  };
  const std::string absent = written("x", "") + ".absent";
  CHECK(contains(found(absent), absent + ": expected a SentencePiece model; the library says: "));
  CHECK(contains(found(written("empty.model", "")), "empty.model: expected"));
  CHECK(contains(found(written("text.model", "not a model, only text")), "text.model: expected"));
  const std::string& model = models()[0];
  for (std::size_t size = 1; size <= 100; ++size) {
    CAPTURE(size);
    CHECK(contains(found(written("cut.model", model.substr(0, size))), "cut.model: expected"));
  }
  CHECK(contains(found(written("half.model", model.substr(0, model.size() / 2))),
                 "half.model: expected"));
}
