#include <samba/kernels/cpu/elementwise.hpp>

#include <limits>
#include <numbers>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

void check_silu_mul(const std::vector<float>& gate, const std::vector<float>& up,
                    std::size_t gate_offset = 0, std::size_t up_offset = 0,
                    std::size_t out_offset = 0) {
  CAPTURE(gate.size(), gate_offset, up_offset, out_offset);
  const Range all{0, static_cast<std::int64_t>(gate.size())};
  const Guarded<float> g(gate, gate_offset), u(up, up_offset), out(gate.size(), out_offset);
  simd::silu_mul(g.data(), u.data(), all, out.data());
  std::vector<float> naive(gate.size());
  reference::silu_mul(gate.data(), up.data(), all, naive.data());
  std::vector<double> naive_double(gate.size()), exact;
  reference::silu_mul(convert<double>(gate).data(), convert<double>(up).data(), all,
                      naive_double.data());
  for (std::size_t i = 0; i < gate.size(); ++i)
    exact.push_back(exact_silu(double{gate[i]}) * double{up[i]});

  // exp is right to 4 unit roundoffs; sum, division and product round once each.
  CHECK(relative_error(out.values(), exact) <=
        2 * relative_error(naive, exact) + 7 * unit_roundoff);
  CHECK(relative_error(naive_double, exact) <= 1e-15);
  CHECK(out.guarded());

  const Guarded<float> onto_gate(gate, gate_offset), onto_up(up, up_offset);
  simd::silu_mul(onto_gate.data(), u.data(), all, onto_gate.data());
  simd::silu_mul(g.data(), onto_up.data(), all, onto_up.data());
  CHECK(same_bits(onto_gate.values(), out.values()));
  CHECK(same_bits(onto_up.values(), out.values()));
}

void check_silu_mul_backward(const std::vector<float>& gate, const std::vector<float>& up,
                             const std::vector<float>& dout, std::size_t gate_offset = 0,
                             std::size_t up_offset = 0, std::size_t out_offset = 0) {
  CAPTURE(gate.size(), gate_offset, up_offset, out_offset);
  std::vector<Sized> dgate, dup;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double x = double{gate[i]}, d = double{dout[i]};
    dgate.push_back(d * double{up[i]} * exact_silu_derivative(x));
    dup.push_back(d * exact_silu(x));
  }
  const auto run = [&]<class R>(R, auto kernel, bool in_place) {
    const Guarded<R> g(convert<R>(gate), gate_offset), u(convert<R>(up), up_offset),
        d(convert<R>(dout), out_offset);
    const Guarded<R> apart(gate.size(), gate_offset), du(gate.size(), up_offset);
    const Guarded<R>& dg = in_place ? d : apart;
    const Range all{0, static_cast<std::int64_t>(gate.size())};
    kernel(g.data(), u.data(), d.data(), all, dg.data(), du.data());
    CHECK((d.guarded() && apart.guarded() && du.guarded()));
    return Named<R>{{"dgate", dg.values()}, {"dup", du.values()}};
  };
  const auto fast = [](auto... args) { simd::silu_mul_backward(args...); };
  const auto naive = [](auto... args) { reference::silu_mul_backward(args...); };
  const auto apart = run(0.f, fast, false);
  // As above, and the derivative has a sum and two products more.
  check_results({{"dgate", dgate}, {"dup", dup}}, apart, run(0.f, naive, false),
                run(0., naive, false), 10 * unit_roundoff, 1e-15);
  CHECK(same_results(run(0.f, fast, true), apart));
}

