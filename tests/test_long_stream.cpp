// A million tokens in constant memory.
#include <fstream>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

struct Small
    : LanguageModel<
          HybridStack<Mamba<16, 4>, SwiGLU<16, 32>, SWA<32, AttentionOptions{.n_heads = 1}>>,
          golden::tied(32)> {};

/// A line of /proc/self/status, in KiB.
long status_kib(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (long kib = 0; word == key + ":" && status >> kib) return kib;
  FAIL("no " << key << " in /proc/self/status");
  return 0;
}

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_THREAD__)
constexpr std::int64_t length = address_sanitizer ? 50'000 : 1'000'000;
#else
constexpr std::int64_t length = 50'000;
#endif

}  // namespace

TEST_CASE("memory stays constant over a long stream") {
  const auto weights = random_weights<Small>(1);
  Session session(weights, {.threads = 1});
  Random rng;
  CAPTURE(rng.seed);
  const auto text = random_tokens<Small>(rng, 5000);

  // Prompts of 5000 tokens, then 1000 steps, over and over.
  long resident = 0, peak = 0;
  std::int32_t token = 0;
  while (session.position() < length) {
    session.prefill(text);
    for (int i = 0; i < 1000; ++i) {
      const auto logits = session.step(token);
      token = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                        logits.begin());
    }
    if (resident == 0 && session.position() >= 10'000) {
      resident = status_kib("VmRSS");
      peak = status_kib("VmHWM");
    }
  }
  REQUIRE(resident > 0);
  if constexpr (!address_sanitizer) {
    CHECK(status_kib("VmRSS") - resident < 1024);
    CHECK(status_kib("VmHWM") - peak < 1024);
  }
  for (const float logit : session.step(token)) CHECK(is_finite(logit));
  CHECK(session.position() > length);
}
