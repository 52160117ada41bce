#include <samba/runtime/sampler.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>
#include <numeric>
#include <set>
#include <string>
#include <vector>

// Every allocation of the program is counted. Not inlined: where g++ inlines only one of a pair, it
// warns of a `free` that does not match its `new`.
namespace {
std::size_t allocations = 0;
}
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* p = std::malloc(std::max<std::size_t>(size, 1))) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(std::max<std::size_t>(size, 1));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }

using namespace samba;
using samba_test::message_of;
using sampling::Candidate;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
using Ids = std::vector<std::int32_t>;

std::vector<Candidate> make(const std::vector<float>& logits) {
  std::vector<Candidate> candidates(logits.size());
  candidates.resize(sampling::candidates(logits, candidates).size());
  return candidates;
}

/// Logits of the given probabilities.
std::vector<float> logs(std::vector<float> probabilities) {
  for (float& p : probabilities) p = std::log(p);
  return probabilities;
}

Ids ids(std::span<const Candidate> candidates) {
  Ids result;
  for (const Candidate c : candidates) result.push_back(c.id);
  return result;
}

Ids run(Sampler& sample, const std::vector<float>& logits, int n) {
  Ids tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(sample(logits));
  return tokens;
}

/// Pearson's statistic of n draws against the expected probabilities; a token without one must not
/// occur.
double chi_square(Sampler sample, const std::vector<float>& logits,
                  const std::map<int, double>& expected, int n) {
  std::map<int, int> counts;
  for (const std::int32_t token : run(sample, logits, n)) ++counts[token];
  for (const auto& [token, count] : counts) {
    CAPTURE(token, count);
    CHECK(expected.count(token) == 1);
  }
  double sum = 0;
  for (const auto& [token, p] : expected) sum += std::pow(counts[token] - n * p, 2) / (n * p);
  return sum;
}

// 99.9 % quantiles of the chi-square distribution, by degrees of freedom.
constexpr std::array<double, 6> chi_square_bound = {0, 10.83, 13.82, 16.27, 18.47, 20.52};

}  // namespace

TEST_CASE("the generator follows its published formula") {
  sampling::SplitMix64 generator(1234567);
  CHECK(generator() == 6457827717110365317u);
  CHECK(generator() == 3203168211198807973u);
  CHECK(generator() == 9817491932198370423u);
  CHECK(sampling::SplitMix64(0)() == 0xe220a8397b1dcdafu);

  double sum = 0, smallest = 1, largest = 0;
  for (int i = 0; i < 100000; ++i) {
    const double u = generator.uniform();
    sum += u;
    smallest = std::min(smallest, u);
    largest = std::max(largest, u);
  }
  CHECK(smallest >= 0);
  CHECK(largest < 1);
  CHECK(sum / 100000 == Approx(0.5).margin(0.005));
}

TEST_CASE("candidates are the logits that are not excluded") {
  const std::vector<Candidate> candidates = make({1, -infinity, -2, -infinity, 0});
  CHECK(ids(candidates) == Ids{0, 2, 4});
  CHECK(candidates[1].logit == -2);
}

TEST_CASE("temperature divides differences of logits") {
  std::vector<Candidate> candidates = make({1, 3, -2});
  const auto kept = sampling::temperature(candidates, 0.5f);
  REQUIRE(ids(kept) == Ids{0, 1, 2});
  CHECK(kept[0].logit - kept[1].logit == Approx(-4));
  CHECK(kept[2].logit - kept[1].logit == Approx(-10));

  candidates = make({2, 5, 5, 4});
  CHECK(ids(sampling::temperature(candidates, 0)) == Ids{1});

  // No overflow, however small the temperature or far the logits.
  for (const float t : {std::numeric_limits<float>::min(), 1e-6f, 3e38f}) {
    CAPTURE(t);
    candidates = make({-3e38f, 3e38f, 3e38f});
    for (const Candidate c : sampling::temperature(candidates, t)) CHECK(is_finite(c.logit));
    CHECK(candidates[1].logit == candidates[2].logit);
    CHECK(candidates[0].logit <= candidates[1].logit);
  }
}

