// Bad calls: what each says, and that it changes nothing.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Tokens = std::span<const std::int32_t>;
using Full = tiny::AttentionOnly;  // vocab_size 40
using Model = tiny::Samba;         // vocab_size 61
using Ids = std::vector<std::int32_t>;

/// f(session) throws an Error with these parts in its message, and the session goes on as if it had
/// not been called.
template <class S, class F>
void check_rejected(S& session, std::initializer_list<std::string> parts, F f) {
  S untouched = session;
  const std::string message = message_of([&] { f(session); });
  CAPTURE(message);
  CHECK_FALSE(message.empty());
  CHECK(first_missing(message, parts) == "");
  CHECK(same_state(session.snapshot(), untouched.snapshot()));
  if (session.position() < session.options().capacity) {
    S after = session;
    CHECK(same_bits(after.step(1), untouched.step(1)));
  }
}

}  // namespace

TEST_CASE("tokens outside the vocabulary") {
  const auto weights = random_weights<Model>(1);
  Session session(weights);
  session.prefill(Ids{1, 2, 3, 4, 5});
  std::vector<float> logits(3 * 61);
  check_rejected(session, {"Session::step", "token -1 at index 0", "vocabulary [0, 61)"},
                 [](auto& s) { s.step(-1); });
  check_rejected(session, {"Session::step", "token 61 at index 0", "[0, 61)"},
                 [](auto& s) { s.step(61); });
  check_rejected(session, {"Session::prefill", "token 2147483647 at index 2", "[0, 61)"},
                 [](auto& s) { s.prefill(Ids{1, 2, 2147483647}); });
  check_rejected(session, {"Session::forward", "token -2147483648 at index 1", "[0, 61)"},
                 [&](auto& s) { s.forward(Ids{1, -2147483647 - 1, 3}, logits); });
  // Far behind the first chunk: nothing before it is read.
  Ids text(1000, 3);
  text[999] = 99;
  check_rejected(session, {"Session::prefill", "token 99 at index 999"},
                 [&](auto& s) { s.prefill(text); });
}

TEST_CASE("no tokens, and room of the wrong size") {
  const auto weights = random_weights<Model>(2);
  Session session(weights);
  session.step(7);
  check_rejected(session, {"Session::prefill", "at least one token", "none"},
                 [](auto& s) { s.prefill(Ids{}); });
  check_rejected(session, {"Session::forward", "at least one token", "none"},
                 [](auto& s) { s.forward(Ids{}, {}); });
  std::vector<float> logits(1000);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{61}, std::size_t{121}, std::size_t{123}, std::size_t{1000}})
    check_rejected(
        session, {"Session::forward", "logits", "122", "[2, 61]", "found " + std::to_string(size)},
        [&](auto& s) { s.forward(Ids{1, 2}, std::span(logits).first(size)); });
  CHECK(logits == std::vector<float>(1000));
}

TEST_CASE("more tokens than the capacity") {
  const auto weights = random_weights<Full>(3);
  Session session(weights, {.capacity = 10});
  session.prefill(Ids{1, 2, 3, 4});
  std::vector<float> logits(7 * 40);
  const Ids seven{1, 2, 3, 4, 5, 6, 7};
  check_rejected(session, {"Session::prefill", "position 4", "7 tokens", "capacity of 10"},
                 [&](auto& s) { s.prefill(seven); });
  check_rejected(session, {"Session::forward", "position 4", "7 tokens", "capacity of 10"},
                 [&](auto& s) { s.forward(seven, logits); });
  CHECK(logits == std::vector<float>(7 * 40));
  session.prefill(std::span(seven).first(6));
  CHECK(session.position() == 10);
  check_rejected(session, {"Session::step", "position 10", "capacity of 10"},
                 [](auto& s) { s.step(1); });
  session.reset();
  session.prefill(seven);

  // One sequence of a batch passes it: none reads.
  Batch batch(weights, 2, {.capacity = 10});
  batch.prefill(1, seven);
  const auto first = batch.snapshot(0), second = batch.snapshot(1);
  CHECK_MESSAGE_OF(batch.prefill(std::array<Tokens, 2>{seven, seven}), "Batch::prefill",
                   "position 7", "capacity of 10");
  CHECK(same_state(batch.snapshot(0), first));
  CHECK(same_state(batch.snapshot(1), second));
  batch.prefill(1, std::span(seven).first(3));
  CHECK_MESSAGE_OF(batch.step(Ids{1, 1}), "Batch::step", "position 10", "capacity of 10");
  CHECK(same_state(batch.snapshot(0), first));
}

