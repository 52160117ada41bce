#include <samba/kernels/selective_scan.hpp>

#include <tests/catch.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

struct Case {
  std::size_t n_rows, channels;
  double dt_low = -3, dt_high = 2;  ///< before bias and softplus
  double A_low = -8, A_high = -0.1;
  std::size_t weight_offset = 0, x_offset = 0, dt_offset = 0, z_offset = 0, BC_offset = 0,
              h_offset = 0, y_offset = 0, gap = 0;
  bool in_place = false;  ///< y is dt
};

template <class R>
struct Result {
  std::vector<R> y, h;
};

/// The recurrence in double, and how large the terms are that add up in y and h.
struct Exact {
  std::vector<double> y, h, y_magnitude, h_magnitude;
};

/// simd and reference against the recurrence.
template <int N>
void check(const Case& c, Random& rng) {
  CAPTURE(rng.seed, N, c.n_rows, c.channels, c.dt_low, c.dt_high, c.A_low, c.weight_offset,
          c.x_offset, c.dt_offset, c.z_offset, c.BC_offset, c.h_offset, c.y_offset, c.gap,
          c.in_place);
  const std::size_t C = c.channels, T = c.n_rows;
  const auto A = rng.values(N * C, c.A_low, c.A_high), D = rng.values(C), dt_bias = rng.values(C);
  const auto dt = rng.values(T * C, c.dt_low, c.dt_high), x = rng.values(T * C),
             z = rng.values(T * C, -3, 3);
  const auto B = rng.values(T * N), Cs = rng.values(T * N), h0 = rng.values(N * C);

  Exact exact{{}, convert<double>(h0), {}, {}};
  for (const double h : exact.h) exact.h_magnitude.push_back(std::abs(h));
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t i = 0; i < C; ++i) {
      const double u = double{x[t * C + i]}, gate = double{z[t * C + i]},
                   silu = gate / (1 + std::exp(-gate));
      const double s = double{dt[t * C + i]} + double{dt_bias[i]};
      const double delta = std::max(s, 0.) + std::log1p(std::exp(-std::abs(s)));
      double y = double{D[i]} * u, magnitude = std::abs(y);
      for (std::size_t n = 0; n < N; ++n) {
        double& h = exact.h[n * C + i];
        double& m = exact.h_magnitude[n * C + i];
        const double decay = std::exp(delta * double{A[n * C + i]}),
                     in = delta * u * double{B[t * N + n]};
        h = decay * h + in, m = decay * m + std::abs(in);
        y += double{Cs[t * N + n]} * h, magnitude += std::abs(double{Cs[t * N + n]}) * m;
      }
      exact.y.push_back(y * silu), exact.y_magnitude.push_back(magnitude * std::abs(silu));
    }

  const auto scan = [&]<class R>(R, auto kernel) {
    const Guarded<R> a(convert<R>(A), c.weight_offset), d(convert<R>(D), c.weight_offset),
        bias(convert<R>(dt_bias), c.weight_offset), h(convert<R>(h0), c.h_offset);
    const Guarded<R> in(convert<R>(x), T, c.gap, c.x_offset),
        step(convert<R>(dt), T, c.gap, c.dt_offset), gate(convert<R>(z), T, c.gap, c.z_offset);
    const Guarded<R> b(convert<R>(B), T, c.gap + 1, c.BC_offset),
        cs(convert<R>(Cs), T, c.gap + 1, c.BC_offset);
    const Guarded<R> apart(T, C, C + c.gap, c.y_offset);
    const Guarded<R>& out = c.in_place ? step : apart;
    const auto n = static_cast<std::int64_t>(C);
    kernel(SelectiveScanArgs<R>{a.data(), d.data(), bias.data(), step.data(), step.stride(),
                                b.data(), cs.data(), b.stride(), in.data(), in.stride(),
                                gate.data(), gate.stride(), h.data(), out.data(), out.stride(),
                                static_cast<std::int64_t>(T), n},
           Range{0, n});
    CHECK((out.guarded() && h.guarded()));
    return Result<R>{out.values(), h.values()};
  };
  const auto simd = scan(0.f, [](auto a, Range r) { simd::selective_scan<N>(a, r); });
  const auto naive = scan(0.f, [](auto a, Range r) { reference::selective_scan<N>(a, r); });
  const auto naive_double = scan(0., [](auto a, Range r) { reference::selective_scan<N>(a, r); });

  // A step's roundings: softplus and exp (4 each), and delta A that exp multiplies into its result
  // (|delta A| <= 4 where the result still counts), products and sums; sizes are those of the
  // terms.
  constexpr double tiny = 16 * unit_roundoff;
  CHECK(error_to(simd.y, exact.y, exact.y_magnitude) <=
        2 * error_to(naive.y, exact.y, exact.y_magnitude) + tiny);
  CHECK(error_to(simd.h, exact.h, exact.h_magnitude) <=
        2 * error_to(naive.h, exact.h, exact.h_magnitude) + tiny);
  CHECK(error_to(naive_double.y, exact.y, exact.y_magnitude) <= 1e-14);
  CHECK(error_to(naive_double.h, exact.h, exact.h_magnitude) <= 1e-14);
}

constexpr int d_state = 5, width = 4 * vector_floats + 3;

/// The inputs of some tokens, and scans of parts of them over `width` channels.
struct Scan {
  int length;
  std::vector<float> A_memory, D_memory, bias_memory, dt, x, z, BC;  // BC: (length, 2 d_state)
  Table<float, d_state, width> A;
  Vector<float, width> D, dt_bias;