TEST_CASE("top-k keeps the k most likely") {
  const std::vector<float> logits = {1, 4, 2, 4, 3, 0};
  const auto kept = [&](int k) {
    std::vector<Candidate> candidates = make(logits);
    return ids(sampling::top_k(candidates, k));
  };
  CHECK(kept(1) == Ids{1});
  CHECK(kept(2) == Ids{1, 3});
  CHECK(kept(4) == Ids{1, 3, 4, 2});
  CHECK(kept(0) == Ids{0, 1, 2, 3, 4, 5});
  CHECK(kept(6) == Ids{0, 1, 2, 3, 4, 5});
  CHECK(kept(1000) == Ids{0, 1, 2, 3, 4, 5});
}

TEST_CASE("of equal logits top-k keeps the lower ids") {
  std::vector<Candidate> candidates = make(std::vector<float>(100, 0.5f));
  Ids expected(7);
  std::iota(expected.begin(), expected.end(), 0);
  CHECK(ids(sampling::top_k(candidates, 7)) == expected);
}

TEST_CASE("top-p keeps the smallest set that reaches p") {
  const auto kept = [](const std::vector<float>& logits, float p) {
    std::vector<Candidate> candidates = make(logits);
    return ids(sampling::top_p(candidates, p));
  };
  const std::vector<float> logits = logs({0.1f, 0.4f, 0.2f, 0.3f});
  CHECK(kept(logits, 0) == Ids{1});
  CHECK(kept(logits, 0.39f) == Ids{1});
  CHECK(kept(logits, 0.41f) == Ids{1, 3});
  CHECK(kept(logits, 0.69f) == Ids{1, 3});
  CHECK(kept(logits, 0.71f) == Ids{1, 3, 2});
  CHECK(kept(logits, 0.91f) == Ids{1, 3, 2, 0});
  CHECK(kept(logits, 1) == Ids{0, 1, 2, 3});
  // Ties: the lower ids, no more than needed.
  CHECK(kept({1, 1, 1, 1}, 0.5f) == Ids{0, 1});
  CHECK(kept({1, 1, 1, 1}, 0.51f) == Ids{0, 1, 2});
  // p = 1 keeps what is too unlikely for a double.
  CHECK(kept({0, -3e38f}, 1) == Ids{0, 1});
}

TEST_CASE("top-p agrees with sorting everything, for nuclei of any size") {
  sampling::SplitMix64 random(5);
  for (const int n : {1, 63, 64, 65, 128, 129, 1000}) {
    std::vector<float> logits(static_cast<std::size_t>(n));
    for (float& logit : logits) logit = static_cast<float>(std::floor(8 * random.uniform())) / 4;
    for (const float p : {0.01f, 0.3f, 0.9f, 0.999f}) {
      CAPTURE(n, p);
      std::vector<Candidate> sorted = make(logits);
      std::stable_sort(sorted.begin(), sorted.end(),
                       [](Candidate a, Candidate b) { return a.logit > b.logit; });
      double total = 0;
      for (const Candidate c : sorted) total += std::exp(static_cast<double>(c.logit));
      Ids expected;
      double sum = 0;
      for (std::size_t i = 0; i < sorted.size() && sum < p * total; ++i) {
        sum += std::exp(static_cast<double>(sorted[i].logit));
        expected.push_back(sorted[i].id);
      }
      std::vector<Candidate> candidates = make(logits);
      CHECK(ids(sampling::top_p(candidates, p)) == expected);
    }
  }
}

TEST_CASE("min-p keeps what is likely enough beside the most likely") {
  const auto kept = [](const std::vector<float>& logits, float p) {
    std::vector<Candidate> candidates = make(logits);
    return ids(sampling::min_p(candidates, p));
  };
  const std::vector<float> logits = logs({0.05f, 0.5f, 0.25f, 0.2f});
  CHECK(kept(logits, 0) == Ids{0, 1, 2, 3});
  CHECK(kept(logits, 0.09f) == Ids{0, 1, 2, 3});
  CHECK(kept(logits, 0.11f) == Ids{1, 2, 3});
  CHECK(kept(logits, 0.45f) == Ids{1, 2});
  CHECK(kept(logits, 0.51f) == Ids{1});
  CHECK(kept(logits, 1) == Ids{1});
  CHECK(kept({2, 3, 3}, 1) == Ids{1, 2});  // ties with the most likely stay
}