/// gelu_mul and its gradients, against long double; the derivative as the difference of values.
void check_gelu_mul(Gelu form, const std::vector<float>& gate, const std::vector<float>& up,
                    const std::vector<float>& dout, std::size_t offset = 0) {
  CAPTURE(form == Gelu::exact, gate.size(), gate[0], offset);
  const auto gelu = [&](long double x) {
    const long double t =
        std::sqrt(2 / std::numbers::pi_v<long double>) * (x + 0.044715L * x * x * x);
    return form == Gelu::exact ? x * std::erfc(-x / std::sqrt(2.L)) / 2
                               : x / 2 * (1 + std::tanh(t));
  };
  std::vector<Sized> out, dgate, dup;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const long double x = gate[i], step = 1e-5L;
    const double value = static_cast<double>(gelu(x)), d = double{dout[i]}, u = double{up[i]},
                 slope = static_cast<double>((gelu(x + step) - gelu(x - step)) / (2 * step));
    // Where gates are low, factors close to 1 and 0 multiply: the errors are those of small terms.
    const double size = std::max(std::abs(value), 1e-2);
    out.push_back({value * u, size * std::abs(u)});
    dgate.push_back({d * u * slope, std::abs(d * u)});
    dup.push_back({d * value, size * std::abs(d)});
  }
  const auto run = [&]<class R>(R, auto kernel, auto backward) {
    const Guarded<R> g(convert<R>(gate), offset), u(convert<R>(up), offset),
        d(convert<R>(dout), offset);
    const Guarded<R> y(gate.size(), offset), dg(gate.size(), offset), du(gate.size(), offset);
    const Range all{0, static_cast<std::int64_t>(gate.size())};
    kernel(g.data(), u.data(), all, form, y.data());
    backward(g.data(), u.data(), d.data(), all, form, dg.data(), du.data());
    CHECK((y.guarded() && dg.guarded() && du.guarded()));
    return Named<R>{{"out", y.values()}, {"dgate", dg.values()}, {"dup", du.values()}};
  };
  const auto fast = [](auto... args) { simd::gelu_mul(args...); };
  const auto naive = [](auto... args) { reference::gelu_mul(args...); };
  const auto fast_backward = [](auto... args) { simd::gelu_mul_backward(args...); };
  const auto naive_backward = [](auto... args) { reference::gelu_mul_backward(args...); };
  check_results({{"out", out}, {"dgate", dgate}, {"dup", dup}}, run(0.f, fast, fast_backward),
                run(0.f, naive, naive_backward), run(0., naive, naive_backward), 10 * unit_roundoff,
                1e-8);
}

/// sigmoid_mul and its gradients, by the book.
void check_sigmoid_mul(const std::vector<float>& gate, const std::vector<float>& up,
                       const std::vector<float>& dout, std::size_t offset = 0) {
  CAPTURE(gate.size(), gate[0], offset);
  std::vector<Sized> out, dgate, dup;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double s = 1 / (1 + std::exp(-double{gate[i]})), d = double{dout[i]}, u = double{up[i]};
    out.push_back(s * u);
    // 1 - s has an error of a rounding of 1.
    dgate.push_back({d * u * s * (1 - s), std::abs(d * u * s)});
    dup.push_back(d * s);
  }
  const auto run = [&]<class R>(R, auto kernel, auto backward) {
    const Guarded<R> g(convert<R>(gate), offset), u(convert<R>(up), offset),
        d(convert<R>(dout), offset);
    const Guarded<R> y(gate.size(), offset), dg(gate.size(), offset), du(gate.size(), offset);
    const Range all{0, static_cast<std::int64_t>(gate.size())};
    kernel(g.data(), u.data(), all, y.data());
    backward(g.data(), u.data(), d.data(), all, dg.data(), du.data());
    CHECK((y.guarded() && dg.guarded() && du.guarded()));
    return Named<R>{{"out", y.values()}, {"dgate", dg.values()}, {"dup", du.values()}};
  };
  const auto fast = [](auto... args) { simd::sigmoid_mul(args...); };
  const auto naive = [](auto... args) { reference::sigmoid_mul(args...); };
  const auto fast_backward = [](auto... args) { simd::sigmoid_mul_backward(args...); };
  const auto naive_backward = [](auto... args) { reference::sigmoid_mul_backward(args...); };
  check_results({{"out", out}, {"dgate", dgate}, {"dup", dup}}, run(0.f, fast, fast_backward),
                run(0.f, naive, naive_backward), run(0., naive, naive_backward), 10 * unit_roundoff,
                1e-15);
}