  Scan(int tokens, Random& rng)
      : length(tokens),
        A_memory(rng.values(d_state * width, -4, -0.1)),
        D_memory(rng.values(width)),
        bias_memory(rng.values(width)),
        dt(rng.values(size(width), -3, 2)),
        x(rng.values(size(width))),
        z(rng.values(size(width))),
        BC(rng.values(size(2 * d_state))) {
    A.bind(reinterpret_cast<std::byte*>(A_memory.data()));
    D.bind(reinterpret_cast<std::byte*>(D_memory.data()));
    dt_bias.bind(reinterpret_cast<std::byte*>(bias_memory.data()));
  }
  std::size_t size(int n) const { return static_cast<std::size_t>(length * n); }

  /// Tokens [begin, end); `h` are the states of the segments, advanced.
  std::vector<float> operator()(int begin, int end, const std::vector<Segment>& segments,
                                std::vector<std::vector<float>*> h, int threads = 1) const {
    std::vector<Array<float, d_state, width>> states;
    for (auto* state : h) states.push_back({state->data()});
    const std::int64_t rows = end - begin, at = std::int64_t{begin} * width;
    const In<float, 2 * d_state> fused{BC.data() + std::int64_t{begin} * 2 * d_state, rows};
    std::vector<float> y(static_cast<std::size_t>(rows * width));
    parallel(threads, [&](Team team) {
      kernels::selective_scan(Chunk{team, segments, rows}, A, D, dt_bias, {dt.data() + at, rows},
                              first<d_state>(fused), last<d_state>(fused), {x.data() + at, rows},
                              {z.data() + at, rows}, states_of(states), {y.data(), rows});
    });
    return y;
  }
};

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("selective_scan: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels)
    check<16>({.n_rows = 5, .channels = channels}, rng);
}

TEST_CASE("selective_scan: simd against reference, numbers of states and lengths") {
  Random rng;
  for (const std::size_t n_rows : {1u, 2u, 3u, 40u})
    for (const bool in_place : {false, true}) {
      const Case c{.n_rows = n_rows, .channels = vector_floats + 1, .in_place = in_place};
      check<1>(c, rng);
      check<7>(c, rng);
      check<16>(c, rng);
      check<32>(c, rng);
    }
}

TEST_CASE("selective_scan: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  for (std::size_t offset = 0; offset < vector_floats; ++offset) {
    const Case c{.n_rows = 3, .channels = 2 * vector_floats + 3, .gap = offset % 3};
    Case together = c;
    for (auto place : {&Case::weight_offset, &Case::x_offset, &Case::dt_offset, &Case::z_offset,
                       &Case::BC_offset, &Case::h_offset, &Case::y_offset}) {
      Case moved = c;
      moved.*place = together.*place = offset;
      check<4>(moved, rng);
    }
    check<4>(together, rng);
  }
}

TEST_CASE("selective_scan: time steps from vanishing to large") {
  Random rng;
  // From steps that change nothing to steps that forget everything, each alone, so that none hides
  // in the norm of another.
  for (double dt = -80; dt < 200; dt += 4)
    check<4>({.n_rows = 6, .channels = 2 * vector_floats + 1, .dt_low = dt, .dt_high = dt + 4},
             rng);
  for (const double A : {-1e-6, -1e-3, -100., -1e6})
    check<4>({.n_rows = 6, .channels = 2 * vector_floats + 1, .A_low = A, .A_high = A / 2}, rng);
  check<4>({.n_rows = 6, .channels = vector_floats, .dt_low = -200, .dt_high = 200}, rng);
}

TEST_CASE("selective_scan: without rows nothing changes") {
  Random rng;
  CAPTURE(rng.seed);
  const Scan scan(1, rng);
  auto h = rng.values(d_state * width);
  const auto before = h;
  scan(0, 0, {{0, 0, 0}}, {&h});
  CHECK(same_bits(h, before));
}

TEST_CASE("selective_scan: the same bits for a sequence split anywhere") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 20;
  const Scan scan(length, rng);
  const auto start = rng.values(d_state * width);
  auto whole_h = start;
  const auto whole = scan(0, length, {{0, 0, length}}, {&whole_h});
  for (int split = 0; split <= length; ++split) {
    CAPTURE(split);
    auto h = start;
    auto y = scan(0, split, {{0, 0, split}}, {&h});
    append(y, scan(split, length, {{split, 0, length - split}}, {&h}));
    CHECK(same_result(y, whole));
    CHECK(same_result(h, whole_h));
  }
}

TEST_CASE("selective_scan: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 15;
  const Scan scan(length, rng);
  std::vector<Segment> segments;
  std::vector<std::vector<float>> starts, ends;
  std::vector<float> alone;
  int at = 0;
  for (const int n : {1, 7, 2, 0, 5}) {
    segments.push_back({0, at, n});
    auto h = rng.values(d_state * width);
    starts.push_back(h);
    append(alone, scan(at, at + n, {{0, 0, n}}, {&h}));
    ends.push_back(h);
    at += n;
  }
  REQUIRE(at == length);
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    auto h = starts;
    std::vector<std::vector<float>*> states;
    for (auto& state : h) states.push_back(&state);
    CHECK(same_result(scan(0, length, segments, states, threads), alone));
    for (std::size_t s = 0; s < h.size(); ++s) CHECK(same_result(h[s], ends[s]));
  }
}
