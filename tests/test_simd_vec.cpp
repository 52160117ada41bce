#include <samba/kernels/simd/elementwise.hpp>
#include <samba/kernels/simd/transpose.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

#include <functional>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;
using simd::lanes;
using simd::vec;

namespace {

/// f of every value, in vectors.
template <class F>
std::vector<float> of_all(F f, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  simd::for_each_vec({0, static_cast<std::int64_t>(x.size())}, [&](std::int64_t i, std::int64_t n) {
    simd::store_part(y.data() + i, f(simd::load_part(x.data() + i, n)), n);
  });
  return y;
}

/// Values over the whole of [low, high], closer around zero, both zeros and numbers near zero.
std::vector<float> sweep(double low, double high) {
  std::vector<float> x;
  const auto add = [&](double value) {
    if (value >= low && value <= high) x.push_back(static_cast<float>(value));
  };
  for (double value = low; value <= high; value += 0.0037) add(value);
  for (double value = 1e-30; value < 1; value *= 1.07) {
    add(value);
    add(-value);
  }
  for (const double value : {0., -0., 1e-37, -1e-37, 0.5, -0.5, low, high}) add(value);
  return x;
}

/// Largest |f(x) - exact(x)| / max(|exact(x)|, floor), in unit roundoffs.
template <class F>
double worst(F f, double (*exact)(double), const std::vector<float>& x, double floor) {
  const auto y = of_all(f, x);
  double result = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = exact(double{x[i]});
    if (!is_finite(y[i])) return 1e300;
    result = std::max(result, std::abs(double{y[i]} - e) / std::max(std::abs(e), floor));
  }
  return result / unit_roundoff;
}

const auto simd_exp = [](vec x) { return simd::exp(x); };
const auto simd_silu = [](vec x) { return simd::silu(x); };
const auto simd_softplus = [](vec x) { return simd::softplus(x); };

}  // namespace

// The smallest normal number is 1.2e-38; results below it may be flushed to zero.
constexpr double smallest = 1.5e-38;

TEST_CASE("exp: 2 units in the last place where the result is a normal number") {
#ifdef __FAST_MATH__
  constexpr double allowed = 6;  // the compiler adds in an order of its own
#else
  constexpr double allowed = 4;  // unit roundoffs: a unit in the last place is one or two
#endif
  const auto exact = [](double x) { return std::exp(x); };
  CHECK(worst(simd_exp, exact, sweep(-87.3, 88.3), 0) <= allowed);
}

TEST_CASE("exp_and_expm1: e^x, and e^x - 1 without cancellation around 0") {
#ifdef __FAST_MATH__
  constexpr double allowed = 10;
#else
  constexpr double allowed = 6;  // that of exp, above 1/2 where 1 is subtracted from it
#endif
  const auto difference = [](vec x) { return simd::exp_and_expm1(x).expm1; };
  const auto x = sweep(-87, 20);
  CHECK(worst(difference, [](double value) { return std::expm1(value); }, x, 0) <= allowed);
  CHECK(same_result(of_all([](vec value) { return simd::exp_and_expm1(value).exp; }, x),
                    of_all(simd_exp, x)));
  CHECK(of_all(difference, {0.f, -1000.f}) == std::vector<float>{0.f, -1.f});
}

TEST_CASE("exp: finite and monotone to the ends beyond it") {
  const auto low = of_all(simd_exp, {-87.3f, -88.f, -104.f, -200.f, -1e30f, -3.4e38f});
  for (const float y : low) CHECK((y >= 0 && y < smallest));
  const auto high = of_all(simd_exp, {88.3f, 89.f, 200.f, 1e30f, 3.4e38f});
  for (const float y : high) CHECK((is_finite(y) && y > 2e38f));
  CHECK(of_all(simd_exp, {0.f, -0.f}) == std::vector<float>{1.f, 1.f});
}

