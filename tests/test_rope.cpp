#include <samba/kernels/cpu/rope.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

#include <array>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

std::vector<std::int64_t> positions() {
  std::vector<std::int64_t> result;
  for (std::int64_t p = 0; p <= 300; ++p) result.push_back(p);
  for (const std::int64_t p :
       {std::int64_t{4095}, std::int64_t{4096}, std::int64_t{1} << 20, std::int64_t{10'000'000},
        (std::int64_t{1} << 30) - 1, std::int64_t{1} << 30, (std::int64_t{1} << 31) + 5,
        (std::int64_t{1} << 33) + 12345, std::int64_t{1} << 40})
    result.push_back(p);
  return result;
}

/// Position times frequency in long double, whose rounding (2^-63 of the angle, where it is the x87
/// type) is far below what is compared; cosl and sinl reduce it exactly.
long double exact_angle(std::int64_t position, float theta, int i, int rotary) {
  return static_cast<long double>(position) *
         std::pow(static_cast<long double>(theta), -2.0L * static_cast<long double>(i) / rotary);
}

/// Relative error of a frequency: a power and a division in double. Under -ffast-math they may come
/// from vector functions that are right to 4 units in the last place, and from approximations.
#ifdef __FAST_MATH__
constexpr double frequency_error = 0x1p-49;
#else
constexpr double frequency_error = 0x1p-52;
#endif

template <int Rotary>
void check_table(float theta) {
  const RotaryTable<Rotary> table(theta, RopeTable::exact);
  for (const std::int64_t position : positions()) {
    CAPTURE(Rotary, theta, position);
    std::array<float, Rotary / 2> cos, sin;
    std::array<double, Rotary / 2> cos_double, sin_double;
    table.at(position, cos.data(), sin.data());
    table.at(position, cos_double.data(), sin_double.data());
    for (int i = 0; i < Rotary / 2; ++i) {
      CAPTURE(i);
      const auto at = static_cast<std::size_t>(i);
      const long double angle = exact_angle(position, theta, i, Rotary);
      const auto c = static_cast<double>(std::cos(angle)), s = static_cast<double>(std::sin(angle));
      // A frequency is a double, right to about 2^-52, which the position multiplies: 2e-9 at
      // position 10 million, a float's precision up to 2^28. Products of digits add 1e-15.
      const double of_double = static_cast<double>(angle) * frequency_error + 2e-15;
      CHECK(std::abs(cos_double[at] - c) <= of_double);
      CHECK(std::abs(sin_double[at] - s) <= of_double);
      CHECK(std::abs(double{cos[at]} - c) <= 6e-8 + of_double);
      CHECK(std::abs(double{sin[at]} - s) <= 6e-8 + of_double);
    }
  }
}

/// Heads of random values turned by simd and by reference, or their gradients turned back.
template <bool backward>
void check_head(int half, std::size_t rest, std::size_t table_offset, std::size_t head_offset,
                Random& rng) {
  CAPTURE(rng.seed, half, rest, table_offset, head_offset);
  const auto n = static_cast<std::size_t>(half);
  std::vector<float> cos, sin;
  for (int i = 0; i < half; ++i) {
    const double angle = rng.uniform(-4, 4);
    cos.push_back(static_cast<float>(std::cos(angle)));
    sin.push_back(static_cast<float>(std::sin(angle)));
  }
  const auto head = rng.values(2 * n + rest);
  const Guarded<float> c(cos, table_offset), s(sin, table_offset), turned(head, head_offset);
  const auto naive = [&]<class R>(R) {
    auto values = convert<R>(head);
    (backward ? reference::rope_backward<R> : reference::rope<R>)(convert<R>(cos).data(),
                                                                  convert<R>(sin).data(), half,
                                                                  values.data());
    return values;
  };
  (backward ? simd::rope_backward : simd::rope)(c.data(), s.data(), half, turned.data());
  auto exact = sized(head);
  for (std::size_t i = 0; i < n; ++i) {
    const Sized a = exact[i], b = exact[i + n], x = double{cos[i]},
                y = double{backward ? -sin[i] : sin[i]};
    exact[i] = a * x - b * y;
    exact[i + n] = a * y + b * x;
  }
  // Two products and a sum.
  check_results({{"head", exact}}, {{"head", turned.values()}}, {{"head", naive(0.f)}},
                {{"head", naive(0.)}}, 2 * unit_roundoff, 1e-15);
  CHECK(turned.guarded());
  for (std::size_t i = 2 * n; i < head.size(); ++i) CHECK(turned.values()[i] == head[i]);
}

}  // namespace