TEST_CASE("options and sizes of sessions and batches") {
  const auto weights = random_weights<Model>(4);
  CHECK_MESSAGE_OF(Session(weights, {.capacity = 0}), "Session", "capacity", "found 0");
  CHECK_MESSAGE_OF(Session(weights, {.capacity = -5}), "Session", "capacity", "found -5");
  CHECK_MESSAGE_OF(Session(weights, {.threads = -1}), "Session", "threads", "found -1");
  CHECK_MESSAGE_OF(Session(weights, {.chunk = 0}), "Session", "chunk", "found 0");
  CHECK_MESSAGE_OF(Session(weights, {.chunk = -1}), "Session", "chunk", "found -1");
  CHECK_MESSAGE_OF(Batch(weights, 0), "Batch", "at least one sequence", "found 0");
  CHECK_MESSAGE_OF(Batch(weights, -3), "Batch", "at least one sequence", "found -3");
  CHECK_MESSAGE_OF(Batch(weights, 2, {.chunk = 0}), "Batch", "chunk", "found 0");
}

TEST_CASE("sizes that overflow, or that no memory has") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const auto weights = random_weights<Full>(8);
  // The second gave states of a few positions, the last std::bad_alloc.
  for (const std::int64_t capacity : {most, (std::int64_t{1} << 55) + 8, std::int64_t{1} << 50,
                                      std::int64_t{1'000'000'000'000}}) {
    CAPTURE(capacity);
    CHECK_MESSAGE_OF(Session(weights, {.capacity = capacity}), "capacity", "memory");
    CHECK_MESSAGE_OF(Batch(weights, 3, {.capacity = capacity}), "capacity", "memory");
  }
  CHECK_MESSAGE_OF(Session(weights, {.capacity = 1'000'000'000'000}),
                   std::to_string(Full::state_bytes<float>(1'000'000'000'000)) + " bytes");
  CHECK_MESSAGE_OF(Full::state_bytes<float>(most), "capacity: ", std::to_string(most));
  const int sequences = std::numeric_limits<int>::max();
  CHECK_MESSAGE_OF(Batch(weights, sequences, {.capacity = std::int64_t{1} << 30}), "sequences",
                   "memory");
  CHECK_MESSAGE_OF(Session(weights, {.chunk = sequences}), "SessionOptions::chunk", "memory");

  // Without full attention the capacity counts for nothing.
  const auto samba = random_weights<Model>(8);
  Session unlimited(samba, {.capacity = most}), session(samba);
  CHECK(unlimited.state_bytes() == session.state_bytes());
  CHECK(same_bits(unlimited.prefill(Ids{1, 2, 3}), session.prefill(Ids{1, 2, 3})));
}

