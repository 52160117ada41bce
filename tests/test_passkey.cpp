// Texts with a passkey, and how answers to them are counted.
#include <samba/train/assign.hpp>
#include <samba/train/passkey.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

const ByteTokenizer bytes;

/// Stands in for a session of bytes: knows the key if it is among the last `window` tokens.
struct Reader {
  std::size_t window;
  int reads = 0;
  std::string text = {};
  std::vector<float> logits = {};

  void reset() {
    text.clear();
    ++reads;
  }
  std::span<const float> prefill(std::span<const std::int32_t> tokens) {
    text += bytes.decode(tokens);
    return answer();
  }
  std::span<const float> step(std::int32_t token) { return prefill({&token, 1}); }

  std::span<const float> answer() {
    const std::string ask = "\nWhat is the pass key? The pass key is";
    const std::size_t end = text.find(ask), given = text.size() - end - ask.size();
    const std::string seen = text.substr(0, end).substr(end > window ? end - window : 0);
    const std::size_t key = seen.find("Keep it: ");
    logits.assign(256, 0);
    const std::string known = key == seen.npos ? " 00000" : " " + seen.substr(key + 9, 5);
    logits[static_cast<unsigned char>(known.at(given))] = 1;
    return logits;
  }
};

}  // namespace

TEST_CASE("passkey: the text") {
  const PasskeyText text = passkey_text(10, 0.5, 3);
  REQUIRE(text.answer.size() == 6);
  const std::string key = text.answer.substr(1),
                    needle = "The pass key is " + key + ". Keep it: " + key;
  CHECK(std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; }));
  CHECK(text.prompt.ends_with("What is the pass key? The pass key is"));
  const auto count = [](std::string_view in, std::string_view what) {
    int n = 0;
    for (std::size_t at = in.find(what); at != in.npos; at = in.find(what, at + 1)) ++n;
    return n;
  };
  CHECK(count(text.prompt, key) == 2);
  // Five sentences, each once on either side.
  const std::size_t at = text.prompt.find(needle);
  REQUIRE(at != text.prompt.npos);
  for (const char* const sentence : {"hills", "sea", "road", "walk", "Night"}) {
    CAPTURE(sentence);
    CHECK(count(text.prompt.substr(0, at), sentence) == 1);
    CHECK(count(text.prompt.substr(at), sentence) == 1);
  }
  CHECK(passkey_text(10, 0, 3).prompt.find(needle) < passkey_text(10, 0, 3).prompt.find("hills"));
  CHECK(passkey_text(10, 1, 3).prompt.find(needle) > passkey_text(10, 1, 3).prompt.rfind("Night"));

  CHECK(passkey_text(10, 0.5, 3).prompt == text.prompt);
  CHECK(passkey_text(10, 0.5, 4).answer != text.answer);
  CHECK_MESSAGE_OF(passkey_text(-1, 0, 0), "sentences: expected at least 0, found -1");
  CHECK_MESSAGE_OF(passkey_text(1, 1.5, 0), "depth: expected a number in [0, 1], found 1.5");
}

TEST_CASE("passkey: the longest text that fits") {
  for (const std::int64_t length : {400, 777, 5000}) {
    CAPTURE(length);
    const PasskeyTokens text = passkey_tokens(bytes, length, 0.3, 7);
    const auto size = std::ssize(text.tokens);
    CHECK(size <= length);
    CHECK(size + 35 > length);  // no sentence is longer
    CHECK(text.prompt + 6 == text.tokens.size());
    CHECK(bytes.decode(std::span(text.tokens).subspan(text.prompt)) ==
          passkey_text(0, 0, 7).answer);

    const auto targets = text.targets();
    REQUIRE(targets.size() + 1 == text.tokens.size());
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] != (i + 1 < text.prompt ? -1 : text.tokens[i + 1])) FAIL("target " << i);
  }
  // A tokenizer may be a function: here words, of which the text has fewer.
  const auto words = [](std::string_view text) {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (text[i] == ' ' || ids.empty()) ids.push_back(static_cast<std::int32_t>(i % 251));
    return ids;
  };
  const PasskeyTokens text = passkey_tokens(words, 400, 0.5, 7);
  CHECK(std::ssize(text.tokens) <= 400);
  CHECK(std::ssize(text.tokens) > 390);
  CHECK(text.prompt + 1 == text.tokens.size());

  CHECK_MESSAGE_OF(passkey_tokens(bytes, 100, 0, 7), "passkey_tokens: length: expected at least 2",
                   "found 100");
  // One whose ids depend on all of a text: the question's change when more text stands before it.
  const auto joins = [](std::string_view t) {
    return std::vector<std::int32_t>(3 + t.size() / 300, static_cast<std::int32_t>(t.size()));
  };
  CHECK_MESSAGE_OF(passkey_tokens(joins, 5, 0, 7),
                   "expected a tokenizer that does not change the question's tokens");
}

TEST_CASE("passkey: rates by length and depth") {
  const PasskeyOptions options{
      .lengths = {400, 2000}, .depths = {0, 0.5, 1}, .trials = 3, .seed = 5};
  Reader all{1 << 20}, near{600}, blind{0};
  const auto rates = [&](Reader& reader) {
    const PasskeyResult result = passkey_retrieval(reader, bytes, options);
    CHECK(result.lengths == options.lengths);
    CHECK(result.depths == options.depths);
    CHECK(reader.reads == 18);
    return result;
  };
  CHECK(rates(all).rates == std::vector<double>{1, 1, 1, 1, 1, 1});
  CHECK(rates(blind).rates == std::vector<double>{0, 0, 0, 0, 0, 0});
  const PasskeyResult found = rates(near);
  CHECK(found.rates == std::vector<double>{1, 1, 1, 0, 0, 1});
  CHECK(found.rate(0, 2) == 1);
  CHECK(found.rate(1, 0) == 0);
  CHECK(std::abs(found.mean() - 4. / 6) < 1e-12);

  std::int64_t last = 0;
  passkey_retrieval(all, bytes, options, [&](std::int64_t done, std::int64_t total) {
    CHECK(done == ++last);
    CHECK(total == 18);
  });
  CHECK(last == 18);

  const auto run = [&](PasskeyOptions o) { passkey_retrieval(all, bytes, o); };
  CHECK_MESSAGE_OF(run({.lengths = {}}), "expected at least one length and depth, found 0 and 5");
  CHECK_MESSAGE_OF(run({.lengths = {400, 90}}), "length: expected at least", "found 90");
  CHECK_MESSAGE_OF(run({.depths = {0, 2}}), "depth: expected a number in [0, 1], found 2");
  CHECK_MESSAGE_OF(run({.trials = 0}), "PasskeyOptions::trials: expected at least 1, found 0");
}

TEST_CASE("passkey: the answers of a session") {
  // Random weights answer nothing.
  using Model = golden::SambaTiny;
  const auto weights = random_weights<Model>(1);
  Session session(weights);
  const PasskeyTokens text = passkey_tokens(bytes, 400, 0.5, 7);
  CHECK_FALSE(answers_passkey(session, text));

  // What the model itself goes on with is the right answer.
  PasskeyTokens own{{text.tokens.begin(), text.tokens.begin() + 50}, 50};
  session.reset();
  auto logits = session.prefill(own.tokens);
  for (int i = 0; i < 4; ++i) {
    own.tokens.push_back(
        static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = session.step(own.tokens.back());
  }
  CHECK(answers_passkey(session, own));
  own.tokens.back() = (own.tokens.back() + 1) % 256;
  CHECK_FALSE(answers_passkey(session, own));
}
