#include <samba/interop/eigen.hpp>
#include <samba/kernels/cpu/matmul.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

/// Packed as Matrix packs; the rows that fill up the last panel are zero.
template <class T>
std::vector<T> pack(const std::vector<Real<T>>& w, std::int64_t N, std::int64_t K) {
  std::vector<T> packed(static_cast<std::size_t>(Packing<T>::bytes(N, K)) / sizeof(T));
  for (std::int64_t n = 0; n < N; ++n) Packing<T>::set_row(packed.data(), n, K, w.data() + n * K);
  return packed;
}

/// Sizes of a product and where its operands stand: elements behind a boundary, gaps between rows.
struct Case {
  int rows, N, K;
  bool bias = true;
  std::size_t w_offset = 0, x_offset = 0, out_offset = 0, bias_offset = 0, gap = 0;
};

/// Rows of K values that a product with matrices of T takes without rounding: for int8 and q4
/// integers, of which the first of every 32 is the largest, so that all scales are one.
template <class T>
std::vector<float> held(std::vector<float> values, std::size_t K) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    float& x = values[i];
    if constexpr (std::is_same_v<T, int8> || std::is_same_v<T, q4>)
      x = i % K % 32 == 0 ? 127.f : std::round(127 * x);
    else
      x = static_cast<float>(static_cast<T>(x));
  }
  return values;
}

/// Weights that a matrix of T holds without rounding: for q4 integers of which the first two of every
/// 32 are the smallest and the largest, so that all scales are one.
template <class T>
std::vector<float> held_weights(std::vector<float> values, std::size_t K) {
  if constexpr (!std::is_same_v<T, q4>) return held<T>(std::move(values), K);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = i % K % 32 == 0   ? -8.f
                : i % K % 32 == 1 ? 7.f
                                  : std::clamp(std::round(8 * values[i]), -8.f, 7.f);
  return values;
}

/// Values in rows of `cols` as a matrix in double: what Eigen computes from such is the oracle.
Eigen::MatrixXd in_double(const std::vector<float>& values, std::size_t cols) {
  return as_eigen(std::span(values), static_cast<std::int64_t>(cols)).cast<double>();
}

/// simd and reference for a matrix of T against Eigen's product of the unpacked matrix in double. The
/// factors are what T holds, so that rounding them makes no difference.
template <class T>
void check_as(const Case& c, Random& rng) {
  CAPTURE(rng.seed, sizeof(T), c.rows, c.N, c.K, c.bias, c.w_offset, c.x_offset, c.out_offset,
          c.bias_offset, c.gap);
  const auto rows = static_cast<std::size_t>(c.rows), N = static_cast<std::size_t>(c.N),
             K = static_cast<std::size_t>(c.K);
  const auto w = held_weights<T>(rng.values(N * K), K), x = held<T>(rng.values(rows * K), K);
  const auto bias = rng.values(N);

  const Eigen::MatrixXd X = in_double(x, K), W = in_double(w, K),
                        added = in_double(bias, N) * c.bias;
  std::vector<double> exact(rows * N), magnitude(rows * N);
  as_eigen(std::span(exact), c.N) = (X * W.transpose()).rowwise() + added.row(0);
  as_eigen(std::span(magnitude), c.N) =
      (X.cwiseAbs() * W.cwiseAbs().transpose()).rowwise() + added.cwiseAbs().row(0);

  const auto product = [&]<class Stored>(Stored, auto kernel) {
    using R = Real<Stored>;
    // Blocks of int8 hold floats, those of q4 halves: they stand where floats can.
    const std::size_t offset = c.w_offset * (sizeof(Stored) == 1 ? 4 : 1);
    const Guarded<Stored> packed(pack<Stored>(convert<R>(w), c.N, c.K), offset);
    const Guarded<R> in(convert<R>(x), rows, c.gap, c.x_offset);
    const Guarded<R> b(convert<R>(bias), c.bias_offset);
    const Guarded<R> out(rows, N, N + c.gap, c.out_offset);
    kernel(MatmulArgs<Stored>{.w = packed.data(),
                              .bias = c.bias ? b.data() : nullptr,
                              .x = in.data(),
                              .x_stride = in.stride(),
                              .out = out.data(),
                              .out_stride = out.stride(),
                              .rows = c.rows,
                              .N = c.N,
                              .K = c.K},
           Range{0, (c.N + panel_width - 1) / panel_width});
    CHECK(out.guarded());
    return out.values();
  };
  const auto simd = product(T(0.f), [](auto a, Range p) { simd::matmul(a, p); });
  const auto naive = product(T(0.f), [](auto a, Range p) { reference::matmul(a, p); });
  const auto naive_double = product(0., [](auto a, Range p) { reference::matmul(a, p); });

  // Each of the K roundings is at most a unit roundoff of a partial sum, which for random signs is
  // about 1 / sqrt(K) of the sum of magnitudes; sqrt(K) of them add up to about one.
  CHECK(error_to(simd, exact, magnitude) <=
        2 * error_to(naive, exact, magnitude) + 4 * unit_roundoff);
  CHECK(error_to(naive, exact, magnitude) <= (c.K + 1) * unit_roundoff);
  CHECK(error_to(naive_double, exact, magnitude) <= 1e-15);
}