TEST_CASE("calls of a batch") {
  const auto weights = random_weights<Model>(5);
  Batch batch(weights, 2);
  batch.step(Ids{1, 2});
  const Batch untouched = batch;
  const Ids good{1, 2, 3}, bad{1, 61};
  CHECK_MESSAGE_OF(batch.step(Ids{1}), "Batch::step", "expected 2 tokens", "found 1");
  CHECK_MESSAGE_OF(batch.step(Ids{1, 2, 3}), "Batch::step", "expected 2 tokens", "found 3");
  CHECK_MESSAGE_OF(batch.step(bad), "Batch::step", "token 61", "[0, 61)");
  CHECK_MESSAGE_OF(batch.prefill(std::array<Tokens, 1>{good}), "Batch::prefill",
                   "expected 2 prompts", "found 1");
  CHECK_MESSAGE_OF(batch.prefill(std::array<Tokens, 3>{}), "Batch::prefill", "expected 2 prompts",
                   "found 3");
  CHECK_MESSAGE_OF(batch.prefill(std::array<Tokens, 2>{good, bad}), "Batch::prefill",
                   "token 61 at index 1", "[0, 61)");
  CHECK_MESSAGE_OF(batch.prefill(0, Ids{}), "Batch::prefill", "at least one token");
  CHECK_MESSAGE_OF(batch.step(std::array{0, 0}, Ids{1, 2}), "Batch::step", "sequence 0", "twice");
  CHECK_MESSAGE_OF(batch.step(std::array{0}, Ids{1, 2}), "Batch::step", "expected 1 tokens",
                   "found 2");
  CHECK_MESSAGE_OF(batch.step(std::array{0, 2}, Ids{1, 2}), "Batch",
                   "sequence 2 is outside [0, 2)");
  CHECK_MESSAGE_OF(batch.step(std::array{1}, Ids{61}), "Batch::step", "token 61", "[0, 61)");
  CHECK_MESSAGE_OF(batch.leave(2), "Batch", "sequence 2 is outside [0, 2)");
  CHECK_MESSAGE_OF(batch.prefill(1, bad), "Batch::prefill", "token 61 at index 1");
  Snapshot snapshot;
  for (const int sequence : {-1, 2}) {
    const std::string which = "sequence " + std::to_string(sequence) + " is outside [0, 2)";
    CHECK_MESSAGE_OF(batch.prefill(sequence, good), "Batch", which);
    CHECK_MESSAGE_OF(batch.logits(sequence), "Batch", which);
    CHECK_MESSAGE_OF(batch.position(sequence), "Batch", which);
    CHECK_MESSAGE_OF(batch.reset(sequence), "Batch", which);
    CHECK_MESSAGE_OF(batch.snapshot(sequence), "Batch", which);
    CHECK_MESSAGE_OF(batch.snapshot(sequence, snapshot), "Batch", which);
    CHECK_MESSAGE_OF(batch.restore(sequence, untouched.snapshot(0)), "Batch", which);
  }
  for (const int sequence : {0, 1}) {
    CHECK(same_state(batch.snapshot(sequence), untouched.snapshot(sequence)));
    CHECK(same_bits(batch.logits(sequence), untouched.logits(sequence)));
  }
  Batch after = untouched;
  CHECK(same_bits(batch.step(Ids{5, 6}), after.step(Ids{5, 6})));
}

TEST_CASE("snapshots of something else") {
  const auto weights = random_weights<Full>(6);
  Session session(weights, {.capacity = 10});
  session.prefill(Ids{1, 2, 3});
  const Snapshot good = session.snapshot();
  const auto restore = [&](const Snapshot& s) { return [&](auto& to) { to.restore(s); }; };

  const auto other_weights = random_weights<tiny::MambaOnly>(6);
  const Snapshot other = Session(other_weights).snapshot();
  check_rejected(
      session,
      {"Session::restore", "another model", structure<Full>(), structure<tiny::MambaOnly>()},
      restore(other));
  const Snapshot half = Session<Full, float, bf16>(weights, {.capacity = 10}).snapshot();
  check_rejected(session, {"Session::restore", "other types", "F32", "F32", "F32", "BF16"},
                 restore(half));
  const Snapshot roomy = Session(weights, {.capacity = 11}).snapshot();
  check_rejected(session, {"Session::restore", "a different capacity", "10", "11"}, restore(roomy));

  Snapshot damaged = session.snapshot();
  damaged.position = -1;
  check_rejected(session, {"Session::restore", "position", "-1"}, restore(damaged));
  damaged.position = 11;
  check_rejected(session, {"Session::restore", "position", "11"}, restore(damaged));
  damaged.position = 3;
  damaged.block = Arena(64);
  check_rejected(session, {"Session::restore", "bytes", "found 64"}, restore(damaged));
  check_rejected(session, {"Session::restore", "another model"}, restore(Snapshot{}));

  Batch batch(weights, 2, {.capacity = 10});
  CHECK_MESSAGE_OF(batch.restore(1, other), "Batch::restore", "another model");
  session.restore(good);
  batch.restore(1, good);

  // The same capacity is not asked of models that have none.
  const auto samba = random_weights<Model>(6);
  Session one(samba, {.capacity = 5}), two(samba, {.capacity = 6});
  two.restore(one.snapshot());
  Snapshot late = one.snapshot();
  late.position = std::int64_t{1} << 62;
  two.restore(late);
  two.step(1);
  ++late.position;
  check_rejected(two, {"Session::restore", "position", "4611686018427387905"}, restore(late));
}