TEST_CASE("the repetition penalty lowers positive and negative logits, once per token") {
  std::vector<Candidate> candidates = make({3, -3, 0, 1, 2});
  Ids recent = {4, 1, 0, 4, 4, 2, 77};
  const auto kept = sampling::repetition_penalty(candidates, recent, 2);
  REQUIRE(ids(kept) == Ids{0, 1, 2, 3, 4});
  CHECK(kept[0].logit == 1.5f);
  CHECK(kept[1].logit == -6);
  CHECK(kept[2].logit == 0);
  CHECK(kept[3].logit == 1);
  CHECK(kept[4].logit == 1);
}

TEST_CASE("the repetition penalty finds candidates in any order and does not overflow") {
  std::vector<Candidate> candidates = make({3, -3e38f, 5, 1});
  auto kept = sampling::top_k(candidates, 3);
  REQUIRE(ids(kept) == Ids{2, 0, 3});
  Ids recent = {3, 1, 2};
  kept = sampling::repetition_penalty(kept, recent, 10);
  CHECK(ids(kept) == Ids{0, 2, 3});
  CHECK(kept[0].logit == 3);
  CHECK(kept[1].logit == 0.5f);
  CHECK(kept[2].logit == 0.1f);

  candidates = make({-3e38f, 3e38f});
  recent = {0, 1};
  for (const Candidate c : sampling::repetition_penalty(candidates, recent, 1e-3f))
    CHECK(is_finite(c.logit));
  for (const Candidate c : sampling::repetition_penalty(candidates, recent, 1e9f))
    CHECK(is_finite(c.logit));
}

TEST_CASE("biases find candidates in any order, add up and do not overflow") {
  std::vector<Candidate> candidates = make({3, -3, 5, 1});
  const std::vector<LogitBias> biases = {{3, 1},    {77, 9},      {2, -1},
                                         {3, 0.5f}, {0, 3.4e38f}, {0, 3e38f}};
  auto kept = sampling::top_k(candidates, 3);
  REQUIRE(ids(kept) == Ids{2, 0, 3});
  CHECK(ids(sampling::bias(kept, {})) == Ids{2, 0, 3});
  kept = sampling::bias(kept, biases);
  CHECK(ids(kept) == Ids{0, 2, 3});
  CHECK(kept[0].logit == (std::numeric_limits<float>::max)());
  CHECK(kept[1].logit == 4);
  CHECK(kept[2].logit == 2.5f);
  CHECK(message_of([&] {
          static_cast<void>(sampling::bias(kept, std::vector<LogitBias>{{2, 1}, {-1, 1}}));
        }) == "sampling: the id of a bias must be at least 0, found -1");
  CHECK(kept[1].logit == 4);
}

TEST_CASE("a draw lands where its random number points") {
  const std::vector<Candidate> candidates = make(logs({0.25f, 0.5f, 0.25f}));
  CHECK(sampling::draw(candidates, 0) == 0);
  CHECK(sampling::draw(candidates, 0.24) == 0);
  CHECK(sampling::draw(candidates, 0.26) == 1);
  CHECK(sampling::draw(candidates, 0.74) == 1);
  CHECK(sampling::draw(candidates, 0.76) == 2);
  CHECK(sampling::draw(candidates, std::nextafter(1.0, 0.0)) == 2);
  CHECK(sampling::draw(make({7, 7}), 0.5) == 1);
  // What has probability 0 in double is never drawn.
  CHECK(sampling::draw(make({-1e30f, 1, -1e30f}), 0) == 1);
  CHECK(sampling::draw(make({-1e30f, 1, -1e30f}), std::nextafter(1.0, 0.0)) == 1);
}

TEST_CASE("rounding never draws what has no probability") {
  sampling::SplitMix64 random(9);
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    std::vector<float> logits(50);
    for (float& logit : logits) logit = static_cast<float>(4 * random.uniform());
    logits.push_back(-1e30f);
    CHECK(sampling::draw(make(logits), std::nextafter(1.0, 0.0)) < 50);
  }
}

