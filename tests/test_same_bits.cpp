// The promise of the library: the same bits for any split of a sequence, any chunk size, any number
// of threads, alone or in a batch.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// A length in [1, left], often short and at times long.
int some_length(Random& rng, std::size_t left) {
  const int most = static_cast<int>(std::min<std::size_t>(left, rng.below(3) ? 6 : 90));
  return 1 + rng.below(most);
}

template <class Model, class T, class KV>
void check_session(Random& rng, const Weights<Model, T>& weights,
                   std::span<const std::int32_t> tokens, const std::vector<Real<T>>& expected,
                   SessionOptions options) {
  Session<Model, T, KV> session(weights, options);
  std::string history = "threads " + std::to_string(options.threads) + ", chunk " +
                        std::to_string(options.chunk) + ":";
  for (std::size_t at = 0; at < tokens.size();) {
    const int length = some_length(rng, tokens.size() - at);
    const auto next = tokens.subspan(at, static_cast<std::size_t>(length));
    const int call = rng.below(3);
    history += (call == 0   ? " prefill "
                : call == 1 ? " step "
                            : " forward ") +
               std::to_string(length);
    bool same = true;
    if (call == 0) {
      same = same_logits<KV>(session.prefill(next),
                             row_of<Model>(expected, static_cast<std::int64_t>(at) + length - 1));
    } else if (call == 1) {
      for (int i = 0; i < length; ++i)
        same = same && same_logits<KV>(session.step(next[static_cast<std::size_t>(i)]),
                                       row_of<Model>(expected, static_cast<std::int64_t>(at) + i));
    } else {
      const auto logits = all_logits(session, next);
      same = same_logits<KV>(logits,
                             std::span(expected).subspan(at * Model::vocab_size, logits.size()));
    }
    at += static_cast<std::size_t>(length);
    CAPTURE(history);
    REQUIRE(same);
    REQUIRE(session.position() == static_cast<std::int64_t>(at));
  }
}

/// Our sequence among others of other lengths.
template <class Model, class T, class KV>
void check_batch(Random& rng, const Weights<Model, T>& weights,
                 std::span<const std::int32_t> tokens, const std::vector<Real<T>>& expected,
                 SessionOptions options) {
  constexpr int n = 4;
  const int ours = rng.below(n);
  Batch<Model, T, KV> batch(weights, n, options);
  std::vector<std::vector<std::int32_t>> all(n);  // what each sequence has read
  std::string history = "threads " + std::to_string(options.threads) + ", chunk " +
                        std::to_string(options.chunk) + ", sequence " + std::to_string(ours) + ":";
  while (all[static_cast<std::size_t>(ours)].size() < tokens.size()) {
    const std::size_t at = all[static_cast<std::size_t>(ours)].size();
    std::vector<std::vector<std::int32_t>> next(n);
    const int call = rng.below(3);  // step; prefill of some sequences; prefill of one
    history += call == 0 ? " step" : call == 1 ? " prefill" : " one";
    for (int i = 0; i < n; ++i) {
      const bool reads = call == 0 || (call == 1 && rng.below(4) > 0) || (call == 2 && i == ours);
      const int length = !reads ? 0 : call == 0 ? 1 : some_length(rng, tokens.size() - at);
      history += " " + std::to_string(length);
      auto& prompt = next[static_cast<std::size_t>(i)];
      prompt = random_tokens<Model>(rng, length);
      if (i == ours)
        std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(at), length, prompt.begin());
      all[static_cast<std::size_t>(i)].insert(all[static_cast<std::size_t>(i)].end(),
                                              prompt.begin(), prompt.end());
    }
    if (call == 0) {
      std::vector<std::int32_t> one;
      for (const auto& prompt : next) one.push_back(prompt[0]);
      batch.step(one);
    } else if (call == 1) {
      batch.prefill(std::vector<std::span<const std::int32_t>>(next.begin(), next.end()));
    } else {
      batch.prefill(ours, next[static_cast<std::size_t>(ours)]);
    }
    CAPTURE(history);
    const auto position = batch.position(ours);
    REQUIRE(position == std::ssize(all[static_cast<std::size_t>(ours)]));
    if (position > 0)
      REQUIRE(same_logits<KV>(batch.logits(ours), row_of<Model>(expected, position - 1)));
  }
  CAPTURE(history);
  for (int i = 0; i < n; ++i) {
    const auto& read = all[static_cast<std::size_t>(i)];
    REQUIRE(batch.position(i) == std::ssize(read));
    if (read.empty()) continue;
    Session<Model, T, KV> alone(weights, {.threads = 1});
    CHECK(same_logits<KV>(batch.logits(i), alone.prefill(read)));
  }
}

#ifdef __OPTIMIZE__
constexpr int trials = 3;
#else
constexpr int trials = 1;
#endif

template <class Model, class T, class KV>
struct Case {};

template <class Model, class T, class KV>
void check(Case<Model, T, KV>) {
  Random rng;
  CAPTURE(rng.seed);
  const auto weights = random_weights<Model, T>(rng.bits());
  const auto tokens = random_tokens<Model>(rng, 150 + rng.below(30));
  Session<Model, T, KV> whole(weights, {.threads = 1});
  const auto expected = all_logits(whole, tokens);
  for (const auto logit : expected) REQUIRE(is_finite(static_cast<float>(logit)));
  for (const int threads : {1, 2, 4})
    for (int trial = 0; trial < trials; ++trial) {
      const SessionOptions options{.threads = threads,
                                   .chunk = trial == 1 ? 1 + rng.below(4) : 1 + rng.below(64)};
      check_session<Model, T, KV>(rng, weights, tokens, expected, options);
      check_batch<Model, T, KV>(rng, weights, tokens, expected, options);
    }
}

}  // namespace

TEMPLATE_TEST_CASE("same bits for any split, any threads, alone or in a batch", "",
                   (Case<tiny::Samba, float, float>), (Case<tiny::Samba, float, bf16>),
                   (Case<tiny::Samba, double, double>), (Case<tiny::MambaOnly, float, float>),
                   (Case<tiny::AttentionOnly, float, float>), (Case<tiny::Mixed, float, float>),
                   (Case<tiny::Odd, float, float>), (Case<tiny::LongWindow, float, float>),
                   (Case<tiny::Recurrent, float, float>), (Case<tiny::Recurrent, bf16, bf16>),
                   (Case<tiny::Recurrent, int8, float>), (Case<tiny::Recurrent, double, double>),
                   (Case<tiny::LongWindow, float, bf16>), (Case<tiny::Samba, bf16, float>),
                   (Case<tiny::Samba, bf16, bf16>), (Case<tiny::Odd, bf16, bf16>),
                   (Case<tiny::Mixed, int8, float>), (Case<tiny::Samba, int8, bf16>),
                   (Case<tiny::Odd, int8, float>), (Case<tiny::Mixed, q4, float>),
                   (Case<tiny::Samba, q4, bf16>), (Case<tiny::Odd, q4, float>),
                   (Case<tiny::Optioned, float, float>), (Case<tiny::Optioned, bf16, bf16>)) {
  check(TestType{});
}