/// soft_cap and its gradient, by the book.
void check_soft_cap(float cap, const std::vector<float>& x, const std::vector<float>& dout,
                    std::size_t offset = 0) {
  CAPTURE(cap, x.size(), x[0], offset);
  std::vector<Sized> out, dx;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double t = std::tanh(double{x[i]} / double{cap});
    out.push_back(double{cap} * t);
    dx.push_back({double{dout[i]} * (1 - t * t), double{std::abs(dout[i])}});
  }
  const auto run = [&]<class R>(R, auto kernel, auto backward) {
    const Guarded<R> y(convert<R>(x), offset), d(convert<R>(dout), offset);
    const Range all{0, static_cast<std::int64_t>(x.size())};
    kernel(R{cap}, all, y.data());
    backward(R{cap}, y.data(), all, d.data());
    CHECK((y.guarded() && d.guarded()));
    return Named<R>{{"out", y.values()}, {"dx", d.values()}};
  };
  const auto fast = [](auto... args) { simd::soft_cap(args...); };
  const auto naive = [](auto... args) { reference::soft_cap(args...); };
  const auto fast_backward = [](auto... args) { simd::soft_cap_backward(args...); };
  const auto naive_backward = [](auto... args) { reference::soft_cap_backward(args...); };
  // tanh is right to a few roundings, as are the quotient and the product.
  check_results({{"out", out}, {"dx", dx}}, run(0.f, fast, fast_backward),
                run(0.f, naive, naive_backward), run(0., naive, naive_backward), 8 * unit_roundoff,
                1e-15);
}

void check_add(const std::vector<float>& y, const std::vector<float>& x, std::size_t y_offset = 0,
               std::size_t x_offset = 0) {
  CAPTURE(x.size(), y_offset, x_offset);
  const Range all{0, static_cast<std::int64_t>(x.size())};
  const Guarded<float> from(y, y_offset), to(x, x_offset);
  simd::add(from.data(), all, to.data());
  std::vector<float> naive = x, sum;
  reference::add(y.data(), all, naive.data());
  for (std::size_t i = 0; i < x.size(); ++i) sum.push_back(x[i] + y[i]);
  CHECK(same_bits(to.values(), sum));  // one rounding: no tolerance
  CHECK(same_bits(naive, sum));
  CHECK(to.guarded());
}

}  // namespace

TEST_CASE("silu_mul: simd against reference, every size and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check_silu_mul(rng.values(n, -5, 5), rng.values(n));
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check_silu_mul(rng.values(n), rng.values(n), offset, 0, 0);
    check_silu_mul(rng.values(n), rng.values(n), 0, offset, 0);
    check_silu_mul(rng.values(n), rng.values(n), 0, 0, offset);
    check_silu_mul(rng.values(n), rng.values(n), offset, offset, offset);
  }
}

TEST_CASE("silu_mul: the whole range of gates") {
  Random rng;
  CAPTURE(rng.seed);
  // Parts of one size of the result, so that none hides in the norm of another. Below -87 the gate
  // is nothing.
  for (double low = -87; low < 200; low += 3)
    check_silu_mul(rng.values(64, low, low + 3), rng.values(64, 0.5, 1));
  for (const double size : {1e-30, 1e-10, 1e-3})
    check_silu_mul(rng.values(64, -size, size), rng.values(64, 0.5, 1));
  std::vector<float> out(5, 7.f);
  const std::vector<float> gate{0.f, -0.f, -90.f, -200.f, -1e30f}, up(5, 1.f);
  simd::silu_mul(gate.data(), up.data(), {0, 5}, out.data());
  for (const float y : out) CHECK((is_finite(y) && std::abs(y) < 1e-7f));
}

TEST_CASE("gelu_mul: simd against reference, both forms, every size and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (const Gelu form : {Gelu::exact, Gelu::tanh}) {
    for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
      check_gelu_mul(form, rng.values(n, -5, 5), rng.values(n), rng.values(n));
    for (std::size_t offset = 0; offset < vector_floats; ++offset)
      check_gelu_mul(form, rng.values(19, -5, 5), rng.values(19), rng.values(19), offset);
    // Parts of one size of the result, so that none hides in the norm of another.
    for (double low = -4; low < 60; low += 1)
      check_gelu_mul(form, rng.values(64, low, low + 1), rng.values(64, 0.5, 1),
                     rng.values(64, 0.5, 1));
    for (const float gate : {-60.f, -1e10f, -1e20f, 60.f, 1e10f, 1e20f, 0.f, -0.f}) {
      CAPTURE(gate, form == Gelu::exact);
      const float one = 1;
      float out = 7, dgate = 7, dup = 7;
      simd::gelu_mul(&gate, &one, {0, 1}, form, &out);
      simd::gelu_mul_backward(&gate, &one, &one, {0, 1}, form, &dgate, &dup);
      CHECK(out == Approx(gate > 0 ? gate : 0).margin(1e-7));
      CHECK(dup == Approx(gate > 0 ? gate : 0).margin(1e-7));
      CHECK(dgate == Approx(gate == 0 ? 0.5 : gate > 0 ? 1 : 0).margin(1e-7));
    }
    const float nan = std::numeric_limits<float>::quiet_NaN(), one = 1;
    float out = 7;
    simd::gelu_mul(&nan, &one, {0, 1}, form, &out);
    CHECK(!is_finite(out));
  }
}