TEST_CASE("stages compose in any order of the user's") {
  std::vector<Candidate> candidates = make(logs({0.4f, 0.3f, 0.2f, 0.1f}));
  // Of the top two, renormalised to 4/7 and 3/7, the first alone reaches 0.5.
  CHECK(ids(sampling::top_p(sampling::top_k(candidates, 2), 0.5f)) == Ids{0});
  // The other way round the nucleus of 0.5 has two.
  candidates = make(logs({0.4f, 0.3f, 0.2f, 0.1f}));
  CHECK(ids(sampling::top_k(sampling::top_p(candidates, 0.5f), 2)) == Ids{0, 1});
  // Heat brings the third above half of the first.
  candidates = make(logs({0.4f, 0.3f, 0.2f, 0.1f}));
  CHECK(ids(sampling::min_p(sampling::temperature(candidates, 1.5f), 0.6f)) == Ids{0, 1, 2});
  // No candidates pass through.
  CHECK(
      sampling::min_p(sampling::top_p(sampling::top_k(sampling::temperature({}, 0), 3), 0.5f), 0.5f)
          .empty());
}

TEST_CASE("the sampler runs its stages in the documented order") {
  const int n = 2000;
  const auto drawn = [&](SamplerOptions options, const std::vector<float>& logits) {
    Sampler sample(options);
    const Ids tokens = run(sample, logits, n);
    return std::set<std::int32_t>(tokens.begin(), tokens.end());
  };
  const std::vector<float> logits = logs({0.4f, 0.3f, 0.2f, 0.1f});
  using Set = std::set<std::int32_t>;
  CHECK(drawn({.seed = 1}, logits) == Set{0, 1, 2, 3});
  // top-k before top-p: 4/7 of the two that are left is enough.
  CHECK(drawn({.top_k = 2, .top_p = 0.5f, .seed = 1}, logits) == Set{0});
  // Temperature before top-p and min-p.
  CHECK(drawn({.top_p = 0.65f, .seed = 1}, logits) == Set{0, 1});
  CHECK(drawn({.temperature = 3, .top_p = 0.65f, .seed = 1}, logits) == Set{0, 1, 2});
  CHECK(drawn({.min_p = 0.6f, .seed = 1}, logits) == Set{0, 1});
  CHECK(drawn({.temperature = 1.5f, .min_p = 0.6f, .seed = 1}, logits) == Set{0, 1, 2});
  // The penalty before temperature and top-k: with logits 4 and 3, a token just taken falls behind
  // the other; penalised after the largest logit had been taken away from each, the best would stay
  // at 0.
  Sampler sample(
      {.temperature = 0.5f, .top_k = 1, .repetition_penalty = 2, .repetition_window = 1});
  CHECK(run(sample, {4, 3, 0}, 6) == Ids{0, 1, 0, 1, 0, 1});
}

TEST_CASE("draws follow the distribution") {
  const std::vector<float> logits = logs({0.4f, 0.3f, 0.2f, 0.1f});
  const std::map<int, double> plain = {{0, 0.4}, {1, 0.3}, {2, 0.2}, {3, 0.1}};
  for (const std::uint64_t seed : {0u, 1u, 2u, 42u}) {
    CAPTURE(seed);
    CHECK(chi_square(Sampler({.seed = seed}), logits, plain, 20000) < chi_square_bound[3]);
    // A shift of all logits changes nothing.
    std::vector<float> shifted = logits;
    for (float& logit : shifted) logit += 500;
    CHECK(chi_square(Sampler({.seed = seed}), shifted, plain, 20000) < chi_square_bound[3]);
    // Temperature 0.5 squares the probabilities.
    CHECK(chi_square(Sampler({.temperature = 0.5f, .seed = seed}), logits,
                     {{0, 16 / 30.0}, {1, 9 / 30.0}, {2, 4 / 30.0}, {3, 1 / 30.0}},
                     20000) < chi_square_bound[3]);
    CHECK(chi_square(Sampler({.top_k = 3, .seed = seed}), logits,
                     {{0, 4 / 9.0}, {1, 3 / 9.0}, {2, 2 / 9.0}}, 20000) < chi_square_bound[2]);
    CHECK(chi_square(Sampler({.top_p = 0.6f, .seed = seed}), logits, {{0, 4 / 7.0}, {1, 3 / 7.0}},
                     20000) < chi_square_bound[1]);
    CHECK(chi_square(Sampler({.min_p = 0.4f, .seed = seed}), logits,
                     {{0, 4 / 9.0}, {1, 3 / 9.0}, {2, 2 / 9.0}}, 20000) < chi_square_bound[2]);
    // Excluded tokens are never drawn and take no probability.
    std::vector<float> excluded = logits;
    excluded[1] = -infinity;
    CHECK(chi_square(Sampler({.seed = seed}), excluded, {{0, 4 / 7.0}, {2, 2 / 7.0}, {3, 1 / 7.0}},
                     20000) < chi_square_bound[2]);
  }
}

