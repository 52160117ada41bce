#include <samba/kernels/cpu/cross_entropy.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

#include <array>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

/// Loss and gradient of simd and reference against -log softmax in double.
void check(const std::vector<float>& logits, std::size_t wanted, float scale,
           std::size_t offset = 0) {
  CAPTURE(logits.size(), wanted, scale, offset);
  const double most = double{*std::max_element(logits.begin(), logits.end())};
  double total = 0;
  for (const float x : logits) total += std::exp(double{x} - most);
  std::vector<Sized> gradient;
  for (const float x : logits)
    gradient.push_back(double{scale} * std::exp(double{x} - most) / total);
  gradient[wanted] = gradient[wanted] - double{scale};
  const double found = double{logits[wanted]};
  const double exact = std::log(total) + (most - found);
#ifdef __FAST_MATH__  // the compiler may add the maximum to the logarithm first
  const Sized loss{exact, 1 + exact + std::abs(most)};
#else
  const Sized loss{exact, 1 + exact};
#endif

  const auto run = [&]<class R>(R, auto kernel) {
    const Guarded<R> row(convert<R>(logits), offset);
    const R result = kernel(row.data(), static_cast<std::int64_t>(logits.size()),
                            static_cast<std::int64_t>(wanted), static_cast<R>(scale));
    CHECK(row.guarded());
    return Named<R>{{"loss", {result}}, {"gradient", row.values()}};
  };
  const auto naive = [](auto... args) { return reference::cross_entropy(args...); };
  // exp is right to 4 unit roundoffs, and its argument is rounded; sum and quotient round once.
  check_results({{"loss", {loss}}, {"gradient", gradient}},
                run(0.f, [](auto... args) { return simd::cross_entropy(args...); }),
                run(0.f, naive), run(0., naive), 8 * unit_roundoff, 1e-14);
}

}  // namespace

TEST_CASE("cross_entropy: simd against reference, every size, target and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (int n = 1; n <= 3 * vector_floats + 1; ++n) {
    const auto logits = rng.values(static_cast<std::size_t>(n), -5, 5);
    for (int wanted = 0; wanted < n; ++wanted)
      check(logits, static_cast<std::size_t>(wanted), 0.25f);
  }
  for (std::size_t offset = 0; offset < vector_floats; ++offset)
    check(rng.values(2 * vector_floats + 3, -5, 5), offset, 1.f, offset);
  check(rng.values(32001, -5, 5), 32000, 1e-4f);
}

TEST_CASE("cross_entropy: logits far from zero, far apart, all equal") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr std::size_t n = vector_floats + 5;
  for (const double center : {-3e38, -1e6, -100., 100., 1e6, 3e38})
    check(rng.values(n, center, center + std::abs(center) * 1e-6), 2, 1.f);
  for (const double size : {1e-30, 20., 80., 1000., 1e30})
    check(rng.values(n, -size, size), 3, 1.f);
  for (const float value : {0.f, -200.f, 200.f}) check(std::vector<float>(n, value), n - 1, 0.5f);
}

TEST_CASE("cross_entropy: NaN where a logit is not finite, and then the logits stay") {
  Random rng;
  CAPTURE(rng.seed);
  const auto check_type = [&]<class R>(R, auto kernel, auto bits) {
    for (const std::size_t n : {1u, 2u, vector_floats - 1u, vector_floats + 0u, vector_floats + 1u})
      for (std::size_t at = 0; at < n; ++at)
        for (const auto no_number : bits) {
          CAPTURE(n, at, no_number);
          auto logits = rng.values<R>(n);
          std::memcpy(&logits[at], &no_number, sizeof(R));
          const auto before = logits;
          const std::array<R, 1> loss{kernel(logits.data(), static_cast<std::int64_t>(n), 0, R{1})};
          CHECK_FALSE(is_finite(static_cast<float>(loss[0])));
          CHECK(same_bits(logits, before));
        }
  };
  // Infinities and a NaN, made of bits so that they are such under -ffast-math.
  const std::array floats{0x7f800000u, 0xff800000u, 0x7fc00000u};
  const std::array doubles{0x7ff0000000000000u, 0xfff0000000000000u, 0x7ff8000000000000u};
  const auto naive = [](auto... args) { return reference::cross_entropy(args...); };
  check_type(0.f, [](auto... args) { return simd::cross_entropy(args...); }, floats);
  check_type(0.f, naive, floats);
  check_type(0., naive, doubles);
}

TEST_CASE("cross_entropy: rows of a chunk, none for a negative target, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = vector_floats + 3, rows = 9;
  const auto run = [&]<class R>(R) {
    const auto logits = rng.values<R>(rows * n, -5, 5);
    std::vector<std::int32_t> targets;
    for (int i = 0; i < rows; ++i) targets.push_back(i % 4 == 2 ? -1 : rng.below(n));
    const auto losses_of = [&](Team team, std::int64_t first, std::int64_t count,
                               const float* weights, std::vector<R>& gradients,
                               std::vector<R>& losses) {
      using P = Policy<R>;
      const Context<P> c{{{}, count}, {team}};
      kernels::cross_entropy(c,
                             CrossEntropy<P>{.targets = targets.data() + first,
                                             .weights = weights ? weights + first : nullptr,
                                             .scale = R{0.5},
                                             .losses = losses.data() + first},
                             RowsArgument<R, n>{gradients.data() + first * n, count});
    };
    std::vector<R> alone_losses(rows), alone = logits;
    for (std::int64_t i = 0; i < rows; ++i) losses_of({}, i, 1, nullptr, alone, alone_losses);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> losses(rows), gradients = logits;
      parallel(threads, [&](Team team) { losses_of(team, 0, rows, nullptr, gradients, losses); });
      CHECK((same_result(losses, alone_losses) && same_result(gradients, alone)));
      for (std::size_t i = 0; i < rows; ++i) {
        CHECK((losses[i] == 0) == (targets[i] < 0));
        const std::vector<R> row(&gradients[i * n], &gradients[i * n] + n);
        CHECK((row == std::vector<R>(n)) == (targets[i] < 0));
      }
    }
    // A weight counts loss and gradient; with one of 0 both are 0 whatever the logits. All are
    // powers of two: they round nothing.
    const std::vector<float> weights{1, 0.5, 2, 0, 4, 0.25, 0, 1, 2};
    std::vector<R> weighted_losses, weighted;
    for (std::size_t i = 0; i < rows; ++i) {
      const auto w = static_cast<R>(weights[i]);
      weighted_losses.push_back(w * alone_losses[i]);
      for (std::size_t j = 0; j < n; ++j) weighted.push_back(w * alone[i * n + j]);
    }
    auto some = logits;
    std::memset(&some[3 * n], 0xff, n * sizeof(R));  // NaN
    for (int threads = 1; threads <= 3; ++threads) {
      CAPTURE(threads);
      std::vector<R> losses(rows, R{7}), gradients = some;
      parallel(threads,
               [&](Team team) { losses_of(team, 0, rows, weights.data(), gradients, losses); });
      CHECK(relative_error(losses, weighted_losses) <= unit_roundoff);
      CHECK(relative_error(gradients, weighted) <= unit_roundoff);
    }
  };
  run(0.f);
  run(0.);
}