TEST_CASE("gelu_mul: rows of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 4 * vector_floats + 3, rows = 3;
  const auto run = [&]<class R>(R) {
    auto gate = rng.values<R>(rows * n), up = rng.values<R>(rows * n), d = rng.values<R>(rows * n);
    const auto all = [&](std::int64_t first, std::int64_t count, int threads, auto& out,
                         auto& dgate, auto& dup) {
      const auto part = [&](auto& x) { return Rows<R, n>{x.data() + first * n, count}; };
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, count}, {team}};
        gelu_mul<n, Gelu::exact>(c, {.gate = part(gate), .up = part(up), .out = part(out)});
        gelu_mul_backward<n, Gelu::tanh>(c, {.gate = part(gate),
                                             .up = part(up),
                                             .dout = part(d),
                                             .dgate = part(dgate),
                                             .dup = part(dup)});
      });
    };
    std::vector<R> out(rows * n), dgate(rows * n), dup(rows * n);
    for (std::int64_t i = 0; i < rows; ++i) all(i, 1, 1, out, dgate, dup);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> outs(rows * n), dgates(rows * n), dups(rows * n);
      all(0, rows, threads, outs, dgates, dups);
      CHECK((same_result(outs, out) && same_result(dgates, dgate) && same_result(dups, dup)));
    }
  };
  run(0.f);
  run(0.);
}

TEST_CASE("add: simd against reference, every size and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n) check_add(rng.values(n), rng.values(n));
  constexpr std::size_t n = 2 * vector_floats + 3;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check_add(rng.values(n), rng.values(n), offset, 0);
    check_add(rng.values(n), rng.values(n), 0, offset);
  }
}

TEST_CASE("sigmoid_mul: every size and misalignment, the whole range of gates") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check_sigmoid_mul(rng.values(n, -5, 5), rng.values(n), rng.values(n));
  for (std::size_t offset = 0; offset < vector_floats; ++offset)
    check_sigmoid_mul(rng.values(19, -5, 5), rng.values(19), rng.values(19), offset);
  for (double low = -80; low < 80; low += 4)
    check_sigmoid_mul(rng.values(64, low, low + 4), rng.values(64, 0.5, 1), rng.values(64, 0.5, 1));
}

TEST_CASE("soft_cap: every size and misalignment, from nothing to far above the cap") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check_soft_cap(3, rng.values(n, -5, 5), rng.values(n));
  for (std::size_t offset = 0; offset < vector_floats; ++offset)
    check_soft_cap(30, rng.values(19, -50, 50), rng.values(19), offset);
  for (const double size : {1e-20, 1e-6, 1e-3, 0.1, 1., 10., 1000., 1e20})
    check_soft_cap(30, rng.values(64, -size, size), rng.values(64));
}

TEST_CASE("reference silu and softplus: the whole range, without overflow") {
  const auto run = [&]<class R>(R, double tolerance) {
    for (double x = -200; x <= 200; x += 0.31) {
      const R silu = reference::silu(static_cast<R>(x)),
              softplus = reference::softplus(static_cast<R>(x));
      const double there = static_cast<double>(static_cast<R>(x));
      const double s = exact_silu(there),
                   p = std::log1p(std::exp(-std::abs(there))) + std::max(there, 0.);
      CHECK(std::abs(static_cast<double>(silu) - s) <= tolerance * std::abs(s) + 1e-36);
      CHECK(std::abs(static_cast<double>(softplus) - p) <= tolerance * p + 1e-36);
    }
  };
  run(0.f, 1e-6);
  run(0., 1e-14);
}