TEST_CASE("RotaryTable: exact cosines and sines at any position") {
  check_table<4>(10000.f);
  check_table<32>(10000.f);
  check_table<64>(500000.f);
  check_table<128>(10000.f);
  check_table<128>(1e6f);
}

TEST_CASE("RotaryTable: depends on nothing but the position") {
  const RotaryTable<32> table(10000.f, RopeTable::exact), again(10000.f, RopeTable::exact);
  for (const std::int64_t position : positions()) {
    std::array<float, 16> cos, sin, cos_again, sin_again;
    table.at(position, cos.data(), sin.data());
    again.at(position + 1, cos_again.data(), sin_again.data());
    again.at(position, cos_again.data(), sin_again.data());
    CHECK((same_bits(cos, cos_again) && same_bits(sin, sin_again)));
  }
}

TEST_CASE("RotaryTable: bfloat16 tables are those of float32 angles") {
  const auto check = [](auto rotary, float theta) {
    constexpr int Rotary = decltype(rotary)::value;
    const RotaryTable<Rotary> table(theta, RopeTable::bfloat16);
    for (const std::int64_t position : positions()) {
      std::array<float, Rotary / 2> cos, sin;
      std::array<double, Rotary / 2> cos_double, sin_double;
      table.at(position, cos.data(), sin.data());
      table.at(position, cos_double.data(), sin_double.data());
      for (int i = 0; i < Rotary / 2; ++i) {
        CAPTURE(Rotary, theta, position, i);
        const auto at = static_cast<std::size_t>(i);
        // 1 / theta^(2i / Rotary), position times it, cosine and sine: each rounded to float32.
        const double power = std::pow(double{theta}, double{static_cast<float>(2.0 * i / Rotary)});
        const float frequency = 1.f / static_cast<float>(power);
        const float angle = static_cast<float>(position) * frequency;
        const bf16 c(static_cast<float>(std::cos(double{angle}))),
            s(static_cast<float>(std::sin(double{angle})));
#ifdef __FAST_MATH__  // as above, in float32
        const double tolerance = 0x1p-8 + std::abs(double{angle}) * 16 * unit_roundoff;
#else
        const double tolerance = 0;
#endif
        CHECK(std::abs(double{cos[at]} - double{c}) <= tolerance);
        CHECK(std::abs(double{sin[at]} - double{s}) <= tolerance);
        CHECK((cos_double[at] == double{cos[at]} && sin_double[at] == double{sin[at]}));
      }
    }
  };
  check(std::integral_constant<int, 32>{}, 10000.f);
  check(std::integral_constant<int, 64>{}, 10000.f);
  check(std::integral_constant<int, 128>{}, 10000.f);
  check(std::integral_constant<int, 16>{}, 500000.f);
}

TEST_CASE("RotaryTable: bfloat16 tables lose positions beyond 2^24 as float32 does") {
  const RotaryTable<8> table(10000.f, RopeTable::bfloat16);
  std::array<float, 4> cos, sin, cos_next, sin_next;
  table.at(std::int64_t{1} << 24, cos.data(), sin.data());
  table.at((std::int64_t{1} << 24) + 1, cos_next.data(), sin_next.data());
  CHECK((same_bits(cos, cos_next) && same_bits(sin, sin_next)));
}

TEST_CASE("rope, rope backward: simd against reference, every size and misalignment") {
  Random rng;
  const auto check = [&](int half, std::size_t rest, std::size_t table, std::size_t head) {
    check_head<false>(half, rest, table, head, rng);
    check_head<true>(half, rest, table, head, rng);
  };
  for (int half = 1; half <= 3 * vector_floats + 1; ++half)
    for (const std::size_t rest : {0u, 3u}) check(half, rest, 0, 0);
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check(vector_floats + 3, 2, offset, 0);
    check(vector_floats + 3, 2, 0, offset);
    check(vector_floats, 2, offset, offset);
  }
}

