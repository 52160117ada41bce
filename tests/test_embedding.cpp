#include <samba/kernels/cpu/embedding.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;

namespace {

constexpr int vocab = 2 * panel_width + 5, d_model = 2 * vector_floats + 3;

/// Row `tokens[i]` of the table, for every token, and nothing beside.
template <class Weight>
void check() {
  using T = typename Weight::value_type;
  using R = Real<T>;
  Random rng;
  CAPTURE(rng.seed);
  const Arena arena(Weight::bytes);
  Weight table;
  table.bind(arena.data());
  auto values = rng.values<R>(vocab * d_model);
  for (std::int64_t v = 0; v < vocab; ++v) table.set_row(v, values.data() + v * d_model);
  for (R& x : values) x = static_cast<R>(static_cast<T>(x));  // as the table stores them

  std::vector<std::int32_t> tokens{0, vocab - 1, vocab - 1, panel_width, panel_width - 1};
  for (int i = 0; i < 20; ++i) tokens.push_back(rng.below(vocab));
  std::vector<R> expected;
  for (const std::int32_t token : tokens)
    expected.insert(expected.end(), values.begin() + token * d_model,
                    values.begin() + (token + 1) * d_model);

  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    const Guarded<R> out(tokens.size(), d_model, d_model + 2, 1);
    const Rows<R, d_model> rows{out.data(), static_cast<std::int64_t>(tokens.size()), out.stride()};
    parallel(threads, [&](Team team) {
      const Context<Policy<T>> c{{{}, rows.rows}, {team}};
      kernels::embedding(c, table, tokens.data(), rows);
    });
    CHECK(same_bits(out.values(), expected));
    CHECK(out.guarded());

    const R scale = R(0.3);
    std::vector<R> scaled;
    for (const R x : expected) scaled.push_back(scale * x);
    parallel(threads, [&](Team team) {
      const Context<Policy<T>> c{{{}, rows.rows}, {team}};
      kernels::embedding(c, table, tokens.data(), rows, scale);
    });
    CHECK(same_bits(out.values(), scaled));  // one rounding: no tolerance
    CHECK(out.guarded());
  }
}

}  // namespace

TEST_CASE("embedding: rows of a table") {
  check<Table<float, vocab, d_model>>();
  check<Table<double, vocab, d_model>>();
}

TEST_CASE("embedding: rows of the packed matrix of a tied head") {
  check<Matrix<float, vocab, d_model>>();
  check<Matrix<double, vocab, d_model>>();
  check<Matrix<bf16, vocab, d_model>>();
}

TEST_CASE("embedding: gradients are added up in the rows of the tokens, for any threads") {
  Random rng;
  CAPTURE(rng.seed);
  const auto run = [&]<class R>(R) {
    const auto dx = rng.values<R>(25 * d_model), old = rng.values<R>(vocab * d_model);
    std::vector<std::int32_t> tokens{0, vocab - 1, vocab - 1, 3, 0};
    while (tokens.size() < 25) tokens.push_back(rng.below(vocab));
    auto expected = old;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      for (std::size_t d = 0; d < d_model; ++d)
        expected[static_cast<std::size_t>(tokens[i]) * d_model + d] += dx[i * d_model + d];
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      const Guarded<R> in(dx, tokens.size(), 2, 1), sums(old, 1);
      Matrix<RowMajor<R>, vocab, d_model> dtable;
      dtable.bind(reinterpret_cast<std::byte*>(sums.data()));
      const Rows<R, d_model> rows{in.data(), static_cast<std::int64_t>(tokens.size()), in.stride()};
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, rows.rows}, {team}};
        kernels::embedding_backward(c, tokens.data(), rows, dtable);
      });
      CHECK(same_bits(sums.values(), expected));  // in the order of tokens: no tolerance
      CHECK((sums.guarded() && in.guarded()));

      const Guarded<R> scaled(old, 1);
      dtable.bind(reinterpret_cast<std::byte*>(scaled.data()));
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, rows.rows}, {team}};
        kernels::embedding_backward(c, tokens.data(), rows, dtable, R{4});
      });
      auto four_times = old;  // a power of two: the products are exact
      for (std::size_t i = 0; i < tokens.size(); ++i)
        for (std::size_t d = 0; d < d_model; ++d)
          four_times[static_cast<std::size_t>(tokens[i]) * d_model + d] +=
              R{4} * dx[i * d_model + d];
      CHECK(same_bits(scaled.values(), four_times));
      CHECK(scaled.guarded());
    }
  };
  run(0.f);
  run(0.);
}