TEST_CASE(
    "silu_mul, sigmoid_mul, soft_cap, add: rows of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 4 * vector_floats + 3, rows = 3;
  const auto run = [&]<class R>(R) {
    auto gate = rng.values<R>(rows * n), up = rng.values<R>(rows * n);
    const auto compute = [&](Team team, std::int64_t first, std::int64_t count,
                             std::vector<R>& product, std::vector<R>& sum) {
      const Context<Policy<R>> c{{{}, count}, {team}};
      const auto part = [&](std::vector<R>& x) { return Rows<R, n>{x.data() + first * n, count}; };
      kernels::silu_mul<n>(c, {.gate = part(gate), .up = part(up), .out = part(product)});
      kernels::sigmoid_mul<n>(c, {.gate = part(up), .up = part(product), .out = part(product)});
      kernels::add<n>(c, {.term = part(up), .to = part(sum)});
      kernels::soft_cap<n>(c, part(sum), 1.5f);
      kernels::soft_cap_backward<n>(c, part(sum), part(product), 1.5f);
    };
    std::vector<R> product(rows * n), sum = gate;
    for (std::int64_t i = 0; i < rows; ++i) compute({}, i, 1, product, sum);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> out(rows * n), x = gate;
      parallel(threads, [&](Team team) { compute(team, 0, rows, out, x); });
      CHECK(same_result(out, product));
      CHECK(same_result(x, sum));
    }
  };
  run(0.f);
  run(0.);
}

TEST_CASE("silu_mul, add: only the columns of the range are written") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr std::size_t n = 3 * vector_floats;
  const auto a = rng.values(n), b = rng.values(n);
  for (std::int64_t begin = 0; begin < 5; ++begin) {
    const Range columns{begin, begin + vector_floats + 1};
    std::vector<float> product(n, 9.f), sum = b;
    simd::silu_mul(a.data(), b.data(), columns, product.data());
    simd::add(a.data(), columns, sum.data());
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(n); ++i) {
      const auto at = static_cast<std::size_t>(i);
      const bool inside = i >= columns.begin && i < columns.end;
      CHECK((product[at] == 9.f) != inside);
      CHECK((sum[at] == b[at]) != inside);
    }
  }
}

TEST_CASE("add, copy, clear: with a factor, rows with gaps, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 4 * vector_floats + 3;
  constexpr std::size_t rows = 3;
  const auto run = [&]<class R>(R) {
    const auto x = rng.values<R>(rows * n), y = rng.values<R>(rows * n);
    const std::vector<R> zeros(rows * n);
    // What an operation that writes to rows of y, with x beside them, makes of y.
    const auto result = [&](int threads, auto operation) {
      const Guarded<R> from(x, rows, 2, 3), to(y, rows, 5, 1);
      const auto rows_in = [&](const Guarded<R>& memory) {
        return Rows<R, n>{memory.data(), rows, memory.stride()};
      };
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, rows}, {team}};
        operation(c, rows_in(from), rows_in(to));
      });
      CHECK((to.guarded() && same_bits(from.values(), x)));
      return to.values();
    };
    for (int threads = 1; threads <= 4; ++threads)
      for (const float factor : {1.f, 0.f, -1.f, 0.37f, 1e-3f}) {
        CAPTURE(threads, factor, sizeof(R));
        std::vector<R> sums, products;
        for (std::size_t i = 0; i < x.size(); ++i) {
          sums.push_back(y[i] + static_cast<R>(factor) * x[i]);
          products.push_back(static_cast<R>(factor) * x[i]);
        }
        const auto added = result(threads, [&](const auto& c, auto from, auto to) {
          add<n>(c, {.term = from, .to = to, .factor = factor});
        });
        const auto streamed = result(threads, [&](const auto& c, auto from, auto to) {
          add_to_residual<n>(c, {.term = from, .to = to, .factor = factor});
        });
        const auto copied = result(threads, [&](const auto& c, auto from, auto to) {
          kernels::copy<n>(c, {.from = from, .to = to, .factor = factor});
        });
        // A compiler may join product and sum: one rounding less.
        CHECK(relative_error(added, sums) <= 2 * unit_roundoff);
        CHECK(same_bits(streamed, added));
        CHECK(copied == products);  // -0 is 0
        if (factor == 1) {
          CHECK(same_bits(added, sums));
          CHECK(same_bits(copied, x));
        }
        if (factor == 0) CHECK(same_bits(added, y));
      }
    for (int threads = 1; threads <= 4; ++threads)
      CHECK(same_bits(result(threads, [&](const auto& c, auto, auto to) { kernels::clear(c, to); }),
                      zeros));
    // A copy with a factor of 0 does not look at what it copies.
    const auto cleared = result(2, [&](const auto& c, auto, auto to) {
      kernels::copy<n>(c, {.from = {nullptr, rows}, .to = to, .factor = 0});
    });
    CHECK(same_bits(cleared, zeros));
    // Without a factor it is 1.
    const auto added =
        result(1, [&](const auto& c, auto from, auto to) { add<n>(c, {.term = from, .to = to}); });
    const auto copied = result(1, [&](const auto& c, auto from, auto to) {
      kernels::copy<n>(c, {.from = from, .to = to});
    });
    std::vector<R> sums;
    for (std::size_t i = 0; i < x.size(); ++i) sums.push_back(y[i] + x[i]);
    CHECK((same_bits(added, sums) && same_bits(copied, x)));
  };
  run(0.f);
  run(0.);
}