TEST_CASE("rope: turns queries and keys, leaves values and the other channels as they are") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int head_dim = 12, rotary = 8, group = 3, n_kv_heads = 2;
  constexpr int heads = n_kv_heads * (group + 2), width = heads * head_dim;
  const RotaryTable<rotary> table(10000.f, RopeTable::exact);
  const std::vector<Segment> segments{{1000, 0, 3}, {7, 3, 2}};
  const auto run = [&]<class R>(R, double tolerance) {
    using Q = Heads<R, n_kv_heads, group, head_dim>;
    using K = Heads<R, n_kv_heads, 1, head_dim>;
    const auto turn = [&](Q q, K k, int threads, bool back) {
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{segments, 5}, {team}};
        if (back)
          kernels::rope_backward<rotary, n_kv_heads, group, head_dim>(
              c, {.angles = table, .q = q, .k = k});
        else
          kernels::rope<rotary, n_kv_heads, group, head_dim>(c, {.angles = table, .q = q, .k = k});
      });
    };
    const auto fused = [&](std::vector<R>& qkv) {
      return FusedHeads<R, n_kv_heads, group, head_dim>(Rows<R, width>{qkv.data(), 5});
    };
    const auto before = rng.values<R>(5 * width);
    std::vector<R> alone;
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      auto qkv = before;
      turn(fused(qkv).q, fused(qkv).k, threads, false);
      if (threads == 1) alone = qkv;
      CHECK(same_result(qkv, alone));
    }
    // Turned back, they are as before.
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      auto back = alone;
      turn(fused(back).q, fused(back).k, threads, true);
      CHECK(relative_error(back, before) <= tolerance);
    }
    // In buffers of their own, keys head by head, they turn as in rows of all.
    for (const bool back : {false, true}) {
      CAPTURE(back);
      std::vector<R> q(5 * n_kv_heads * group * head_dim), k(5 * n_kv_heads * head_dim);
      const Q queries(Rows<R, n_kv_heads * group * head_dim>{q.data(), 5});
      const K keys(k.data(), 5, head_dim, 5 * head_dim);
      auto qkv = before;
      const auto all = fused(qkv);
      const auto each = [&](auto f) {
        for (int row = 0; row < 5; ++row)
          for (int g = 0; g < n_kv_heads; ++g) {
            f(queries.at(row, g), all.q.at(row, g), group * head_dim);
            f(keys.at(row, g), all.k.at(row, g), head_dim);
          }
      };
      each([](R* mine, const R* theirs, int n) { std::copy_n(theirs, n, mine); });
      turn(queries, keys, 2, back);
      turn(all.q, all.k, 1, back);
      int wrong = 0;
      each([&](const R* mine, const R* theirs, int n) {
        wrong += !same_result(std::span(mine, static_cast<std::size_t>(n)),
                              std::span(theirs, static_cast<std::size_t>(n)));
      });
      CHECK(wrong == 0);
    }
    for (int row = 0; row < 5; ++row)
      for (int head = 0; head < heads; ++head) {
        CAPTURE(row, head);
        const auto at = static_cast<std::size_t>((row * heads + head) * head_dim);
        const std::vector<R> was(&before[at], &before[at] + head_dim),
            is(&alone[at], &alone[at] + head_dim);
        std::vector<double> expected = convert<double>(was);
        const std::int64_t position = row < 3 ? 1000 + row : 7 + row - 3;
        if (head % (group + 2) != group + 1)
          for (std::size_t i = 0; i < rotary / 2; ++i) {
            const auto angle =
                static_cast<double>(exact_angle(position, 10000.f, static_cast<int>(i), rotary));
            const double a = expected[i], b = expected[i + rotary / 2];
            expected[i] = a * std::cos(angle) - b * std::sin(angle);
            expected[i + rotary / 2] = a * std::sin(angle) + b * std::cos(angle);
          }
        CHECK(relative_error(is, expected) <= tolerance);
        const std::size_t kept = head % (group + 2) == group + 1 ? 0 : rotary;
        CHECK(same_bits(std::span(is).subspan(kept), std::span(was).subspan(kept)));
      }
  };
  run(0.f, 4 * unit_roundoff);
  run(0., 1e-12);
}
