#pragma once
/// \file
/// How well a model predicts a text.
#include <samba/core/error.hpp>
#include <samba/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// log softmax(logits)[token], in double. Logits of -inf count as probability 0. Throws Error if
/// the token is out of range, if its own logit is -inf, or if any logit is NaN or +inf.
inline double log_softmax_at(std::span<const float> logits, std::int32_t token) {
  if (token < 0 || static_cast<std::size_t>(token) >= logits.size())
    fail({"log_softmax_at: token ", token, " is outside [0, ", logits.size(), ")"});
  const float logit = logits[static_cast<std::size_t>(token)];
  const auto excluded = [](float x) { return std::bit_cast<std::uint32_t>(x) == 0xff800000u; };
  if (excluded(logit)) fail({"log_softmax_at: the logit of token ", token, " is -inf"});
  float max = logit;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (excluded(logits[i])) continue;
    if (!is_finite(logits[i])) fail({"log_softmax_at: the logit at index ", i, " is NaN or +inf"});
    max = (std::max)(max, logits[i]);
  }
  double sum = 0;
  for (const float x : logits)
    if (!excluded(x)) sum += std::exp(static_cast<double>(x) - max);
  return static_cast<double>(logit) - max - std::log(sum);
}

/// The summed negative log-likelihood of predicted tokens, and its usual forms. Scores of the parts
/// of a text can be added. A mean over no tokens is an Error.
struct Score {
  double nll = 0;           ///< nats
  std::int64_t tokens = 0;  ///< predictions

  Score& operator+=(const Score& part) {
    nll += part.nll;
    tokens += part.tokens;
    return *this;
  }
  double nats_per_token() const {
    if (tokens < 1) fail({"Score: no token was predicted"});
    return nll / static_cast<double>(tokens);
  }
  double perplexity() const { return std::exp(nats_per_token()); }
  double bits_per_token() const { return nats_per_token() / std::numbers::ln2; }
  /// bytes: the length of the text of the predicted tokens.
  double bits_per_byte(std::int64_t bytes) const {
    if (bytes < 1) fail({"Score: bits per byte of ", bytes, " bytes"});
    return nll / std::numbers::ln2 / static_cast<double>(bytes);
  }
};

/// Tokens that `score` passes to the session at a time.
inline constexpr int score_chunk = 256;

namespace detail {

struct NoProgress {
  void operator()(std::int64_t, std::int64_t) const {}
};

}  // namespace detail

/// Scores tokens[1:], each given those before it and whatever the session has already read (reset
/// it to start a new text). The session reads all tokens but the last; to score the next part of a
/// text with another call, begin that part with the last token of this one. Calls progress(done,
/// total), in predictions, after each chunk. Throws Error before the session reads anything if
/// there are fewer than two tokens or if an id is outside the vocabulary.
///
/// S has `static constexpr int vocab_size` and `forward(tokens, logits)`, which continues the
/// sequence and fills logits, [tokens.size(), vocab_size].
template <class S, class Progress = detail::NoProgress>
Score score(S& session, std::span<const std::int32_t> tokens,
            const Progress& progress = Progress{}) {
  if (tokens.size() < 2) fail({"score: expected at least 2 tokens, found ", tokens.size()});
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= S::vocab_size)
      fail({"score: token ", tokens[i], " at index ", i, " is outside [0, ", S::vocab_size, ")"});

  constexpr std::size_t vocab_size = S::vocab_size;
  const std::size_t total = tokens.size() - 1;
  std::vector<float> logits(std::min<std::size_t>(score_chunk, total) * vocab_size);
  Score result;
  for (std::size_t begin = 0; begin < total;) {
    const std::size_t n = std::min<std::size_t>(score_chunk, total - begin);
    session.forward(tokens.subspan(begin, n), std::span<float>(logits.data(), n * vocab_size));
    for (std::size_t i = 0; i < n; ++i)
      result.nll -=
          log_softmax_at(std::span<const float>(logits.data() + i * vocab_size, vocab_size),
                         tokens[begin + i + 1]);
    begin += n;
    result.tokens = static_cast<std::int64_t>(begin);
    progress(result.tokens, static_cast<std::int64_t>(total));
  }
  return result;
}

}  // namespace samba::inline SAMBA_TARGET
