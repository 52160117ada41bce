#pragma once
/// \file
/// Passkey retrieval (Mohtashami & Jaggi 2023, "Landmark Attention"; arXiv 2406.07522): a number is
/// hidden somewhere in a long, meaningless text, which asks for it at the end.
#include <samba/core/random.hpp>
#include <samba/io/tokenizer.hpp>
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// A text without its answer, and the answer.
struct PasskeyText {
  std::string prompt, answer;
};

/// The text for a key of five digits, which depends on the seed, with this many filler sentences. A
/// fraction `depth` of them, in [0, 1], comes before the key.
[[gnu::cold]] inline PasskeyText passkey_text(std::int64_t sentences, double depth,
                                              std::uint64_t seed) {
  check_at_least("passkey_text: sentences", sentences, 0);
  check_option("passkey_text: depth", depth, 0, 1);
  constexpr std::string_view filler[] = {"The hills are green. ", "The sea is wide and blue. ",
                                         "The road is long. ", "We walk on. ",
                                         "Night falls, and day comes again. "};
  const std::string key = std::to_string(10000 + SplitMix64(seed)() % 90000);
  const std::int64_t before = std::lround(depth * static_cast<double>(sentences));
  PasskeyText text{
      "A pass key is hidden in a text without meaning. Find it and keep it in mind, for at the end "
      "you will be asked for it.\n",
      " " + key};
  for (std::int64_t i = 0; i <= sentences; ++i) {
    if (i == before)
      text.prompt += "The pass key is " + key + ". Keep it: " + key + " is the pass key. ";
    if (i < sentences) text.prompt += filler[static_cast<std::size_t>(i) % std::size(filler)];
  }
  text.prompt += "\nWhat is the pass key? The pass key is";
  return text;
}

/// A passkey text as ids.
struct PasskeyTokens {
  std::vector<std::int32_t> tokens;  ///< all of it
  std::size_t prompt = 0;            ///< number of tokens before the answer

  /// The targets of all tokens but the last, for a Gradient: only the answer counts.
  std::vector<std::int32_t> targets() const {
    std::vector<std::int32_t> next(tokens.begin() + 1, tokens.end());
    std::fill_n(next.begin(), prompt - 1, -1);
    return next;
  }
};

/// The longest passkey text of at most `length` tokens, including the answer. Throws Error if the
/// length is too short for the question alone, or if the tokenizer merges the end of the question
/// with the answer.
///
/// Tokenizer: see encode_text.
template <class Tokenizer>
PasskeyTokens passkey_tokens(const Tokenizer& tokenizer, std::int64_t length, double depth,
                             std::uint64_t seed) {
  const auto encode = [&](std::int64_t sentences) {
    const PasskeyText text = passkey_text(sentences, depth, seed);
    return encode_text(tokenizer, text.prompt + text.answer);
  };
  const auto fits = [&](std::int64_t sentences) { return std::ssize(encode(sentences)) <= length; };
  if (!fits(0))
    fail({"passkey_tokens: length: expected at least ", encode(0).size(), ", found ", length});
  std::int64_t low = 0, high = 1;  // low fits, high does not
  while (fits(high)) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) (fits((low + high) / 2) ? low : high) = (low + high) / 2;

  const auto prompt = encode_text(tokenizer, passkey_text(low, depth, seed).prompt);
  PasskeyTokens result{encode(low), prompt.size()};
  if (prompt.empty() || prompt.size() >= result.tokens.size() ||
      !std::equal(prompt.begin(), prompt.end(), result.tokens.begin()))
    fail(
        {"passkey_tokens: expected a tokenizer that does not change the question's tokens when the "
         "answer follows"});
  return result;
}

struct PasskeyOptions {
  std::vector<std::int64_t> lengths = {512, 1024, 2048, 4096};  ///< most tokens in a text
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};         ///< where the key is
  int trials = 10;         ///< texts for each length and depth, each with a different key
  std::uint64_t seed = 0;  ///< for the keys
};

/// How often the answer was correct, for each length and depth.
struct PasskeyResult {
  std::vector<std::int64_t> lengths;
  std::vector<double> depths;
  std::vector<double> rates;  ///< (lengths, depths), each in [0, 1]

  double rate(std::size_t length, std::size_t depth) const {
    return rates[length * depths.size() + depth];
  }
  /// Over all lengths and depths.
  double mean() const {
    double sum = 0;
    for (const double r : rates) sum += r;
    return sum / static_cast<double>(rates.size());
  }
};

/// True if a session answers a passkey text correctly when it always picks the most likely token.
template <class S>
bool answers_passkey(S& session, const PasskeyTokens& text) {
  session.reset();
  const auto tokens = std::span(text.tokens);
  auto logits = session.prefill(tokens.first(text.prompt));
  for (std::size_t i = text.prompt;; ++i) {
    if (std::max_element(logits.begin(), logits.end()) - logits.begin() != tokens[i]) return false;
    if (i + 1 == tokens.size()) return true;
    logits = session.step(tokens[i]);
  }
}

/// The rates of correct answers by length and depth. Calls progress(done, total), in texts, after
/// each text. Throws Error before any text is read if an option is out of range.
///
/// S has reset(), and prefill(tokens) and step(token), which return logits, like a Session.
template <class S, class Tokenizer>
PasskeyResult passkey_retrieval(S& session, const Tokenizer& tokenizer,
                                const PasskeyOptions& options, const auto& progress) {
  check_at_least("PasskeyOptions::trials", options.trials, 1);
  if (options.lengths.empty() || options.depths.empty())
    fail({"PasskeyOptions: expected at least one length and depth, found ", options.lengths.size(),
          " and ", options.depths.size()});
  const auto shortest = *std::min_element(options.lengths.begin(), options.lengths.end());
  for (const double depth : options.depths)
    passkey_tokens(tokenizer, shortest, depth, options.seed);

  PasskeyResult result{options.lengths, options.depths, {}};
  SplitMix64 seeds(options.seed);
  std::int64_t done = 0;
  for (const std::int64_t length : options.lengths)
    for (const double depth : options.depths) {
      int right = 0;
      for (int i = 0; i < options.trials; ++i) {
        right += answers_passkey(session, passkey_tokens(tokenizer, length, depth, seeds()));
        progress(++done, std::ssize(options.lengths) * std::ssize(options.depths) * options.trials);
      }
      result.rates.push_back(static_cast<double>(right) / options.trials);
    }
  return result;
}
template <class S, class Tokenizer>
PasskeyResult passkey_retrieval(S& session, const Tokenizer& tokenizer,
                                const PasskeyOptions& options = PasskeyOptions{}) {
  return passkey_retrieval(session, tokenizer, options, [](std::int64_t, std::int64_t) {});
}

}  // namespace samba::inline SAMBA_TARGET