TEST_CASE("temperature 0 takes the most likely, the lowest id of equals") {
  Sampler sample{{.temperature = 0}};
  CHECK(sample(std::vector<float>{1, 3, 2}) == 1);
  CHECK(sample(std::vector<float>{-5, -7, -5, -5}) == 0);
  CHECK(sample(std::vector<float>{-infinity, 2, 2}) == 1);
  CHECK(sample(std::vector<float>{9}) == 0);
  Sampler narrow{{.temperature = 0, .top_k = 3, .top_p = 0.1f, .min_p = 0.9f}};
  CHECK(narrow(std::vector<float>{1, 3, 3}) == 1);
}

TEST_CASE("the penalty looks at the last tokens of the prompt and its own") {
  const std::vector<float> logits = {5, 4, 3, 2};
  const auto greedy = [&](int window) {
    return Sampler({.temperature = 0, .repetition_penalty = 10, .repetition_window = window});
  };
  Sampler zero = greedy(0), one = greedy(1), two = greedy(2), many = greedy(64);
  CHECK(run(zero, logits, 4) == Ids{0, 0, 0, 0});
  CHECK(run(one, logits, 4) == Ids{0, 1, 0, 1});
  CHECK(run(two, logits, 6) == Ids{0, 1, 2, 0, 1, 2});
  CHECK(run(many, logits, 6) == Ids{0, 1, 2, 3, 0, 0});

  two.reset();
  two.observe(Ids{2, 1, 0});  // 2 is out of the window
  CHECK(run(two, logits, 3) == Ids{2, 1, 0});
  two.reset();
  two.observe(Ids{0});
  two.observe(Ids{});
  two.observe(Ids{1'000'000});  // not in this vocabulary
  CHECK(run(two, logits, 2) == Ids{1, 0});
}

TEST_CASE("a seed fixes the tokens, and reset brings them back") {
  std::vector<float> logits(50);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  const SamplerOptions options = {
      .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1.2f, .seed = 7};
  Sampler a(options), b(options);
  const Ids tokens = run(a, logits, 100);
  CHECK(run(b, logits, 100) == tokens);
  CHECK(std::set<std::int32_t>(tokens.begin(), tokens.end()).size() > 20);

  SamplerOptions other = options;
  other.seed = 8;
  Sampler c(other);
  CHECK(run(c, logits, 100) != tokens);

  CHECK(run(a, logits, 100) != tokens);
  a.reset();
  CHECK(run(a, logits, 100) == tokens);

  // A copy goes its own way from the same state.
  Sampler copy = a;
  const Ids next = run(a, logits, 100);
  CHECK(run(copy, logits, 100) == next);
}

TEST_CASE("the tokens of one seed on every platform") {
  Sampler sample{{.temperature = 0.7f, .top_p = 0.95f, .seed = 1}};
  const std::vector<float> logits = logs({0.05f, 0.1f, 0.2f, 0.3f, 0.2f, 0.1f, 0.05f});
  CHECK(run(sample, logits, 16) == Ids{2, 4, 0, 2, 2, 4, 1, 2, 3, 4, 2, 4, 2, 2, 2, 3});
}

