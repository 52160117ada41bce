#include <samba/kernels/rmsnorm.hpp>

#include <tests/catch.hpp>
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
    for (std::int64_t i = 0; i < rows; ++i)
      kernels::rmsnorm(Team{}, weight, 1e-5f, {x.data() + i * n, 1}, {alone.data() + i * n, 1});
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> out(rows * n);
      parallel(threads, [&](Team team) {
        kernels::rmsnorm(team, weight, 1e-5f, {x.data(), rows}, {out.data(), rows});
      });
      CHECK(same_result(out, alone));
    }
  };
  run(0.f);
  run(0.);
}
