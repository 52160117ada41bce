#include <samba/kernels/cpu/layernorm.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

/// The mean of a row, and 1 / sqrt(variance + eps), in double.
RowStatistics<double> exact_statistics(const std::vector<float>& x, float eps) {
  const auto n = static_cast<double>(x.size());
  double sum = 0, squares = 0;
  for (const float v : x) sum += double{v};
  for (const float v : x) squares += (double{v} - sum / n) * (double{v} - sum / n);
  return {sum / n, 1 / std::sqrt(squares / n + double{eps})};
}

struct Places {
  std::size_t x = 0, weight = 0, out = 0;
};

void check(const std::vector<float>& x, const std::vector<float>& w, const std::vector<float>& bias,
           float eps, Places places = {}) {
  CAPTURE(x.size(), bias.size(), eps, places.x, places.weight, places.out);
  const auto n = static_cast<std::int64_t>(x.size());
  const auto [mean, inverse] = exact_statistics(x, eps);
  std::vector<double> exact, sizes;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double b = bias.empty() ? 0 : double{bias[i]}, y = inverse * double{w[i]};
    exact.push_back((double{x[i]} - mean) * y + b);
    // The difference from the mean rounds relative to these.
    sizes.push_back((std::abs(double{x[i]}) + std::abs(mean)) * std::abs(y) + std::abs(b));
  }
  const auto run = [&]<class R>(R, auto norm) {
    const Guarded<R> in(convert<R>(x), places.x), weight(convert<R>(w), places.weight),
        offset(convert<R>(bias), places.weight), out(x.size(), places.out);
    norm(in.data(), weight.data(), bias.empty() ? nullptr : offset.data(), static_cast<R>(eps), n,
         out.data());
    CHECK(out.guarded());
    norm(in.data(), weight.data(), bias.empty() ? nullptr : offset.data(), static_cast<R>(eps), n,
         in.data());
    CHECK((same_bits(in.values(), out.values()) && in.guarded()));
    return out.values();
  };
  const auto naive = [](auto... args) { reference::layernorm(args...); };
  const auto fast = run(0.f, [](auto... args) { simd::layernorm(args...); });
  CHECK(error_to(fast, exact, sizes) <=
        2 * error_to(run(0.f, naive), exact, sizes) + 8 * unit_roundoff);
  CHECK(error_to(run(0., naive), exact, sizes) <= 1e-14);
}

/// The gradients of simd and reference for random dout, which are added to what was there.
void check_backward(const std::vector<float>& x, const std::vector<float>& w, float eps,
                    Random& rng, Places places = {}) {
  CAPTURE(rng.seed, x.size(), eps, places.x, places.weight, places.out);
  const auto n = static_cast<std::int64_t>(x.size());
  const auto dout = rng.values(x.size()), dw0 = rng.values(x.size()), db0 = rng.values(x.size());
  const auto [mean, inverse] = exact_statistics(x, eps);
  const auto dx0 = rng.values(x.size(), -inverse, inverse);  // as large as what comes

  std::vector<Sized> dx = sized(dx0), dw = sized(dw0), db = sized(db0), y;
  Sized mean_g, along;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double away = double{x[i]} - mean;
    y.emplace_back(away * inverse, (std::abs(double{x[i]}) + std::abs(mean)) * inverse);
    const Sized g(double{w[i]} * double{dout[i]} / static_cast<double>(n));
    mean_g += g;
    along += g * y[i];
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    dx[i] += Sized(inverse) * (Sized(double{w[i]} * double{dout[i]}) - mean_g - y[i] * along);
    dw[i] += y[i] * Sized(double{dout[i]});
    db[i] += double{dout[i]};
  }
  const auto run = [&]<class R>(R, auto statistics, auto backward, auto backward_weight) {
    const Guarded<R> in(convert<R>(x), places.x), weight(convert<R>(w), places.weight),
        d(convert<R>(dout), places.out), din(convert<R>(dx0), places.x),
        dweight(convert<R>(dw0), places.weight), dbias(convert<R>(db0), places.out);
    const RowStatistics<R> s = statistics(in.data(), static_cast<R>(eps), n);
    backward(in.data(), weight.data(), s, n, d.data(), din.data());
    backward_weight(in.data(), s, d.data(), Range{0, n}, dweight.data(), dbias.data());
    CHECK((din.guarded() && dweight.guarded() && dbias.guarded()));
    return Named<R>{{"dx", din.values()}, {"dweight", dweight.values()}, {"dbias", dbias.values()}};
  };
  const auto naive = [&](auto zero) {
    return run(
        zero, [](auto... args) { return reference::row_statistics(args...); },
        [](auto... args) { reference::layernorm_backward(args...); },
        [](auto... args) { reference::layernorm_backward_weight(args...); });
  };
  const auto fast = run(
      0.f, [](auto... args) { return simd::row_statistics(args...); },
      [](auto... args) { simd::layernorm_backward(args...); },
      [](auto... args) { simd::layernorm_backward_weight(args...); });
  check_results({{"dx", dx}, {"dweight", dw}, {"dbias", db}}, fast, naive(0.f), naive(0.),
                16 * unit_roundoff);
}

}  // namespace