TEST_CASE("silu: a few units in the last place over the whole range") {
  // Below -87 the exact result is smaller than 87 e^-87; there the absolute error counts.
  CHECK(worst(
            simd_silu, [](double x) { return x / (1 + std::exp(-x)); }, sweep(-87, 200), 1e-36) <=
        8);
  for (const float y : of_all(simd_silu, sweep(-200, -87)))
    CHECK((is_finite(y) && y <= 0 && y > -1.5e-36f));
  CHECK(of_all(simd_silu, {0.f, 200.f, 1e30f, 3e38f}) ==
        std::vector<float>{0.f, 200.f, 1e30f, 3e38f});
}

TEST_CASE("softplus: a few units in the last place over the whole range") {
  const auto exact = [](double x) { return std::max(x, 0.) + std::log1p(std::exp(-std::abs(x))); };
  CHECK(worst(simd_softplus, exact, sweep(-86, 200), 0) <= 8);
  for (const float y : of_all(simd_softplus, sweep(-200, -86))) CHECK((y >= 0 && y < 5e-38f));
  CHECK(of_all(simd_softplus, {200.f, 1e30f, 3e38f}) == std::vector<float>{200.f, 1e30f, 3e38f});
}

TEST_CASE("sigmoid, the derivative of silu: a few units in the last place over the whole range") {
  const auto sigmoid = [](vec x) { return simd::sigmoid(x); };
  const auto derivative = [](vec x) { return simd::silu_derivative(x); };
  CHECK(worst(sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, sweep(-86, 200), 0) <= 8);
  // The derivative is zero at -1.278, where what cancels is as large as the sigmoid, 0.2; up to 17,
  // where the sigmoid becomes 1, a rounding of it is multiplied by x.
  const auto exact = [](double x) {
    const double s = 1 / (1 + std::exp(-x));
    return s * (1 + x * (1 - s));
  };
  CHECK(worst(derivative, exact, sweep(-80, -2), 0) <= 12);
  CHECK(worst(derivative, exact, sweep(-2, 200), 0.2) <= 24);
  for (const float y : of_all(derivative, sweep(-200, -86))) CHECK((y <= 0 && y > -1e-35f));
  CHECK(of_all(derivative, {0.f, 200.f, 1e30f}) == std::vector<float>{0.5f, 1.f, 1.f});
}

TEST_CASE("exp, silu, softplus: a value does not depend on its place in a vector") {
  Random rng;
  CAPTURE(rng.seed);
  for (int i = 0; i < 100; ++i) {
    const float x = static_cast<float>(rng.uniform(-20, 20));
    for (const auto& f : {std::function<vec(vec)>(simd_exp), std::function<vec(vec)>(simd_silu),
                          std::function<vec(vec)>(simd_softplus)}) {
      const auto alone = of_all(f, {x});
      for (int place = 0; place < lanes; ++place) {
        auto values = rng.values(lanes, -100, 100);
        values[static_cast<std::size_t>(place)] = x;
        const std::vector<float> there{of_all(f, values)[static_cast<std::size_t>(place)]};
        CHECK(same_result(there, alone));
      }
    }
  }
}

TEST_CASE("exp, silu, softplus: no number for no number, so that a loss shows it") {
  for (const auto& f : {std::function<vec(vec)>(simd_exp), std::function<vec(vec)>(simd_silu),
                        std::function<vec(vec)>(simd_softplus),
                        std::function<vec(vec)>([](vec x) { return simd::exp2_below(x); })}) {
    const auto y = of_all(f, {1.f, std::bit_cast<float>(0x7fc00000u), 2.f});
    CHECK((is_finite(y[0]) && is_finite(y[2])));
#ifndef __FAST_MATH__  // which may take any number for a NaN
    CHECK_FALSE(is_finite(y[1]));
#endif
  }
}

TEST_CASE("rounded_to_bf16: as bf16 rounds, for numbers of every kind") {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < 0x10000; high += 7)
    for (const std::uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  const auto rounded = of_all([](vec x) { return simd::rounded_to_bf16(x); }, values);
  std::vector<float> expected;
  for (const float value : values) expected.push_back(bf16(value));
  CHECK(same_bits(rounded, expected));
}

