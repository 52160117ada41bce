// Laws of one sequence: snapshots, forks, reset, windows, capacity, and positions without end.
#include <sys/wait.h>
#include <unistd.h>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

template <class Model, class T, class KV>
struct Case {};

template <class Model, class T, class KV>
void check_copies(Case<Model, T, KV>) {
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model, T>(21);
  const auto prompt = random_tokens<Model>(rng, 37), one = random_tokens<Model>(rng, 30),
             other = random_tokens<Model>(rng, 30);

  Session<Model, T, KV> session(weights, {.threads = 1});
  session.prefill(prompt);
  const Snapshot snapshot = session.snapshot();
  CHECK(snapshot.position == 37);
  CHECK(snapshot.block.bytes() == session.state_bytes());
  CHECK(session.state_bytes() == Model::template state_bytes<KV>);
  const auto expected = all_logits(session, one);
  CHECK(session.position() == 67);
  CHECK_FALSE(same_state(session.snapshot(), snapshot));

  session.restore(snapshot);
  CHECK(session.position() == 37);
  CHECK(same_state(session.snapshot(), snapshot));
  const auto diverged = all_logits(session, other);
  CHECK_FALSE(same_bits(diverged, expected));
  session.restore(snapshot);
  CHECK(same_logits<KV>(all_logits(session, one), expected));

  // Into another session, of other chunks and threads.
  Session<Model, T, KV> elsewhere(weights, {.threads = 2, .chunk = 5});
  elsewhere.prefill(other);
  elsewhere.restore(snapshot);
  CHECK(elsewhere.position() == 37);
  CHECK(same_logits<KV>(all_logits(elsewhere, one), expected));

  // A copy is a fork: neither sees what the other reads.
  session.restore(snapshot);
  Session<Model, T, KV> fork = session;
  CHECK(same_logits<KV>(all_logits(fork, other), diverged));
  CHECK(session.position() == 37);
  CHECK(same_logits<KV>(all_logits(session, one), expected));
  CHECK(fork.position() == 67);
  CHECK_FALSE(same_state(fork.snapshot(), session.snapshot()));
  fork = session;
  CHECK(same_state(fork.snapshot(), session.snapshot()));
  const auto token = other[0];
  CHECK(same_logits<KV>(fork.step(token), session.step(token)));
  const auto& self = fork;
  fork = self;
  CHECK(same_logits<KV>(fork.step(token), session.step(token)));

  // A moved session goes on.
  Session<Model, T, KV> moved = std::move(fork);
  CHECK(same_logits<KV>(moved.step(token), session.step(token)));

  // snapshot(into) of a used snapshot, and of one that was of another size.
  Snapshot into;
  into.block = Arena(64);
  into.structure = "other";
  session.snapshot(into);
  CHECK(same_state(into, session.snapshot()));
  moved.restore(into);
  session.snapshot(into);
  CHECK(same_logits<KV>(moved.step(token), session.step(token)));

  // reset is a fresh session.
  session.reset();
  CHECK(session.position() == 0);
  Session<Model, T, KV> fresh(weights);
  CHECK(same_state(session.snapshot(), fresh.snapshot()));
  CHECK(same_logits<KV>(all_logits(session, prompt), all_logits(fresh, prompt)));
}

/// Tokens read at positions from `position` on, in the state that `session` is in.
template <class Model>
std::vector<float> at_position(const Session<Model>& session, std::int64_t position,
                               std::span<const std::int32_t> tokens) {
  Snapshot snapshot = session.snapshot();
  snapshot.position = position;
  Session<Model> there = session;
  there.restore(snapshot);
  auto logits = all_logits(there, tokens);
  CHECK(there.position() == position + std::ssize(tokens));
  return logits;
}

constexpr std::int64_t two_31 = std::int64_t{1} << 31, two_33 = std::int64_t{1} << 33;

}  // namespace

