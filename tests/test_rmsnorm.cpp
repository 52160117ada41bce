#include <samba/kernels/cpu/rmsnorm.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

std::vector<double> exact_norm(const std::vector<float>& x, const std::vector<float>& w,
                               float eps) {
  double sum = 0;
  for (const float v : x) sum += double{v} * double{v};
  const double root = std::sqrt(sum / static_cast<double>(x.size()) + double{eps});
  std::vector<double> y;
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(double{x[i]} / root * double{w[i]});
  return y;
}

void check(const std::vector<float>& x, const std::vector<float>& w, float eps,
           std::size_t x_offset = 0, std::size_t w_offset = 0, std::size_t out_offset = 0) {
  CAPTURE(x.size(), eps, x_offset, w_offset, out_offset);
  const auto n = static_cast<std::int64_t>(x.size());
  const Guarded<float> in(x, x_offset), weight(w, w_offset), out(x.size(), out_offset);
  simd::rmsnorm(in.data(), weight.data(), eps, n, out.data());
  std::vector<float> naive(x.size());
  reference::rmsnorm(x.data(), w.data(), eps, n, naive.data());
  std::vector<double> naive_double(x.size());
  reference::rmsnorm(convert<double>(x).data(), convert<double>(w).data(), double{eps}, n,
                     naive_double.data());

  const auto exact = exact_norm(x, w, eps);
  // Square root, division and two products round once each; the sum, of numbers of one sign, is
  // better than the naive one.
  CHECK(relative_error(out.values(), exact) <=
        2 * relative_error(naive, exact) + 4 * unit_roundoff);
  CHECK(relative_error(naive_double, exact) <= 1e-14);
  CHECK(out.guarded());

  simd::rmsnorm(in.data(), weight.data(), eps, n, in.data());  // in place
  CHECK(same_bits(in.values(), out.values()));
  CHECK(in.guarded());
}

/// The gradients of simd and reference for random dout, which are added to what was there.
void check_backward(const std::vector<float>& x, const std::vector<float>& w, float eps,
                    Random& rng, std::size_t x_offset = 0, std::size_t w_offset = 0,
                    std::size_t out_offset = 0) {
  CAPTURE(rng.seed, x.size(), eps, x_offset, w_offset, out_offset);
  const auto n = static_cast<std::int64_t>(x.size());
  const auto dout = rng.values(x.size()), dw0 = rng.values(x.size());
  double squares = 0;
  for (const float v : x) squares += double{v} * double{v};
  const double s = 1 / std::sqrt(squares / static_cast<double>(n) + double{eps});
  const auto dx0 = rng.values(x.size(), -s, s);  // as large as what comes

  std::vector<Sized> dx = sized(dx0), dw = sized(dw0);
  Sized mean;
  for (std::size_t i = 0; i < x.size(); ++i)
    mean += Sized(s * double{x[i]} * double{w[i]} * double{dout[i]} / static_cast<double>(n));
  for (std::size_t i = 0; i < x.size(); ++i) {
    dx[i] += s * (Sized(double{w[i]} * double{dout[i]}) - s * double{x[i]} * mean);
    dw[i] += s * double{x[i]} * double{dout[i]};
  }
  const auto run = [&]<class R>(R, auto inverse, auto backward, auto backward_weight) {
    const Guarded<R> in(convert<R>(x), x_offset), weight(convert<R>(w), w_offset),
        d(convert<R>(dout), out_offset), din(convert<R>(dx0), x_offset),
        dweight(convert<R>(dw0), w_offset);
    const R scale = inverse(in.data(), static_cast<R>(eps), n);
    backward(in.data(), weight.data(), scale, n, d.data(), din.data());
    backward_weight(in.data(), scale, d.data(), Range{0, n}, dweight.data());
    CHECK((din.guarded() && dweight.guarded()));
    return Named<R>{{"dx", din.values()}, {"dweight", dweight.values()}};
  };
  const auto naive = [&](auto zero) {
    return run(
        zero, [](auto... args) { return reference::rms_inverse(args...); },
        [](auto... args) { reference::rmsnorm_backward(args...); },
        [](auto... args) { reference::rmsnorm_backward_weight(args...); });
  };
  const auto fast = run(
      0.f, [](auto... args) { return simd::rms_inverse(args...); },
      [](auto... args) { simd::rmsnorm_backward(args...); },
      [](auto... args) { simd::rmsnorm_backward_weight(args...); });
  check_results({{"dx", dx}, {"dweight", dw}}, fast, naive(0.f), naive(0.), 8 * unit_roundoff);
}

}  // namespace

TEST_CASE("rmsnorm: simd against reference, every size") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check(rng.values(n), rng.values(n, 0.5, 1.5), 1e-5f);
  check(rng.values(1000), rng.values(1000, 0.5, 1.5), 1e-5f);
}