TEST_CASE("layernorm: simd against reference, every size and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n) {
    check(rng.values(n), rng.values(n, 0.5, 1.5), rng.values(n), 1e-5f);
    check(rng.values(n, 2, 5), rng.values(n, 0.5, 1.5), {}, 1e-5f);  // far from 0
  }
  check(rng.values(1000), rng.values(1000, 0.5, 1.5), rng.values(1000), 1e-5f);
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t i = 0; i < vector_floats; ++i)
    for (const Places places : {Places{i, 0, 0}, {0, i, 0}, {0, 0, i}, {i, i, i}})
      check(rng.values(n), rng.values(n), rng.values(n), 1e-5f, places);
}

TEST_CASE("layernorm: small and large values") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr std::size_t n = vector_floats + 5;
  for (const double size : {1e-15, 1e-6, 1e3, 1e17})
    for (const float eps : {1e-12f, 1e-5f, 1.f})
      check(rng.values(n, -size, size), rng.values(n), {}, eps);
}

TEST_CASE("layernorm: equal numbers become the bias") {
  const std::vector<float> x(2 * vector_floats + 1, 3.f), ones(x.size(), 1.f);
  std::vector<float> bias(x.size()), out(x.size(), 7.f);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  simd::layernorm(x.data(), ones.data(), bias.data(), 1e-5f, std::ssize(x), out.data());
  CHECK(out == bias);
}

TEST_CASE("layernorm backward: simd against reference, every size and misalignment") {
  Random rng;
  for (std::size_t n = 2; n <= 3 * vector_floats + 1; ++n)
    check_backward(rng.values(n), rng.values(n, 0.5, 1.5), 1e-5f, rng);
  check_backward(rng.values(1000, 1, 3), rng.values(1000, 0.5, 1.5), 1e-5f, rng);
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t i = 0; i < vector_floats; ++i)
    for (const Places places : {Places{i, 0, 0}, {0, i, 0}, {0, 0, i}, {i, i, i}})
      check_backward(rng.values(n), rng.values(n), 1e-5f, rng, places);
}

TEST_CASE("layernorm: the same bits for any number of threads, and for rows one by one") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 2 * vector_floats + 3, rows = 9;
  const auto run = [&]<class R>(R) {
    auto w = rng.values<R>(n), b = rng.values<R>(n);
    Vector<R, n> weight, bias;
    weight.bind(reinterpret_cast<std::byte*>(w.data()));
    bias.bind(reinterpret_cast<std::byte*>(b.data()));
    const auto x = rng.values<R>(rows * n), dout = rng.values<R>(rows * n);
    const auto results = [&](int threads, std::int64_t at_once) {
      std::vector<R> out(2 * rows * n + 2 * n, R{0.5}), statistics(2 * rows);
      R *const dx = out.data() + rows * n, *const dw = dx + rows * n;
      Vector<R, n> dweight, dbias;
      dweight.bind(reinterpret_cast<std::byte*>(dw));
      dbias.bind(reinterpret_cast<std::byte*>(dw + n));
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, at_once}, {team}};
        for (std::int64_t i = 0; i < rows; i += at_once) {
          layernorm<n>(c, {.weight = weight,
                           .bias = bias,
                           .eps = 1e-5f,
                           .x = {x.data() + i * n, at_once},
                           .out = {out.data() + i * n, at_once}});
          layernorm_backward<n>(c, {.weight = weight,
                                    .eps = 1e-5f,
                                    .x = {x.data() + i * n, at_once},
                                    .dout = {dout.data() + i * n, at_once},
                                    .dx = {dx + i * n, at_once},
                                    .dweight = dweight,
                                    .dbias = dbias,
                                    .statistics = {statistics.data() + 2 * i, at_once}});
        }
      });
      return out;
    };
    const auto alone = results(1, 1);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      CHECK(same_result(results(threads, rows), alone));
      CHECK(same_result(results(threads, 3), alone));
    }
  };
  run(0.f);
  run(0.);
}
