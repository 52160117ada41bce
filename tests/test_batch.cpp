// Several sequences: that they do not touch each other, and that they pass from and to sessions.
// That their logits are those of sessions is in test_same_bits.cpp.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {
using Model = tiny::Samba;
using Tokens = std::span<const std::int32_t>;
}  // namespace

TEST_CASE("an empty prompt leaves its sequence alone") {
  const auto weights = random_weights<Model>(1);
  Random rng;
  CAPTURE(rng.seed);
  const auto a = random_tokens<Model>(rng, 30), b = random_tokens<Model>(rng, 45);
  Batch batch(weights, 3, {.chunk = 16});
  CHECK(batch.size() == 3);
  for (const float logit : batch.logits(1)) CHECK(logit == 0);  // before its first token

  const auto logits = batch.prefill(std::array<Tokens, 3>{a, {}, b});
  CHECK(logits.size() == 3 * Model::vocab_size);
  CHECK(batch.position(0) == 30);
  CHECK(batch.position(1) == 0);
  CHECK(batch.position(2) == 45);
  for (const float logit : batch.logits(1)) CHECK(logit == 0);
  const auto first = batch.snapshot(0), last = batch.snapshot(2);
  const auto kept = copy(batch.logits(2));
  const auto of_a = copy(batch.logits(0));

  batch.prefill(std::array<Tokens, 3>{Tokens{}, a, {}});
  CHECK(same_state(batch.snapshot(0), first));
  CHECK(same_state(batch.snapshot(2), last));
  CHECK(same_bits(batch.logits(2), kept));
  CHECK(same_result(batch.logits(1), of_a));

  batch.prefill(std::array<Tokens, 3>{});  // no tokens at all
  CHECK(same_state(batch.snapshot(0), first));

  batch.prefill(1, b);
  CHECK(batch.position(1) == 75);
  CHECK(same_state(batch.snapshot(0), first));

  batch.reset(1);
  CHECK(batch.position(1) == 0);
  CHECK(same_state(batch.snapshot(2), last));
  CHECK(same_result(batch.prefill(1, b), kept));
}

TEST_CASE("a batch of one is a session") {
  const auto weights = random_weights<Model>(2);
  Batch batch(weights, 1);
  Session session(weights);
  for (const std::int32_t token : {3, 60, 0, 3})
    CHECK(same_result(batch.step(std::array{token}), session.step(token)));
}

TEST_CASE("snapshots pass between sequences, batches and sessions") {
  const auto weights = random_weights<Model>(3);
  Random rng;
  CAPTURE(rng.seed);
  const auto prompt = random_tokens<Model>(rng, 40), next = random_tokens<Model>(rng, 20);
  Session session(weights);
  session.prefill(prompt);
  const Snapshot snapshot = session.snapshot();
  const auto expected = copy(session.prefill(next));

  Batch batch(weights, 3, {.chunk = 8});
  batch.prefill(0, next);
  batch.restore(2, snapshot);
  CHECK(batch.position(2) == 40);
  CHECK(batch.position(0) == 20);
  CHECK(same_result(batch.prefill(2, next), expected));

  // Within a batch: one prompt, several continuations.
  batch.restore(2, snapshot);
  Snapshot into;
  batch.snapshot(2, into);
  CHECK(same_state(into, snapshot));
  batch.restore(0, into);
  batch.restore(1, into);
  batch.prefill(std::array<Tokens, 3>{next, prompt, next});
  CHECK(same_result(batch.logits(0), expected));
  CHECK(same_result(batch.logits(2), expected));
  CHECK_FALSE(same_bits(batch.logits(1), expected));

  // And back.
  Session other(weights, {.threads = 2});
  other.restore(batch.snapshot(0));
  CHECK(other.position() == 60);
  CHECK(same_result(other.step(1), session.step(1)));

  Batch copied = batch;  // a fork of all
  CHECK(same_result(copied.step(std::array{1, 2, 3}), batch.step(std::array{1, 2, 3})));
}