TEST_CASE("the sampler does not depend on the order in which top-p and top-k leave candidates") {
  // The tokens of a seed are those of a walk over the sorted list, computed here the slow way.
  std::vector<float> logits(300);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 37 % 101) / 20;
  std::vector<Candidate> sorted = make(logits);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](Candidate a, Candidate b) { return a.logit > b.logit; });
  sorted.resize(120);
  Sampler sample{{.top_k = 120, .seed = 3}};
  sampling::SplitMix64 random(3);
  for (int i = 0; i < 200; ++i) {
    double total = 0;
    for (const Candidate c : sorted) total += std::exp(static_cast<double>(c.logit));
    double left = random.uniform() * total;
    std::size_t at = 0;
    while ((left -= std::exp(static_cast<double>(sorted[at].logit))) >= 0) ++at;
    CHECK(sample(logits) == sorted[at].id);
  }
}

TEST_CASE("no allocation after the first call") {
  std::vector<float> logits(1000);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 17) / 8;
  const Ids prompt(500, 3);
  Sampler sample{{.temperature = 0.9f,
                  .top_k = 700,
                  .top_p = 0.99f,
                  .min_p = 0.01f,
                  .repetition_penalty = 1.1f}};
  std::size_t before = allocations;
  static_cast<void>(sample(logits));
  CHECK(allocations > before);  // the counter works
  before = allocations;
  std::int64_t sum = 0;
  sample.observe(prompt);
  for (int i = 0; i < 200; ++i) sum += sample(logits);
  for (int i = 0; i < 200; ++i) sum += sample(std::span(logits).first(10));  // a smaller vocabulary
  sample.reset();
  sum += sample(logits);
  const std::size_t after = allocations;
  CHECK(after == before);
  CHECK(sum > 0);
}

TEST_CASE("tokens that are left out are never chosen, and biases count") {
  samba_test::Random rng;
  CAPTURE(rng.seed);
  std::vector<float> logits = rng.values<float>(40);
  logits[7] = 9;
  logits[35] = 12;
  logits[20] = 11;
  logits[11] = 0.5f;
  Sampler sample({.vocab_size = 30, .banned = {20, 3, 500}});
  std::vector<int> counts(40);
  for (int i = 0; i < 4000; ++i) ++counts[static_cast<std::size_t>(sample(logits))];
  CHECK(std::count(counts.begin() + 30, counts.end(), 0) == 10);
  CHECK((counts[20] == 0 && counts[3] == 0 && counts[7] > 3900));

  // The rest have the probabilities that they have alone; a bias is a difference of logits.
  std::vector<float> rest(logits.begin(), logits.begin() + 30);
  rest[20] = rest[3] = -infinity;
  rest[7] -= 4;
  rest[11] += 3;
  for (const float temperature : {0.f, 0.5f, 1.f}) {
    const SamplerOptions plain{.temperature = temperature, .top_p = 0.9f, .seed = 3};
    SamplerOptions options = plain;
    options.vocab_size = 30;
    options.banned = {3, 20};
    options.biases = {{7, -4}, {11, 1}, {11, 2}, {35, 100}};
    Sampler a(options), b(plain);
    CHECK(run(a, logits, 300) == run(b, rest, 300));
  }
  // What is not a number among what is left out is not looked at.
  logits[39] = std::nanf("");
  CHECK(sample(logits) < 30);
  CHECK(message_of([&] { sample(std::span(logits).first(29)); }) ==
        "Sampler: vocab_size: expected at most the number of logits, 29, found 30");
  Sampler all_banned({.banned = {0, 1}});
  CHECK(message_of([&] { all_banned(std::vector<float>{1, 2}); }) ==
        "Sampler: every token that its logits allow is banned");

  std::vector<Candidate> some = make({5, 6, 7, 8});
  CHECK(sampling::leave_out(some, Ids{1, 3}).size() == 2);
  CHECK((some[0].id == 0 && some[1].id == 2));
}