TEMPLATE_TEST_CASE("snapshots and copies diverge and meet again", "",
                   (Case<tiny::Samba, float, float>), (Case<tiny::Samba, float, bf16>),
                   (Case<tiny::AttentionOnly, float, float>),
                   (Case<tiny::MambaOnly, double, double>), (Case<tiny::Mixed, float, float>),
                   (Case<tiny::Recurrent, float, float>)) {
  check_copies(TestType{});
}

TEST_CASE("a window is full attention while the position is below it, and only then") {
  using golden::heads_4_2;
  struct Windowed
      : LanguageModel<Repeat<2, HybridStack<SWA<20, heads_4_2>, SwiGLU<32>>>, golden::tied(31)> {};
  struct Full
      : LanguageModel<Repeat<2, HybridStack<Attention<heads_4_2>, SwiGLU<32>>>, golden::tied(31)> {
  };
  const auto windowed = random_weights<Windowed>(23);
  const auto full = random_weights<Full>(23);
  Random rng;
  CAPTURE(rng.seed);
  const auto tokens = random_tokens<Full>(rng, 60);
  for (const int chunk : {1, 9, 256}) {
    Session a(windowed, {.chunk = chunk});
    Session b(full, {.capacity = 60, .chunk = chunk});
    const auto x = all_logits(a, tokens), y = all_logits(b, tokens);
    for (std::int64_t i = 0; i < 20; ++i)
      CHECK(same_result(row_of<Full>(x, i), row_of<Full>(y, i)));
    for (std::int64_t i = 20; i < 60; ++i)
      CHECK(relative_error(row_of<Full>(x, i), row_of<Full>(y, i)) > 1e-4);
  }
}

TEST_CASE("a token leaves the window's sight exactly when it should") {
  struct One : LanguageModel<HybridStack<DModel<16>, SWA<5, AttentionOptions{.n_heads = 2}>>,
                             golden::tied(31)> {};
  const auto weights = random_weights<One>(29);
  Random rng;
  CAPTURE(rng.seed);
  auto tokens = random_tokens<One>(rng, 12);
  tokens[3] = 7;
  Session a(weights), b(weights);
  const auto x = all_logits(a, tokens);
  tokens[3] = 8;
  const auto y = all_logits(b, tokens);
  for (std::int64_t i = 0; i < 12; ++i) {
    CAPTURE(i);
    CHECK(same_bits(row_of<One>(x, i), row_of<One>(y, i)) == (i < 3 || i >= 3 + 5));
  }
}

TEST_CASE("capacity is in positions, and may be used to the last") {
  const auto weights = random_weights<tiny::AttentionOnly>(31);
  Random rng;
  CAPTURE(rng.seed);
  const auto tokens = random_tokens<tiny::AttentionOnly>(rng, 50);
  Session roomy(weights), exact(weights, {.capacity = 50});
  CHECK(roomy.options().capacity == 4096);
  CHECK(exact.state_bytes() == tiny::AttentionOnly::state_bytes<float>(50));
  CHECK(same_result(all_logits(roomy, tokens), all_logits(exact, tokens)));
  CHECK(exact.position() == 50);
  // Models without full attention take any capacity for what it is: nothing.
  const auto samba = random_weights<tiny::Samba>(31);
  Session small(samba, {.capacity = 3}), other(samba);
  CHECK(small.state_bytes() == other.state_bytes());
  const auto many = random_tokens<tiny::Samba>(rng, 50);
  CHECK(same_result(all_logits(small, many), all_logits(other, many)));
  small.restore(other.snapshot());
}

