#include <samba/kernels/matmul.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

/// Packed as Matrix packs; the rows that fill up the last panel are zero.
template <class T>
std::vector<T> pack(const std::vector<T>& w, std::int64_t N, std::int64_t K) {
  std::vector<T> packed(static_cast<std::size_t>(round_up(N, panel_width) * K));
  for (std::int64_t n = 0; n < N; ++n)
    for (std::int64_t k = 0; k < K; ++k)
      packed[static_cast<std::size_t>(packed_index(n, k, K))] =
          w[static_cast<std::size_t>(n * K + k)];
  return packed;
}

/// Sizes of a product and where its operands stand: elements behind a boundary, gaps between rows.
struct Case {
  int rows, N, K;
  bool bias = true;
  std::size_t w_offset = 0, x_offset = 0, out_offset = 0, bias_offset = 0, gap = 0;
};

/// simd and reference against a plain loop over the unpacked matrix in double.
void check(const Case& c, Random& rng) {
  CAPTURE(rng.seed, c.rows, c.N, c.K, c.bias, c.w_offset, c.x_offset, c.out_offset, c.bias_offset,
          c.gap);
  const auto rows = static_cast<std::size_t>(c.rows), N = static_cast<std::size_t>(c.N),
             K = static_cast<std::size_t>(c.K);
  const auto w = rng.values(N * K), x = rng.values(rows * K), bias = rng.values(N);

  std::vector<double> exact(rows * N), magnitude(rows * N);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t n = 0; n < N; ++n) {
      double sum = c.bias ? double{bias[n]} : 0, absolute = std::abs(sum);
      for (std::size_t k = 0; k < K; ++k) {
        const double product = double{x[i * K + k]} * double{w[n * K + k]};
        sum += product, absolute += std::abs(product);
      }
      exact[i * N + n] = sum, magnitude[i * N + n] = absolute;
    }

  const auto product = [&]<class T>(T, auto kernel) {
    const Guarded<T> packed(pack(convert<T>(w), c.N, c.K), c.w_offset);
    const Guarded<T> in(convert<T>(x), rows, c.gap, c.x_offset);
    const Guarded<T> b(convert<T>(bias), c.bias_offset);
    const Guarded<T> out(rows, N, N + c.gap, c.out_offset);
    kernel(MatmulArgs<T>{packed.data(), c.bias ? b.data() : nullptr, in.data(), in.stride(),
                         out.data(), out.stride(), c.rows, c.N, c.K},
           Range{0, (c.N + panel_width - 1) / panel_width});
    CHECK(out.guarded());
    return out.values();
  };
  const auto simd = product(0.f, [](auto a, Range p) { simd::matmul(a, p); });
  const auto naive = product(0.f, [](auto a, Range p) { reference::matmul(a, p); });
  const auto naive_double = product(0., [](auto a, Range p) { reference::matmul(a, p); });

  // Each of the K roundings is at most a unit roundoff of a partial sum, which for random signs is
  // about 1 / sqrt(K) of the sum of magnitudes; sqrt(K) of them add up to about one.
  CHECK(error_to(simd, exact, magnitude) <=
        2 * error_to(naive, exact, magnitude) + 4 * unit_roundoff);
  CHECK(error_to(naive, exact, magnitude) <= (c.K + 1) * unit_roundoff);
  CHECK(error_to(naive_double, exact, magnitude) <= 1e-15);
}

/// A bound matrix with its memory.
template <class T, int N, int K>
struct Owned {
  Arena arena{Matrix<T, N, K>::bytes};
  Matrix<T, N, K> matrix;

  explicit Owned(const std::vector<T>& w) {
    matrix.bind(arena.data());
    for (int n = 0; n < N; ++n) matrix.set_row(n, w.data() + std::ptrdiff_t{n} * K);
  }
};

constexpr int any_N = 5 * panel_width - 3, any_K = 37;  // five panels, the last one partial

}  // namespace

TEST_CASE("matmul: simd against reference, every number of outputs") {
  Random rng;
  for (int N = 1; N <= 3 * vector_floats + 1; ++N)
    for (const int rows : {1, 3, 13})
      check({.rows = rows, .N = N, .K = 19, .bias = N % 2 == 0}, rng);
}

TEST_CASE("matmul: simd against reference, every number of inputs") {
  Random rng;
  for (int K = 1; K <= 3 * vector_floats + 1; ++K)
    for (const int rows : {1, 4}) check({.rows = rows, .N = panel_width + 3, .K = K}, rng);
}

