// The loss at multiples of the training length, against scores of prefixes.
#include <samba/train/validate.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

TokenFile stored(const TempDir& dir, const std::vector<std::int32_t>& ids, int vocab_size) {
  const std::string path = dir.file("x.tokens");
  TokenFileWriter writer(path, vocab_size);
  writer.append(ids);
  writer.close();
  return TokenFile(path);
}

}  // namespace

TEMPLATE_TEST_CASE("validation: the mean loss of prefixes of windows spread over the file", "",
                   tiny::Samba, tiny::AttentionOnly) {
  using Model = TestType;
  Random rng;
  CAPTURE(rng.seed);
  const TempDir dir;
  const auto ids = random_tokens<Model>(rng, 3 * 101 + 2);  // a little more than three shares
  const TokenFile file = stored(dir, ids, Model::vocab_size);
  const auto weights = random_weights<Model>(rng.bits());
  const ValidationOptions options{
      .seq_len = 20, .multiples = {1, 2, 5}, .windows = 3, .threads = 1};
  const auto found = validate(weights, file, options);
  REQUIRE(found.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto length = static_cast<std::size_t>(20 * options.multiples[i]);
    CHECK(found[i].length == static_cast<std::int64_t>(length));
    double sum = 0;
    for (std::size_t w = 0; w < 3; ++w) {
      Session session(weights);
      sum += score(session, std::span(ids).subspan(w * 101, length + 1)).nats_per_token();
    }
    CHECK(found[i].loss == Approx(sum / 3).epsilon(1e-6));  // -ffast-math leaves that of equality
  }
  // Random tokens: a model that reads ahead, or a loss that is left out, would do better.
  CHECK(found[0].loss > 0.9 * std::log(Model::vocab_size));

  const auto threads =
      validate(weights, file, {.seq_len = 20, .multiples = {1, 2, 5}, .windows = 3, .threads = 3});
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(same_result(std::vector{threads[i].loss}, std::vector{found[i].loss}));
}

TEST_CASE("validation: what cannot be done is named before anything is computed") {
  using Model = tiny::Samba;  // 61 ids
  const TempDir dir;
  const Weights<Model> weights;
  const TokenFile file = stored(dir, std::vector<std::int32_t>(321), 61);
  const auto run = [&](const ValidationOptions& options) { validate(weights, file, options); };
  CHECK_NOTHROW(run({.seq_len = 5}));  // 8 windows of 8 * 5
  CHECK_MESSAGE_OF(run({.seq_len = 6}),
                   file.path() + ": validation: expected at least 8 * 8 * 6 + 1 tokens",
                   "found 321");
  CHECK_MESSAGE_OF(run({.seq_len = INT64_MAX}), "8 * 8 * 9223372036854775807", "found 321");
  CHECK_MESSAGE_OF(run({.seq_len = 1, .windows = 41}), "expected at least 41 * 8 * 1 + 1 tokens");
  CHECK_MESSAGE_OF(run({.seq_len = 0}), "ValidationOptions::seq_len: expected at least 1, found 0");
  CHECK_MESSAGE_OF(run({.seq_len = 1, .windows = 0}), "ValidationOptions::windows", "found 0");
  CHECK_MESSAGE_OF(run({.seq_len = 1, .multiples = {}}), "ValidationOptions::multiples: expected");
  CHECK_MESSAGE_OF(run({.seq_len = 1, .multiples = {0}}), "found 0 after 0");
  CHECK_MESSAGE_OF(run({.seq_len = 1, .multiples = {1, 4, 4}}), "found 4 after 4");
  const TokenFile other = stored(dir, std::vector<std::int32_t>(321), 62);
  CHECK_MESSAGE_OF(validate(weights, other, {.seq_len = 5}),
                   other.path() + ": vocab_size: expected at most the model's, 61, found 62");
}
