#include <samba/runtime/score.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

using namespace samba;
using samba_test::message_of;

namespace {

/// A bigram model: logits are a table row of the last token, plus a term of the position, which is
/// lost if a chunk is skipped or read twice.
struct FakeSession {
  static constexpr int vocab_size = 7;
  std::vector<std::int32_t> read;
  std::vector<std::size_t> chunks;
  const float* buffer = nullptr;
  bool moved = false;  // the logits came in different buffers

  static float logit(std::int32_t last, std::size_t position, int token) {
    return static_cast<float>((last * 5 + token * 3) % 11) * 0.5f +
           static_cast<float>(position % 13) * 0.125f * static_cast<float>(token);
  }

  void forward(std::span<const std::int32_t> tokens, std::span<float> logits) {
    REQUIRE(logits.size() == tokens.size() * vocab_size);
    moved = moved || (buffer != nullptr && buffer != logits.data());
    buffer = logits.data();
    for (std::size_t i = 0; i < tokens.size(); ++i)
      for (int v = 0; v < vocab_size; ++v)
        logits[i * vocab_size + static_cast<std::size_t>(v)] = logit(tokens[i], read.size() + i, v);
    read.insert(read.end(), tokens.begin(), tokens.end());
    chunks.push_back(tokens.size());
  }
};

std::vector<std::int32_t> some_tokens(std::size_t n) {
  std::vector<std::int32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<std::int32_t>((i * i + 3 * i) % 7);
  return tokens;
}

double expected_nll(const std::vector<std::int32_t>& tokens) {
  double nll = 0;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    double sum = 0;
    for (int v = 0; v < FakeSession::vocab_size; ++v)
      sum += std::exp(static_cast<double>(FakeSession::logit(tokens[i], i, v)));
    nll += std::log(sum) - static_cast<double>(FakeSession::logit(tokens[i], i, tokens[i + 1]));
  }
  return nll;
}

constexpr float infinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("log softmax of hand-made logits") {
  const std::vector<float> logits = {0, std::log(2.0f), std::log(5.0f)};
  CHECK(log_softmax_at(logits, 0) == Approx(std::log(1.0 / 8)).epsilon(1e-6));
  CHECK(log_softmax_at(logits, 1) == Approx(std::log(2.0 / 8)).epsilon(1e-6));
  CHECK(log_softmax_at(logits, 2) == Approx(std::log(5.0 / 8)).epsilon(1e-6));
  CHECK(log_softmax_at(std::vector<float>{3}, 0) == 0);
}

TEST_CASE("log softmax of large, far and many logits") {
  CHECK(log_softmax_at(std::vector<float>{1000, 1000}, 1) ==
        Approx(-std::numbers::ln2).epsilon(1e-12));
  CHECK(log_softmax_at(std::vector<float>{-3e38f, 3e38f}, 0) == Approx(-6e38).epsilon(1e-6));
  CHECK(log_softmax_at(std::vector<float>(1 << 20, 0.25f), 5) ==
        Approx(-20 * std::numbers::ln2).epsilon(1e-12));
  CHECK(log_softmax_at(std::vector<float>{1, -infinity, 1}, 2) ==
        Approx(-std::numbers::ln2).epsilon(1e-12));
}

TEST_CASE("log softmax names what it cannot take") {
  const std::vector<float> two = {1, 2};
  CHECK(message_of([&] { log_softmax_at(two, 2); }) == "log_softmax_at: token 2 is outside [0, 2)");
  CHECK(message_of([&] { log_softmax_at(two, -1); }) ==
        "log_softmax_at: token -1 is outside [0, 2)");
  CHECK(message_of([&] { log_softmax_at({}, 0); }) == "log_softmax_at: token 0 is outside [0, 0)");
  CHECK(message_of([&] { log_softmax_at(std::vector<float>{1, std::nanf("")}, 0); }) ==
        "log_softmax_at: the logit at index 1 is NaN or +inf");
  CHECK(message_of([&] { log_softmax_at(std::vector<float>{infinity, 1}, 0); }) ==
        "log_softmax_at: the logit at index 0 is NaN or +inf");
  CHECK(message_of([&] { log_softmax_at(std::vector<float>{1, -infinity}, 1); }) ==
        "log_softmax_at: the logit of token 1 is -inf");
}

TEST_CASE("a score in its usual forms") {
  const Score score{.nll = 6 * std::numbers::ln2, .tokens = 3};
  CHECK(score.nats_per_token() == Approx(2 * std::numbers::ln2));
  CHECK(score.bits_per_token() == Approx(2));
  CHECK(score.perplexity() == Approx(4));
  CHECK(score.bits_per_byte(12) == Approx(0.5));
  CHECK(message_of([&] { static_cast<void>(score.bits_per_byte(0)); }) ==
        "Score: bits per byte of 0 bytes");
  CHECK(message_of([] { static_cast<void>(Score{}.nats_per_token()); }) ==
        "Score: no token was predicted");
}

TEST_CASE("scoring sums over all predictions whatever the chunks") {
  for (const std::size_t n : {2u, 3u, 256u, 257u, 258u, 513u, 1000u}) {
    CAPTURE(n);
    const std::vector<std::int32_t> tokens = some_tokens(n);
    FakeSession session;
    std::vector<std::pair<std::int64_t, std::int64_t>> steps;
    const Score result = score(session, tokens, [&](std::int64_t done, std::int64_t total) {
      steps.emplace_back(done, total);
    });

    CHECK(result.tokens == static_cast<std::int64_t>(n) - 1);
    CHECK(result.nll == Approx(expected_nll(tokens)).epsilon(1e-9));
    CHECK(session.read == std::vector<std::int32_t>(tokens.begin(), tokens.end() - 1));
    CHECK_FALSE(session.moved);
    REQUIRE(steps.size() == session.chunks.size());
    std::int64_t done = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      CHECK(session.chunks[i] <= 256);
      done += static_cast<std::int64_t>(session.chunks[i]);
      CHECK(steps[i] == std::pair(done, static_cast<std::int64_t>(n) - 1));
    }
  }
}

TEST_CASE("parts that overlap by one token add up to the whole") {
  const std::vector<std::int32_t> tokens = some_tokens(400);
  FakeSession session;
  const Score first = score(session, std::span(tokens).first(150));
  const Score second = score(session, std::span(tokens).subspan(149));
  CHECK(first.tokens + second.tokens == 399);
  CHECK(first.nll + second.nll == Approx(expected_nll(tokens)).epsilon(1e-9));
}

TEST_CASE("bad tokens are refused before the session reads any") {
  FakeSession session;
  std::vector<std::int32_t> tokens = some_tokens(600);
  tokens[599] = 7;
  CHECK(message_of([&] { score(session, tokens); }) ==
        "score: token 7 at index 599 is outside [0, 7)");
  tokens[300] = -2;
  CHECK(message_of([&] { score(session, tokens); }) ==
        "score: token -2 at index 300 is outside [0, 7)");
  CHECK(message_of([&] { score(session, std::span(tokens).first(1)); }) ==
        "score: expected at least 2 tokens, found 1");
  CHECK(message_of([&] { score(session, {}); }) == "score: expected at least 2 tokens, found 0");
  CHECK(session.read.empty());
}