void check(const Case& c, Random& rng) {
  check_as<float>(c, rng);
  check_as<bf16>(c, rng);
  check_as<int8>(c, rng);
  check_as<q4>(c, rng);
}

constexpr int any_N = 5 * panel_width - 3, any_K = 37;  // five panels, the last one partial

/// The context of an operation with matrices of T, which reads no segments.
template <class T>
Context<Policy<T>> context(Team team = {}) {
  return {{{}, 0}, {team}};
}

/// A bias in memory of its own.
template <class R>
Vector<R, any_N> as_vector(std::vector<R>& values) {
  Vector<R, any_N> vector;
  vector.bind(reinterpret_cast<std::byte*>(values.data()));
  return vector;
}

/// A bound matrix with its memory.
template <class T, int N, int K>
struct Owned {
  Arena arena{Matrix<T, N, K>::bytes};
  Matrix<T, N, K> matrix;

  explicit Owned(const std::vector<Real<T>>& w) {
    matrix.bind(arena.data());
    for (int n = 0; n < N; ++n) matrix.set_row(n, w.data() + std::ptrdiff_t{n} * K);
  }
};

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
  for (int rows = 1; rows <= simd::detail::matmul_rows + 3; ++rows)
    for (const bool bias : {false, true})
      check({.rows = rows, .N = panel_width + vector_floats - 1, .K = 11, .bias = bias}, rng);
}