TEST_CASE("matmul: simd against reference, every number of rows") {
  Random rng;
  for (int rows = 1; rows <= 2 * simd::matmul_rows + 1; ++rows)
    for (const bool bias : {false, true})
      check({.rows = rows, .N = panel_width + vector_floats - 1, .K = 11, .bias = bias}, rng);
}

TEST_CASE("matmul: simd against reference, a long sum") {
  Random rng;
  check({.rows = 7, .N = 2 * panel_width, .K = 3001}, rng);
}

TEST_CASE("matmul: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    const Case c{.rows = 5, .N = 2 * panel_width - 1, .K = 9, .gap = offset % 3};
    for (auto place : {&Case::w_offset, &Case::x_offset, &Case::out_offset, &Case::bias_offset}) {
      Case moved = c;
      moved.*place = offset;
      check(moved, rng);
    }
    Case together = c;
    together.w_offset = together.x_offset = together.out_offset = together.bias_offset = offset;
    check(together, rng);
  }
}

TEST_CASE("matmul: rows together are the rows alone, bit for bit") {
  Random rng;
  CAPTURE(rng.seed);
  const Owned<float, any_N, any_K> w(rng.values(any_N * any_K));
  const auto bias = rng.values(any_N);
  for (int rows = 1; rows <= 25; ++rows) {
    CAPTURE(rows);
    const auto x = rng.values(static_cast<std::size_t>(rows * any_K));
    std::vector<float> together(static_cast<std::size_t>(rows * any_N)), alone(together.size());
    kernels::matmul(Team{}, w.matrix, bias.data(), {x.data(), rows}, {together.data(), rows});
    for (std::int64_t i = 0; i < rows; ++i)
      kernels::matmul(Team{}, w.matrix, bias.data(), {x.data() + i * any_K, 1},
                      {alone.data() + i * any_N, 1});
    CHECK(same_result(together, alone));
  }
}

TEST_CASE("matmul: the same bits for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int rows = 14;
  const auto run = [&]<class T>(T) {
    const auto values = rng.values<T>(any_N * any_K);
    const Owned<T, any_N, any_K> w(values);
    const auto x = rng.values<T>(rows * any_K), bias = rng.values<T>(any_N);
    const auto product = [&](int threads) {
      std::vector<T> out(rows * any_N);
      parallel(threads, [&](Team team) {
        kernels::matmul(team, w.matrix, bias.data(), {x.data(), rows}, {out.data(), rows});
      });
      return out;
    };
    const auto alone = product(1);
    std::vector<T> expected;
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t n = 0; n < any_N; ++n) {
        T sum = bias[n];
        for (std::size_t k = 0; k < any_K; ++k) sum += x[i * any_K + k] * values[n * any_K + k];
        expected.push_back(sum);
      }
    CHECK(relative_error(alone, expected) < 1e-6);
    for (int threads = 2; threads <= 4; ++threads) {
      CAPTURE(threads);
      CHECK(same_result(product(threads), alone));
    }
  };
  run(0.f);
  run(0.);
}

TEST_CASE("matmul: panels of a team member are the only ones written") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int panels = 5;
  const auto w = pack(rng.values(any_N * any_K), any_N, any_K), x = rng.values(any_K);
  for (int first = 0; first < panels; ++first) {
    CAPTURE(first);
    const Guarded<float> out(1, any_N, any_N, 0), untouched(1, any_N, any_N, 0);
    simd::matmul(
        MatmulArgs<float>{w.data(), nullptr, x.data(), any_K, out.data(), any_N, 1, any_N, any_K},
        {first, first + 1});
    for (int n = 0; n < any_N; ++n) {
      const bool written = std::memcmp(out.data() + n, untouched.data(), sizeof(float)) != 0;
      CHECK(written == (n / panel_width == first));
    }
    CHECK(out.guarded());
  }
}

TEST_CASE("matmul: without a bias the same as with zeros") {
  Random rng;
  CAPTURE(rng.seed);
  const Owned<float, any_N, any_K> w(rng.values(any_N * any_K));
  const auto x = rng.values(2 * any_K);
  const std::vector<float> zeros(any_N);
  std::vector<float> with(2 * any_N), without(2 * any_N);
  kernels::matmul(Team{}, w.matrix, zeros.data(), {x.data(), 2}, {with.data(), 2});
  kernels::matmul(Team{}, w.matrix, {x.data(), 2}, {without.data(), 2});
  CHECK(same_result(with, without));
}