TEST_CASE("rmsnorm: simd against reference, every misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check(rng.values(n), rng.values(n), 1e-5f, offset, 0, 0);
    check(rng.values(n), rng.values(n), 1e-5f, 0, offset, 0);
    check(rng.values(n), rng.values(n), 1e-5f, 0, 0, offset);
    check(rng.values(n), rng.values(n), 1e-5f, offset, offset, offset);
  }
}

TEST_CASE("rmsnorm: small and large values") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr std::size_t n = vector_floats + 5;
  for (const double size : {1e-15, 1e-6, 1e3, 1e17})
    for (const float eps : {1e-12f, 1e-5f, 1.f})
      check(rng.values(n, -size, size), rng.values(n), eps);
}

TEST_CASE("rmsnorm: zeros stay zeros") {
  const std::vector<float> zeros(2 * vector_floats + 1), ones(zeros.size(), 1.f);
  std::vector<float> out(zeros.size(), 7.f);
  simd::rmsnorm(zeros.data(), ones.data(), 1e-5f, static_cast<std::int64_t>(zeros.size()),
                out.data());
  CHECK(out == zeros);
}

TEST_CASE("rmsnorm: rows of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 2 * vector_floats + 3, rows = 9;
  const auto run = [&]<class R>(R) {
    auto w = rng.values<R>(n);
    Vector<R, n> weight;
    weight.bind(reinterpret_cast<std::byte*>(w.data()));
    const auto x = rng.values<R>(rows * n);
    std::vector<R> alone(rows * n);
    const auto norm = [&](Team team, std::int64_t first, std::int64_t count, std::vector<R>& out) {
      const Context<Policy<R>> c{{{}, count}, {team}};
      kernels::rmsnorm<n>(c, {.weight = weight,
                              .eps = 1e-5f,
                              .x = {x.data() + first * n, count},
                              .out = {out.data() + first * n, count}});
    };
    for (std::int64_t i = 0; i < rows; ++i) norm(Team{}, i, 1, alone);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> out(rows * n);
      parallel(threads, [&](Team team) { norm(team, 0, rows, out); });
      CHECK(same_result(out, alone));
    }
  };
  run(0.f);
  run(0.);
}

TEST_CASE("rmsnorm backward: simd against reference, every size and misalignment") {
  Random rng;
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check_backward(rng.values(n), rng.values(n, 0.5, 1.5), 1e-5f, rng);
  check_backward(rng.values(1000), rng.values(1000, 0.5, 1.5), 1e-5f, rng);
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check_backward(rng.values(n), rng.values(n), 1e-5f, rng, offset, 0, 0);
    check_backward(rng.values(n), rng.values(n), 1e-5f, rng, 0, offset, 0);
    check_backward(rng.values(n), rng.values(n), 1e-5f, rng, 0, 0, offset);
    check_backward(rng.values(n), rng.values(n), 1e-5f, rng, offset, offset, offset);
  }
}

TEST_CASE("rmsnorm backward: small and large values") {
  Random rng;
  constexpr std::size_t n = vector_floats + 5;
  for (const double size : {1e-15, 1e-6, 1e3, 1e14, 1e17})
    for (const float eps : {1e-12f, 1e-5f, 1.f}) {
      CAPTURE(size);
      check_backward(rng.values(n, -size, size), rng.values(n), eps, rng);
    }
}

TEST_CASE("rmsnorm backward: the same bits for any number of threads, and for rows one by one") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 2 * vector_floats + 3, rows = 9;
  const auto run = [&]<class R>(R) {
    auto w = rng.values<R>(n);
    Vector<R, n> weight;
    weight.bind(reinterpret_cast<std::byte*>(w.data()));
    const auto x = rng.values<R>(rows * n), dout = rng.values<R>(rows * n);
    const auto gradients = [&](int threads, std::int64_t at_once) {
      std::vector<R> result(rows * n + n, R{0.5}), inverse(rows);
      Vector<R, n> dweight;
      dweight.bind(reinterpret_cast<std::byte*>(result.data() + rows * n));
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, at_once}, {team}};
        for (std::int64_t i = 0; i < rows; i += at_once)
          rmsnorm_backward<n>(c, {.weight = weight,
                                  .eps = 1e-5f,
                                  .x = {x.data() + i * n, at_once},
                                  .dout = {dout.data() + i * n, at_once},
                                  .dx = {result.data() + i * n, at_once},
                                  .dweight = dweight,
                                  .inverse = {inverse.data() + i, at_once}});
      });
      return result;
    };
    const auto alone = gradients(1, 1);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      CHECK(same_result(gradients(threads, rows), alone));
      CHECK(same_result(gradients(threads, 3), alone));
    }
  };
  run(0.f);
  run(0.);
}