TEST_CASE("matmul: simd against reference, a long sum, many panels") {
  Random rng;
  check({.rows = 7, .N = 2 * panel_width, .K = 3001}, rng);
  check({.rows = 53, .N = 20 * panel_width - 5, .K = 70}, rng);
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

TEMPLATE_TEST_CASE("matmul: rows together are the rows alone, bit for bit", "", float, bf16, int8,
                   q4) {
  Random rng;
  CAPTURE(rng.seed);
  const auto check_rows = [&]<int K>(std::integral_constant<int, K>) {
    const Owned<TestType, any_N, K> w(rng.values(any_N * K));
    auto bias = rng.values(any_N);
    for (const int rows : {1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 23, 24, 25, 50}) {
      CAPTURE(rows, K);
      const auto x = rng.values(static_cast<std::size_t>(rows * K));
      std::vector<float> together(static_cast<std::size_t>(rows * any_N)), alone(together.size());
      kernels::matmul(context<TestType>(), w.matrix, as_vector(bias), {x.data(), rows},
                      {together.data(), rows});
      for (std::int64_t i = 0; i < rows; ++i)
        kernels::matmul(context<TestType>(), w.matrix, as_vector(bias), {x.data() + i * K, 1},
                        {alone.data() + i * any_N, 1});
      CHECK(same_result(together, alone));
    }
  };
  check_rows(std::integral_constant<int, any_K>{});
  check_rows(std::integral_constant<int, 4131>{});  // more than any number of rows takes at once
}

TEMPLATE_TEST_CASE("matmul: a row that T does not hold is off by its rounding, no less", "", bf16,
                   int8, q4) {
  Random rng;
  CAPTURE(rng.seed);
  const auto w = held_weights<TestType>(rng.values(any_N * any_K), any_K);
  const auto x = rng.values(any_K);
  const Owned<TestType, any_N, any_K> matrix(w);
  // bf16: relative to each term; int8 and q4: half a step of the row, 1/254 of its largest number.
  constexpr bool in_steps = !std::is_same_v<TestType, bf16>;
  double largest = 0, off = 0;
  for (const float value : x) largest = std::max(largest, std::abs(double{value}));
  std::vector<float> out(any_N);
  kernels::matmul(context<TestType>(), matrix.matrix, {x.data(), 1}, {out.data(), 1});
  for (std::size_t n = 0; n < any_N; ++n) {
    double sum = 0, magnitude = 0;
    for (std::size_t k = 0; k < any_K; ++k) {
      const double weight = double{w[n * any_K + k]}, product = double{x[k]} * weight;
      sum += product;
      magnitude += in_steps ? std::abs(weight) * largest / 254 : std::abs(product) * 0x1p-9;
    }
    const double error = std::abs(double{out[n]} - sum);
    CHECK(error <= magnitude * 1.001);
    off = std::max(off, error / magnitude);
  }
  CHECK(off > 0.05);  // it is rounded, also where the instructions would not ask for it
}

TEST_CASE("matmul: int8 weights of all 256 codes, -128 among them, with scales of both signs") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int K = 96, rows = 7;
  Owned<int8, any_N, K> w(std::vector<float>(any_N * K));
  auto x = held<int8>(rng.values(rows * K), K);
  std::fill_n(x.begin(), K, 127.f);  // the largest sums
  std::fill_n(x.begin() + K, K, -127.f);
  std::vector<double> exact(rows * any_N);
  for (std::int64_t n = 0; n < any_N; ++n)
    for (std::int64_t block = 0; block < K / 32; ++block) {
      const float scale = n % 3 == 0 ? -0.5f : 2.f;
      int8 q[32];
      for (int k = 0; k < 32; ++k)
        q[k] = n < 8 ? int8(-128) : static_cast<int8>((n * K + block * 32 + k) % 256 - 128);
      Packing<int8>::set_group(w.matrix.data(), n, K, block, scale, q, 32);
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t k = 0; k < 32; ++k)
          exact[static_cast<std::size_t>(i * any_N + n)] +=
              double{scale} * q[k] * double{x[static_cast<std::size_t>(i * K + block * 32 + k)]};
    }
  // Whole numbers of halves below 2^23: no sum is rounded.
  std::vector<float> out(rows * any_N);
  kernels::matmul(context<int8>(), w.matrix, {x.data(), rows}, {out.data(), rows});
  CHECK(std::equal(out.begin(), out.end(), exact.begin()));
  reference::matmul(MatmulArgs<int8>{.w = w.matrix.data(),
                                     .bias = nullptr,
                                     .x = x.data(),
                                     .x_stride = K,
                                     .out = out.data(),
                                     .out_stride = any_N,
                                     .rows = rows,
                                     .N = any_N,
                                     .K = K},
                    Range{0, (any_N + panel_width - 1) / panel_width});
  CHECK(std::equal(out.begin(), out.end(), exact.begin()));
}

TEMPLATE_TEST_CASE("matmul: quantised rows of zeros, and of numbers too small for a scale", "",
                   int8, q4) {
  Random rng;
  CAPTURE(rng.seed);
  const Owned<TestType, any_N, any_K> w(rng.values(any_N * any_K));
  auto bias = rng.values(any_N);
  std::vector<float> x(2 * any_K), out(2 * any_N);
  std::fill(x.begin() + any_K, x.end(), 1e-38f);
  kernels::matmul(context<TestType>(), w.matrix, as_vector(bias), {x.data(), 2}, {out.data(), 2});
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == bias[i % any_N]);
}