TEST_CASE("options out of range are named") {
  const auto found = [](SamplerOptions options) {
    return message_of([&] { Sampler sample(options); });
  };
  const float nan = std::nanf("");
  CHECK(found({.temperature = -0.5f}) ==
        "sampling: temperature must be finite and at least 0, found -0.5");
  CHECK(found({.temperature = nan}).find("temperature must be finite") != std::string::npos);
  CHECK(found({.temperature = infinity}).find("temperature must be finite") != std::string::npos);
  CHECK(found({.top_k = -1}) == "sampling: top_k must be at least 0, found -1");
  CHECK(found({.top_p = 1.5f}) == "sampling: top_p must be in [0, 1], found 1.5");
  CHECK(found({.top_p = -0.25f}) == "sampling: top_p must be in [0, 1], found -0.25");
  CHECK(found({.top_p = nan}).find("top_p must be in [0, 1]") != std::string::npos);
  CHECK(found({.min_p = 2}) == "sampling: min_p must be in [0, 1], found 2");
  CHECK(found({.min_p = -1}) == "sampling: min_p must be in [0, 1], found -1");
  CHECK(found({.repetition_penalty = 0}) ==
        "sampling: repetition_penalty must be finite and above 0, found 0");
  CHECK(found({.repetition_penalty = infinity}).find("repetition_penalty") != std::string::npos);
  CHECK(found({.repetition_window = -3}) ==
        "sampling: repetition_window must be at least 0, found -3");
  CHECK(found({.vocab_size = -2}) == "sampling: vocab_size must be at least 0, found -2");
  CHECK(found({.banned = {4, -1}}) == "sampling: a banned id must be at least 0, found -1");
  CHECK(found({.biases = {{-3, 1}}}) == "sampling: the id of a bias must be at least 0, found -3");
  CHECK(found({.biases = {{3, -infinity}}})
            .starts_with("sampling: bias must be finite (ban a token otherwise), found -inf"));

  std::vector<Candidate> two = make({1, 2});
  Ids recent;
  CHECK(message_of([&] {
          static_cast<void>(sampling::temperature(two, -1));
        }).find("temperature") != std::string::npos);
  CHECK(message_of([&] { static_cast<void>(sampling::top_k(two, -1)); }).find("top_k") !=
        std::string::npos);
  CHECK(message_of([&] { static_cast<void>(sampling::top_p(two, 2)); }).find("top_p") !=
        std::string::npos);
  CHECK(message_of([&] { static_cast<void>(sampling::min_p(two, -1)); }).find("min_p") !=
        std::string::npos);
  CHECK(message_of([&] {
          static_cast<void>(sampling::repetition_penalty(two, recent, -1));
        }).find("repetition_penalty") != std::string::npos);
  CHECK(message_of([&] { static_cast<void>(sampling::draw(two, 1)); }) ==
        "sampling: the random number must be in [0, 1), found 1");
  CHECK(message_of([&] { static_cast<void>(sampling::draw({}, 0)); }) ==
        "sampling: there are no candidates to draw from");
  CHECK(message_of([&] { static_cast<void>(sampling::candidates(std::vector<float>(3), two)); }) ==
        "sampling: expected storage for 3 candidates, found 2");
}

TEST_CASE("logits that cannot be sampled are refused and change nothing") {
  const SamplerOptions options = {.repetition_penalty = 1.5f, .seed = 11};
  const std::vector<float> logits = {1, 2, 3, 4};
  Sampler tried(options), untouched(options);
  CHECK(run(tried, logits, 5) == run(untouched, logits, 5));

  const auto refused = [&](const std::vector<float>& bad) {
    return message_of([&] { tried(bad); });
  };
  CHECK(refused({}) == "sampling: there are no logits");
  CHECK(refused({1, 2, std::nanf(""), 3}) == "sampling: the logit at index 2 is NaN");
  CHECK(refused({1, -std::nanf("")}) == "sampling: the logit at index 1 is NaN");
  CHECK(refused({infinity, 1}) == "sampling: the logit at index 0 is +inf");
  CHECK(refused({-infinity, -infinity, -infinity}) == "sampling: all 3 logits are -inf");
  CHECK(message_of([&] { tried.observe(Ids{1, 2, -1}); }) ==
        "Sampler: observed token -1 at index 2 is negative");

  CHECK(run(tried, logits, 50) == run(untouched, logits, 50));
}