#ifdef __AVX__
TEMPLATE_TEST_CASE("transpose_units: columns become rows, nothing beside them is written", "",
                   float, bf16) {
  constexpr int size = simd::detail::transpose_size, first = 3, stride = size + 2,
                group = 4 / static_cast<int>(sizeof(TestType));
  std::vector<std::vector<TestType>> values(size);
  const TestType* rows[size];
  for (int r = 0; r < size; ++r) {
    for (int i = 0; i < first + size * group; ++i)
      values[static_cast<std::size_t>(r)].push_back(TestType(static_cast<float>(100 * r + i % 97)));
    rows[r] = values[static_cast<std::size_t>(r)].data();
  }
  std::vector<std::int32_t> to(size * stride, -1);
  simd::detail::transpose_units(rows, first, 0, to.data(), stride);
  for (int u = 0; u < size; ++u)
    for (int c = 0; c < stride; ++c) {
      CAPTURE(u, c);
      const auto expected = c < size ? simd::detail::unit(rows[c] + first + u * group) : -1;
      CHECK(to[static_cast<std::size_t>(u * stride + c)] == expected);
    }
}
#endif

TEST_CASE("round_to_bf16: as bf16 rounds, every length, nothing beside it") {
  Random rng;
  CAPTURE(rng.seed);
  const auto values = rng.values(3 * lanes + 1);
  for (std::size_t n = 0; n <= values.size(); ++n) {
    const bf16 untouched(42.f);
    std::vector<bf16> rounded(values.size() + 1, untouched);
    simd::round_to_bf16(values.data(), static_cast<std::int64_t>(n), rounded.data());
    std::vector<bf16> expected(rounded.size(), untouched);
    for (std::size_t i = 0; i < n; ++i) expected[i] = bf16(values[i]);
    CAPTURE(n);
    CHECK(same_bits(rounded, expected));
  }
}

TEST_CASE("load_part and store_part: n elements, nothing beside them, the rest zero") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t offset = 0; offset < lanes; ++offset)
    for (int n = 1; n <= lanes; ++n) {
      CAPTURE(offset, n);
      auto values = rng.values(static_cast<std::size_t>(n));
      const Guarded<float> in(values, offset);
      const Guarded<float> out(values.size(), lanes - 1 - offset);
      simd::store_part(out.data(), simd::load_part(in.data(), n), n);
      CHECK(out.guarded());
      CHECK(same_bits(out.values(), values));

      std::vector<float> all(lanes);
      simd::store(all.data(), simd::load_part(in.data(), n));
      values.resize(lanes);
      CHECK(same_bits(all, values));
    }
}

TEST_CASE("for_each_vec: covers the range once, in order, the incomplete vector last") {
  for (std::int64_t begin = 0; begin < 3; ++begin)
    for (std::int64_t end = begin; end <= begin + 3 * lanes + 1; ++end) {
      std::int64_t at = begin;
      bool last = false;
      simd::for_each_vec({begin, end}, [&](std::int64_t i, std::int64_t n) {
        CHECK((i == at && n > 0 && n <= lanes && !last));
        last = n < lanes;
        at += n;
      });
      CHECK(at == end);
    }
}

TEST_CASE("unroll: every number once, in order") {
  std::vector<int> seen;
  simd::unroll<5>([&](auto i) { seen.push_back(i); });
  simd::unroll<0>([&](auto) { seen.push_back(-1); });
  CHECK(seen == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE("sum and max of the lanes: every lane counts") {
  for (int place = 0; place < lanes; ++place) {
    std::vector<float> x(lanes, -2.f);
    x[static_cast<std::size_t>(place)] = 3.f;
    CHECK(simd::sum(simd::load(x.data())) == 3.f - 2.f * (lanes - 1));
    CHECK(simd::greatest(simd::load(x.data())) == 3.f);
  }
}

TEST_CASE("part_and: n elements, the rest as given") {
  Random rng;
  CAPTURE(rng.seed);
  for (int n = 1; n <= lanes; ++n) {
    auto values = rng.values(static_cast<std::size_t>(n));
    const Guarded<float> in(values);
    std::vector<float> all(lanes);
    simd::store(all.data(), simd::part_and(in.data(), n, 9.f));
    values.resize(lanes, 9.f);
    CHECK(same_bits(all, values));
  }
}