TEMPLATE_TEST_CASE("matmul: a number that is not finite shows in its row, in its output", "", float,
                   bf16, int8, q4) {
  using T = TestType;
  Random rng;
  constexpr int N = 70, K = 100, rows = 9;
  const auto nan = std::bit_cast<float>(0x7fc00000u), infinite = std::bit_cast<float>(0x7f800000u);
  const auto check_outputs = [&](const std::vector<float>& x, const std::vector<float>& w,
                                 auto hit) {
    const auto packed = pack<T>(w, N, K);
    const auto check_kernel = [&](auto kernel) {
      std::vector<float> out(rows * N);
      kernel(MatmulArgs<T>{.w = packed.data(),
                           .bias = nullptr,
                           .x = x.data(),
                           .x_stride = K,
                           .out = out.data(),
                           .out_stride = N,
                           .rows = rows,
                           .N = N,
                           .K = K},
             Range{0, 3});
      for (int i = 0; i < rows; ++i)
        for (int n = 0; n < N; ++n) {
          CAPTURE(i, n);
          CHECK(is_finite(out[static_cast<std::size_t>(i * N + n)]) == !hit(i, n));
        }
    };
    check_kernel([](auto a, Range p) { simd::matmul(a, p); });
    check_kernel([](auto a, Range p) { reference::matmul(a, p); });
  };
  for (const float bad : {nan, infinite, -infinite})
    for (const int at : {0, 31, K - 1}) {
      const int row = rng.below(rows), output = rng.below(N);
      CAPTURE(rng.seed, bad, at, row, output);
      auto x = rng.values(rows * K), w = rng.values(N * K);
      x[static_cast<std::size_t>(row * K + at)] = bad;
      check_outputs(x, w, [&](int i, int) { return i == row; });
      x = rng.values(rows * K);
      w[static_cast<std::size_t>(output * K + at)] = bad;
      check_outputs(x, w, [&](int, int n) { return n == output; });
    }
}

TEST_CASE("matmul: the same bits for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int rows = 14;
  const auto run = [&]<class T>(T) {
    using R = Real<T>;
    const auto values = convert<R>(held_weights<T>(rng.values(any_N * any_K), any_K));
    const Owned<T, any_N, any_K> w(values);
    const auto x = convert<R>(held<T>(rng.values(rows * any_K), any_K));
    auto bias = rng.values<R>(any_N);
    const auto product = [&](int threads) {
      std::vector<R> out(rows * any_N);
      parallel(threads, [&](Team team) {
        kernels::matmul(context<T>(team), w.matrix, as_vector(bias), {x.data(), rows},
                        {out.data(), rows});
      });
      return out;
    };
    const auto alone = product(1);
    std::vector<R> expected;
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t n = 0; n < any_N; ++n) {
        R sum = bias[n];
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
  run(bf16(0.f));
  run(int8(0));
  run(q4());
  run(0.);
}

TEST_CASE("matmul: panels of a team member are the only ones written") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int panels = 5;
  const auto w = pack<float>(rng.values(any_N * any_K), any_N, any_K), x = rng.values(any_K);
  for (int first = 0; first < panels; ++first) {
    CAPTURE(first);
    const Guarded<float> out(1, any_N, any_N, 0), untouched(1, any_N, any_N, 0);
    simd::matmul(MatmulArgs<float>{.w = w.data(),
                                   .bias = nullptr,
                                   .x = x.data(),
                                   .x_stride = any_K,
                                   .out = out.data(),
                                   .out_stride = any_N,
                                   .rows = 1,
                                   .N = any_N,
                                   .K = any_K},
                 {first, first + 1});
    for (int n = 0; n < any_N; ++n) {
      const bool written = std::memcmp(out.data() + n, untouched.data(), sizeof(float)) != 0;
      CHECK(written == (n / panel_width == first));
    }
    CHECK(out.guarded());
  }
}

TEST_CASE("matmul: no rows, nothing written") {
  Random rng;
  CAPTURE(rng.seed);
  const auto check_type = [&]<class T>(T) {
    const Owned<T, any_N, any_K> w(rng.values(any_N * any_K));
    const Guarded<float> out(0, any_N, any_N, 0);
    const float x = 0;
    kernels::matmul(context<T>(), w.matrix, {&x, 0}, {out.data(), 0});
    CHECK(out.guarded());
  };
  check_type(0.f);
  check_type(bf16());
  check_type(int8());
  check_type(q4());
}