TEST_CASE("positions past 2^31 and 2^33: the same bits where only the window counts") {
  Random rng;
  CAPTURE(rng.seed);
  const auto check = [&](auto tag, std::int64_t period) {
    using Model = typename decltype(tag)::type;
    const auto weights = random_weights<Model>(37);
    Session session(weights, {.chunk = 16});
    session.prefill(random_tokens<Model>(rng, 91));
    const auto next = random_tokens<Model>(rng, 80);
    const auto expected = at_position(session, 91, next);
    for (const std::int64_t past : {two_31 - 100, two_31, two_33, two_33 * 1000}) {
      // The ring and the tiles of keys begin where they did.
      const std::int64_t shift = past / period * period;
      CAPTURE(shift);
      CHECK(same_result(at_position(session, 91 + shift, next), expected));
    }
  };
  check(std::type_identity<tiny::NoPosition>{}, 3 * 64);  // window 24, tiles of 64 keys
  check(std::type_identity<tiny::MambaOnly>{}, 1);
}

TEST_CASE("positions past 2^31 and 2^33: rotary embedding stays relative") {
  Random rng;
  CAPTURE(rng.seed);
  // One layer of attention: after a window of tokens nothing but their distances count.
  const auto weights = random_weights<tiny::LongWindow>(41);
  const Session session(weights);
  const auto tokens = random_tokens<tiny::LongWindow>(rng, 130);
  const auto expected = at_position(session, 0, tokens);
  for (const std::int64_t position :
       {std::int64_t{10'000'000}, two_31 - 60, two_31 + 17, two_33 - 110, two_33 * 4}) {
    CAPTURE(position);
    const auto logits = at_position(session, position, tokens);
    for (std::int64_t i = 99; i < 130; ++i)
      CHECK(relative_error(row_of<tiny::LongWindow>(logits, i),
                           row_of<tiny::LongWindow>(expected, i)) < 2e-5);
  }

  const auto check_finite = [&](auto tag) {
    using Model = typename decltype(tag)::type;
    const auto model = random_weights<Model>(43);
    Session start(model);
    start.prefill(random_tokens<Model>(rng, 40));
    for (const std::int64_t position : {two_31 - 5, two_33 - 5})
      for (const float logit : at_position(start, position, random_tokens<Model>(rng, 10)))
        CHECK(is_finite(logit));
  };
  check_finite(std::type_identity<tiny::Samba>{});
  check_finite(std::type_identity<golden::SambaBf16Rope>{});
  check_finite(std::type_identity<tiny::Odd>{});
}

TEST_CASE("a forked process reads on, with the same bits") {
  using Model = tiny::Samba;
  Random rng;
  CAPTURE(rng.seed);
  const TempDir dir;
  save(random_weights<Model>(9), dir.file("model.safetensors"));
  const auto weights = load<Model>(dir.path());  // on all threads
  const auto prompt = random_tokens<Model>(rng, 40), next = random_tokens<Model>(rng, 20);
  Session session(weights, {.threads = 3});
  session.prefill(prompt);
  int channel[2];
  REQUIRE(::pipe(channel) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    // A session that was open, and one that is opened here, over weights that are loaded here.
    ::alarm(120);  // it hung
    int wrong = 0;
    const auto send = [&](std::span<const float> logits) {
      const auto bytes = std::as_bytes(logits);
      wrong += ::write(channel[1], bytes.data(), bytes.size()) != std::ssize(bytes);
    };
    send(session.prefill(next));
    const auto here = load<Model>(dir.path());
    Session opened(here, {.threads = 3});
    opened.prefill(prompt);
    send(opened.prefill(next));
    ::_exit(wrong);
  }
  REQUIRE(child > 0);
  ::close(channel[1]);
  std::vector<float> received(2 * Model::vocab_size);
  std::size_t n = 0;  // bytes
  const auto bytes = std::as_writable_bytes(std::span(received));
  for (::ssize_t more; (more = ::read(channel[0], bytes.data() + n, bytes.size() - n)) > 0;)
    n += static_cast<std::size_t>(more);
  ::close(channel[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(n == bytes.size());
  const auto expected = session.prefill(next);
  CHECK(same_result(std::span(received).first(Model::vocab_size), expected));
  CHECK(same_result(std::span(received).last(Model::vocab_size), expected));
}