TEST_CASE("silu_mul backward: simd against reference, every size and misalignment") {
  Random rng;
  CAPTURE(rng.seed);
  for (std::size_t n = 1; n <= 3 * vector_floats + 1; ++n)
    check_silu_mul_backward(rng.values(n, -5, 5), rng.values(n), rng.values(n));
  constexpr std::size_t n = 2 * vector_floats + 3;
  const auto check = [&](std::size_t gate, std::size_t up, std::size_t out) {
    check_silu_mul_backward(rng.values(n, -5, 5), rng.values(n), rng.values(n), gate, up, out);
  };
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    check(offset, 0, 0);
    check(0, offset, 0);
    check(0, 0, offset);
    check(offset, offset, offset);
  }
}

TEST_CASE("silu_mul backward: the whole range of gates") {
  Random rng;
  CAPTURE(rng.seed);
  for (double low = -84; low < 200; low += 3)
    check_silu_mul_backward(rng.values(64, low, low + 3), rng.values(64, 0.5, 1),
                            rng.values(64, 0.5, 1));
  for (const float gate : {-90.f, -200.f, -1e20f, 1e20f}) {
    const float one = 1;
    float dgate = 7, dup = 7;
    simd::silu_mul_backward(&gate, &one, &one, {0, 1}, &dgate, &dup);
    CHECK(dgate == Approx(gate > 0).margin(1e-7));
    CHECK(dup == Approx(gate > 0 ? gate : 0).margin(1e-7));
  }
}

TEST_CASE("silu_mul backward: rows of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int n = 4 * vector_floats + 3, rows = 3;
  const auto run = [&]<class R>(R) {
    auto gate = rng.values<R>(rows * n), up = rng.values<R>(rows * n), d = rng.values<R>(rows * n);
    const auto gradients = [&](std::int64_t first, std::int64_t count, int threads, auto& dgate,
                               auto& dup) {
      const auto part = [&](auto& x) { return Rows<R, n>{x.data() + first * n, count}; };
      parallel(threads, [&](Team team) {
        const Context<Policy<R>> c{{{}, count}, {team}};
        silu_mul_backward<n>(c, {.gate = part(gate),
                                 .up = part(up),
                                 .dout = part(d),
                                 .dgate = part(dgate),
                                 .dup = part(dup)});
      });
    };
    std::vector<R> dgate(rows * n), dup(rows * n);
    for (std::int64_t i = 0; i < rows; ++i) gradients(i, 1, 1, dgate, dup);
    for (int threads = 1; threads <= 4; ++threads) {
      CAPTURE(threads);
      std::vector<R> gates(rows * n), ups(rows * n);
      gradients(0, rows, threads, gates, ups);
      CHECK((same_result(gates, dgate) && same_result(ups, dup)));
    }
  };
  run(0.f);
  run(0.);
}