TEST_CASE("matmul: without a bias the same as with zeros") {
  Random rng;
  CAPTURE(rng.seed);
  const Owned<float, any_N, any_K> w(rng.values(any_N * any_K));
  const auto x = rng.values(2 * any_K);
  std::vector<float> zeros(any_N);
  std::vector<float> with(2 * any_N), without(2 * any_N);
  kernels::matmul(context<float>(), w.matrix, as_vector(zeros), {x.data(), 2}, {with.data(), 2});
  kernels::matmul(context<float>(), w.matrix, {x.data(), 2}, {without.data(), 2});
  CHECK(same_result(with, without));
  kernels::matmul(context<float>(), w.matrix, Vector<float, any_N>{}, {x.data(), 2},
                  {without.data(), 2});
  CHECK(same_result(with, without));
}

namespace {

/// The gradients of simd and reference against Eigen's in double, dx and dw added to what was there.
template <class T>
void check_backward(int rows_, int N_, int K_, Random& rng) {
  CAPTURE(rng.seed, sizeof(T), rows_, N_, K_);
  const auto rows = static_cast<std::size_t>(rows_), N = static_cast<std::size_t>(N_),
             K = static_cast<std::size_t>(K_);
  const auto w = held<T>(rng.values(N * K), K), x = held<T>(rng.values(rows * K), K),
             dout = held<T>(rng.values(rows * N), N);
  const auto old_dx = rng.values(rows * K), old_dw = rng.values(N * K), old_dbias = rng.values(N);

  // dx, dw and dbias, of the numbers or of their magnitudes.
  const auto gradients_in_double = [&](bool add, auto of) {
    const auto W = of(in_double(w, K)), X = of(in_double(x, K)), D = of(in_double(dout, N));
    const auto values = [](const EigenMatrix<double>& m) {
      return std::vector<double>(m.data(), m.data() + m.size());
    };
    return std::array{values((add ? 1. : 0.) * of(in_double(old_dx, K)) + D * W),
                      values(of(in_double(old_dw, K)) + D.transpose() * X),
                      values(of(in_double(old_dbias, N)) + D.colwise().sum())};
  };
  for (const bool add : {false, true}) {
    const auto gradients = [&](auto input, auto weight, const std::vector<Range>& shares) {
      const Guarded<T> packed(pack<T>(w, N_, K_), 0);
      const Guarded<float> in(x, rows, 3, 1), d(dout, rows, 5, 2);
      const Guarded<float> dx(old_dx, rows, 1, 3), dw(old_dw, 1), dbias(old_dbias, 2);
      const MatmulBackwardArgs<T> args{.w = packed.data(),
                                       .x = in.data(),
                                       .x_stride = in.stride(),
                                       .dout = d.data(),
                                       .dout_stride = d.stride(),
                                       .dw = dw.data(),
                                       .dbias = dbias.data(),
                                       .dx = dx.data(),
                                       .dx_stride = dx.stride(),
                                       .add = add,
                                       .rows = rows_,
                                       .N = N_,
                                       .K = K_};
      input(args, Range{0, (K_ + panel_width - 1) / panel_width});
      for (const Range& share : shares) weight(args, share);
      CHECK((dx.guarded() && dw.guarded() && dbias.guarded()));
      return std::array{dx.values(), dw.values(), dbias.values()};
    };
    const std::vector<Range> all{{0, N_}}, two{{0, N_ / 3}, {N_ / 3, N_}};
    const auto fast_input = [](auto a, Range r) { simd::matmul_backward_input(a, r); };
    const auto fast_weight = [](auto a, Range r) { simd::matmul_backward_weight(a, r); };
    const auto fast = gradients(fast_input, fast_weight, all),
               shared = gradients(fast_input, fast_weight, two);
    const auto naive =
        gradients([](auto a, Range r) { reference::matmul_backward_input(a, r); },
                  [](auto a, Range r) { reference::matmul_backward_weight(a, r); }, all);
    const auto exact = gradients_in_double(add, [](Eigen::MatrixXd m) { return m; });
    const auto magnitude =
        gradients_in_double(add, [](Eigen::MatrixXd m) -> Eigen::MatrixXd { return m.cwiseAbs(); });
    for (std::size_t t = 0; t < 3; ++t) {
      CAPTURE(add, t);
      CHECK(error_to(fast[t], exact[t], magnitude[t]) <=
            2 * error_to(naive[t], exact[t], magnitude[t]) + 4 * unit_roundoff);
      CHECK(error_to(naive[t], exact[t], magnitude[t]) <=
            static_cast<double>(rows + N + 1) * unit_roundoff);
      CHECK(same_result(fast[t], shared[t]));
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("matmul: gradients, simd against reference", "", float, bf16) {
  Random rng;
  for (const int rows : {1, 2, 13, 49, 257})
    for (const int N : {1, 31, 33, 100})
      for (const int K : {1, 31, 32, 77}) check_backward<TestType>(rows, N, K, rng);
  check_backward<TestType>(70, 515, 64, rng);  // more outputs than are packed at once
  check_backward<TestType>(50, 40, 589, rng);  // more inputs
}

TEST_CASE("matmul: gradients of an operation, written or added, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const auto run = [&]<class T>(T) {
    using R = Real<T>;
    // 150 rows are shared out by rows, 7 by panels of inputs.
    for (const int rows : {7, 150}) {
      const auto count = static_cast<std::size_t>(rows);
      const Owned<T, any_N, any_K> w(rng.values<R>(any_N * any_K));
      const auto x = rng.values<R>(count * any_K), dout = rng.values<R>(count * any_N),
                 old_dx = rng.values<R>(count * any_K), old = rng.values<R>(any_N * (any_K + 1));
      const auto gradients = [&](int threads, bool add, bool with_bias) {
        auto dx = old_dx, sums = old;
        Matrix<RowMajor<R>, any_N, any_K> dw;
        dw.bind(reinterpret_cast<std::byte*>(sums.data()));
        const Rows<R, any_K> to{dx.data(), rows};
        parallel(threads, [&](Team team) {
          matmul_backward(
              context<T>(team), w.matrix,
              {.x = {x.data(), rows},
               .dout = {dout.data(), rows},
               .dw = dw,
               .dbias = with_bias ? sums.data() + any_N * any_K : nullptr,
               .dx = add ? WrittenOrAdded<R, any_K>(add_to(to)) : WrittenOrAdded<R, any_K>(to)});
        });
        return std::pair(dx, sums);
      };
      const auto [written, sums] = gradients(1, false, true);
      const auto [added, same_sums] = gradients(1, true, true);
      const auto [same_written, sums_without] = gradients(1, false, false);
      CHECK(same_result(sums, same_sums));
      CHECK(same_result(written, same_written));
      std::vector<R> sum = old_dx;
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += written[i];
      // The old value and the products, a sum of up to N, are added in another order.
      CHECK(relative_error(added, sum) <= (any_N + 1) * unit_roundoff);
      CHECK(relative_error(written, added) > 0.01);
      const auto bias_of = [](const std::vector<R>& all) {
        return std::vector<R>(all.begin() + any_N * any_K, all.end());
      };
      CHECK(same_bits(bias_of(sums_without), bias_of(old)));
      auto dbias = convert<double>(bias_of(old));
      for (std::size_t i = 0; i < dout.size(); ++i)
        dbias[i % any_N] += static_cast<double>(dout[i]);
      CHECK(relative_error(bias_of(sums), dbias) <= rows * unit_roundoff);
      for (int threads = 2; threads <= 4; ++threads) {
        CAPTURE(sizeof(T), rows, threads);
        for (const bool add : {false, true}) {
          const auto [dx, all] = gradients(threads, add, true);
          CHECK(same_result(dx, add ? added : written));
          CHECK(same_result(all, sums));
        }
      }
    }
  };
  run(0.f);
  run(bf16(0.f));
  run(0.);
}