TEST_CASE("after reset and restore a sequence has no logits until its next token") {
  const auto weights = random_weights<Model>(5);
  Batch batch(weights, 3);
  const std::vector<float> zeros(Model::vocab_size);
  CHECK(same_bits(batch.logits(1), zeros));  // as before the first
  batch.step(std::array{1, 2, 3});
  const Snapshot after_one = batch.snapshot(0);
  batch.step(std::array{4, 5, 6});
  const auto first = copy(batch.logits(0)), last = copy(batch.logits(2));
  CHECK_FALSE(same_bits(last, zeros));
  CHECK_THROWS_AS(batch.restore(2, Snapshot{}), Error);  // changes nothing
  batch.reset(0);
  batch.restore(1, after_one);
  CHECK(same_bits(batch.logits(0), zeros));
  CHECK(same_bits(batch.logits(1), zeros));
  CHECK(same_bits(batch.logits(2), last));
  // Nor where others read.
  const std::array others{7, 8};
  batch.prefill(std::array<Tokens, 3>{Tokens{}, Tokens{}, others});
  CHECK(same_bits(batch.logits(0), zeros));
  CHECK(same_bits(batch.logits(1), zeros));
  // A token read again gives the logits that a snapshot before it does not hold.
  CHECK(same_result(batch.prefill(1, std::array{4}), first));
}

TEST_CASE("capacity holds for each sequence of a batch") {
  const auto weights = random_weights<tiny::AttentionOnly>(4);
  Random rng;
  CAPTURE(rng.seed);
  const auto tokens = random_tokens<tiny::AttentionOnly>(rng, 12);
  Batch batch(weights, 2, {.capacity = 12});
  Session session(weights, {.capacity = 12});
  batch.prefill(1, tokens);
  CHECK(same_result(batch.logits(1), session.prefill(tokens)));
  CHECK(batch.position(1) == 12);
  batch.prefill(std::array<Tokens, 2>{tokens, {}});
  CHECK(same_result(batch.logits(0), batch.logits(1)));
}

TEST_CASE("some sequences of a batch advance together") {
  const auto weights = random_weights<Model>(6);
  Random rng;
  CAPTURE(rng.seed);
  Batch batch(weights, 4, {.chunk = 3});
  std::vector<Session<Model>> sessions(4, Session<Model>(weights));
  for (int t = 0; t < 60; ++t) {
    std::vector<int> slots;
    for (const int slot : {2, 0, 3, 1})  // not in their order
      if (rng.below(2)) slots.push_back(slot);
    const auto tokens = random_tokens<Model>(rng, static_cast<int>(slots.size()));
    batch.step(slots, tokens);
    for (std::size_t k = 0; k < slots.size(); ++k)
      CHECK(same_result(batch.logits(slots[k]),
                        sessions[static_cast<std::size_t>(slots[k])].step(tokens[k])));
  }
  for (int i = 0; i < 4; ++i)
    CHECK(same_state(batch.snapshot(i), sessions[static_cast<std::size_t>(i)].snapshot()));
}

TEST_CASE("sequences join a batch and leave it") {
  const auto weights = random_weights<Model>(7);
  Batch batch(weights, 3);
  CHECK(batch.join() == 0);
  batch.prefill(1, std::array{5, 6});  // in use without join()
  CHECK(batch.join() == 2);
  CHECK(batch.join() == -1);
  batch.step(std::array{0, 2}, std::array{8, 9});
  batch.leave(1);
  CHECK(batch.position(1) == 0);
  batch.leave(0);
  CHECK(batch.join() == 0);
  CHECK(batch.join() == 1);
  CHECK(batch.join() == -1);
  CHECK(batch.position(2) == 1);
  CHECK(
      same_result(batch.prefill(1, std::array{5, 6}), Session(weights).prefill(std::array{5, 6})));
}
