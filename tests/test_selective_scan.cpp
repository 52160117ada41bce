#include <samba/kernels/cpu/selective_scan.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

struct Case {
  std::size_t rows, channels;
  double dt_low = -3, dt_high = 2;  ///< before bias and softplus
  double A_low = -8, A_high = -0.1;
  std::size_t weight_offset = 0, x_offset = 0, dt_offset = 0, z_offset = 0, BC_offset = 0,
              h_offset = 0, y_offset = 0, gap = 0;
  bool in_place = false;     ///< y is dt
  bool gate = true;          ///< there is z
  bool before_gate = false;  ///< y before its gate is written, or has a gradient
};

template <class R>
struct Result {
  std::vector<R> y, h, before_gate;
};

/// The recurrence in double, and how large the terms are that add up in y and h.
struct Exact {
  std::vector<double> y, h, before_gate, y_magnitude, h_magnitude, before_gate_magnitude;
};

/// simd and reference against the recurrence.
template <int N>
void check(const Case& c, Random& rng) {
  CAPTURE(rng.seed, N, c.rows, c.channels, c.dt_low, c.dt_high, c.A_low, c.weight_offset,
          c.x_offset, c.dt_offset, c.z_offset, c.BC_offset, c.h_offset, c.y_offset, c.gap,
          c.in_place, c.gate, c.before_gate);
  const std::size_t C = c.channels, T = c.rows;
  const auto A = rng.values(N * C, c.A_low, c.A_high), D = rng.values(C), dt_bias = rng.values(C);
  const auto dt = rng.values(T * C, c.dt_low, c.dt_high), x = rng.values(T * C),
             z = rng.values(T * C, -3, 3);
  const auto B = rng.values(T * N), Cs = rng.values(T * N), h0 = rng.values(N * C);

  Exact exact;
  exact.h = convert<double>(h0);
  for (const double h : exact.h) exact.h_magnitude.push_back(std::abs(h));
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t i = 0; i < C; ++i) {
      const double u = double{x[t * C + i]}, gate = double{z[t * C + i]},
                   silu = c.gate ? gate / (1 + std::exp(-gate)) : 1;
      const double s = double{dt[t * C + i]} + double{dt_bias[i]};
      const double delta = std::max(s, 0.) + std::log1p(std::exp(-std::abs(s)));
      double y = double{D[i]} * u, magnitude = std::abs(y);
      for (std::size_t n = 0; n < N; ++n) {
        double& h = exact.h[n * C + i];
        double& m = exact.h_magnitude[n * C + i];
        const double decay = std::exp(delta * double{A[n * C + i]}),
                     in = delta * u * double{B[t * N + n]};
        h = decay * h + in;
        m = decay * m + std::abs(in);
        y += double{Cs[t * N + n]} * h, magnitude += std::abs(double{Cs[t * N + n]}) * m;
      }
      exact.y.push_back(y * silu);
      exact.y_magnitude.push_back(magnitude * std::abs(silu));
      exact.before_gate.push_back(y);
      exact.before_gate_magnitude.push_back(magnitude);
    }

  const auto scan = [&]<class R>(R, auto kernel) {
    const Guarded<R> a(convert<R>(A), c.weight_offset), d(convert<R>(D), c.weight_offset),
        bias(convert<R>(dt_bias), c.weight_offset), h(convert<R>(h0), c.h_offset);
    const Guarded<R> in(convert<R>(x), T, c.gap, c.x_offset),
        step(convert<R>(dt), T, c.gap, c.dt_offset), gate(convert<R>(z), T, c.gap, c.z_offset);
    const Guarded<R> b(convert<R>(B), T, c.gap + 1, c.BC_offset),
        cs(convert<R>(Cs), T, c.gap + 2, c.BC_offset);
    const Guarded<R> apart(T, C, C + c.gap, c.y_offset), before(T, C, C + c.gap, c.z_offset);
    const Guarded<R>& out = c.in_place ? step : apart;
    const auto n = static_cast<std::int64_t>(C);
    kernel(SelectiveScanArgs<R>{.A = a.data(),
                                .D = d.data(),
                                .dt_bias = bias.data(),
                                .dt = step.data(),
                                .dt_stride = step.stride(),
                                .B = b.data(),
                                .B_stride = b.stride(),
                                .C = cs.data(),
                                .C_stride = cs.stride(),
                                .x = in.data(),
                                .x_stride = in.stride(),
                                .z = c.gate ? gate.data() : nullptr,
                                .z_stride = gate.stride(),
                                .h = h.data(),
                                .y = out.data(),
                                .y_stride = out.stride(),
                                .before_gate = c.before_gate ? before.data() : nullptr,
                                .before_gate_stride = before.stride(),
                                .rows = static_cast<std::int64_t>(T),
                                .channels = n},
           Range{0, n});
    CHECK((out.guarded() && h.guarded() && before.guarded()));
    return Result<R>{out.values(), h.values(), before.values()};
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
  if (!c.before_gate) return;
  CHECK(error_to(simd.before_gate, exact.before_gate, exact.before_gate_magnitude) <=
        2 * error_to(naive.before_gate, exact.before_gate, exact.before_gate_magnitude) + tiny);
  CHECK(error_to(naive_double.before_gate, exact.before_gate, exact.before_gate_magnitude) <=
        1e-14);
  // Without a gate it is y.
  if (!c.gate) {
    CHECK(same_bits(simd.before_gate, simd.y));
    CHECK(same_bits(naive.before_gate, naive.y));
  }
}

/// The gradients of simd and reference, for random gradients of y, of the state at the end and, where
/// the case says so, of y before its gate, against those of the recurrence in double. dA, dD and ddt_bias are added to what was there.
template <int N>
void check_backward(const Case& c, Random& rng) {
  CAPTURE(rng.seed, N, c.rows, c.channels, c.dt_low, c.dt_high, c.A_low, c.weight_offset,
          c.x_offset, c.dt_offset, c.z_offset, c.BC_offset, c.h_offset, c.y_offset, c.gap,
          c.in_place, c.gate, c.before_gate);
  const std::size_t C = c.channels, T = c.rows, blocks = (C + scan_block - 1) / scan_block;
  const auto A = rng.values(N * C, c.A_low, c.A_high), D = rng.values(C), dt_bias = rng.values(C);
  const auto dt = rng.values(T * C, c.dt_low, c.dt_high), x = rng.values(T * C),
             z = rng.values(T * C, -3, 3), dy = rng.values(T * C), dbefore = rng.values(T * C);
  const auto B = rng.values(T * N), Cs = rng.values(T * N), h0 = rng.values(N * C),
             dh_end = rng.values(N * C);
  const auto dA0 = rng.values(N * C), dD0 = rng.values(C), ddt_bias0 = rng.values(C);

  const std::vector<Sized> zeros(T * C);
  std::vector<Sized> ddt = zeros, dx = zeros, dz = zeros, dBC(T * blocks * 2 * N),
                     dh = sized(dh_end), dA = sized(dA0), dD = sized(dD0),
                     ddt_bias = sized(ddt_bias0);
  for (std::size_t i = 0; i < C; ++i) {
    std::vector<Sized> h;  // (T + 1, N): before each token, and at the end
    for (std::size_t n = 0; n < N; ++n) h.push_back(double{h0[n * C + i]});
    const auto raw = [&](std::size_t t) { return double{dt[t * C + i]} + double{dt_bias[i]}; };
    const auto delta = [&](std::size_t t) {
      return std::max(raw(t), 0.) + std::log1p(std::exp(-std::abs(raw(t))));
    };
    // exp turns a rounding of its argument into one of its result.
    const auto decay_of = [&](std::size_t t, std::size_t n) {
      const double a = delta(t) * double{A[n * C + i]};
      return Sized(std::exp(a), std::exp(a) * (1 - a));
    };
    for (std::size_t t = 0; t < T; ++t)
      for (std::size_t n = 0; n < N; ++n)
        h.push_back(decay_of(t, n) * h[t * N + n] +
                    delta(t) * double{x[t * C + i]} * double{B[t * N + n]});
    for (std::size_t t = T; t-- > 0;) {
      const Sized u = double{x[t * C + i]}, gate = c.gate ? exact_silu(double{z[t * C + i]}) : 1,
                  out = double{dy[t * C + i]},
                  before_gate = c.before_gate ? double{dbefore[t * C + i]} : 0,
                  g = out * gate + before_gate, skip = double{D[i]}, step = delta(t);
      Sized y = skip * u, from_delta, from_input;
      for (std::size_t n = 0; n < N; ++n) {
        const Sized a = double{A[n * C + i]}, b = double{B[t * N + n]}, r = double{Cs[t * N + n]};
        const Sized decay = decay_of(t, n), before = h[t * N + n], after = h[(t + 1) * N + n];
        const Sized slope = dh[n * C + i] + r * g;  // of the state after t
        Sized* const parts = &dBC[(t * blocks + i / scan_block) * 2 * N];
        y += r * after;
        dA[n * C + i] += slope * step * decay * before;
        from_delta += slope * (a * decay * before + b * u);
        from_input += slope * step * b;
        parts[n] += slope * step * u;
        parts[N + n] += g * after;
        dh[n * C + i] = slope * decay;
      }
      dz[t * C + i] = out * y * exact_silu_derivative(double{z[t * C + i]});
      dx[t * C + i] = from_input + g * skip;
      ddt[t * C + i] = from_delta * exact_sigmoid(raw(t));
      dD[i] += g * u;
      ddt_bias[i] += ddt[t * C + i];
    }
  }

  for (Sized& slope : dh) slope.size += 1e-30;  // a decay in vectors is at least 2^-126

  const auto run = [&]<class R>(R, auto kernel) {
    const Guarded<R> a(convert<R>(A), c.weight_offset), d(convert<R>(D), c.weight_offset),
        bias(convert<R>(dt_bias), c.weight_offset), h(convert<R>(h0), c.h_offset);
    const Guarded<R> in(convert<R>(x), T, c.gap, c.x_offset),
        step(convert<R>(dt), T, c.gap, c.dt_offset), gate(convert<R>(z), T, c.gap, c.z_offset);
    const Guarded<R> b(convert<R>(B), T, c.gap + 1, c.BC_offset),
        cs(convert<R>(Cs), T, c.gap + 2, c.BC_offset);
    const Guarded<R> out(convert<R>(dy), T, c.gap, c.y_offset),
        before(convert<R>(dbefore), T, c.gap, c.z_offset), apart(T, C, C + c.gap, c.dt_offset),
        din(T, C, C + c.gap, c.x_offset), dgate(T, C, C + c.gap, c.z_offset),
        parts(T, blocks * 2 * N, blocks * 2 * N + c.gap, c.BC_offset);
    const Guarded<R>& dstep = c.in_place ? out : apart;
    const Guarded<R> dstate(convert<R>(dh_end), c.h_offset), da(convert<R>(dA0), c.weight_offset),
        dd(convert<R>(dD0), c.weight_offset), dbias(convert<R>(ddt_bias0), c.weight_offset);
    // As large as the wrapper makes them.
    using Scratch = ScanBackwardScratch<Policy<R>, N, 1>;
    const Guarded<R> kept(T * (N * scan_block / scan_piece)),
        piece(static_cast<std::size_t>(decltype(Scratch::piece)::size));
    const auto n = static_cast<std::int64_t>(C);
    kernel(SelectiveScanBackwardArgs<R>{.forward = {.A = a.data(),
                                                    .D = d.data(),
                                                    .dt_bias = bias.data(),
                                                    .dt = step.data(),
                                                    .dt_stride = step.stride(),
                                                    .B = b.data(),
                                                    .B_stride = b.stride(),
                                                    .C = cs.data(),
                                                    .C_stride = cs.stride(),
                                                    .x = in.data(),
                                                    .x_stride = in.stride(),
                                                    .z = c.gate ? gate.data() : nullptr,
                                                    .z_stride = gate.stride(),
                                                    .h = h.data(),
                                                    .y = nullptr,
                                                    .y_stride = 0,
                                                    .before_gate = nullptr,
                                                    .before_gate_stride = 0,
                                                    .rows = static_cast<std::int64_t>(T),
                                                    .channels = n},
                                        .dy = out.data(),
                                        .dy_stride = out.stride(),
                                        .dbefore_gate = c.before_gate ? before.data() : nullptr,
                                        .dbefore_gate_stride = before.stride(),
                                        .ddt = dstep.data(),
                                        .ddt_stride = dstep.stride(),
                                        .dx = din.data(),
                                        .dx_stride = din.stride(),
                                        .dz = c.gate ? dgate.data() : nullptr,
                                        .dz_stride = dgate.stride(),
                                        .dBC = parts.data(),
                                        .dBC_stride = parts.stride(),
                                        .dh = dstate.data(),
                                        .dA = da.data(),
                                        .dD = dd.data(),
                                        .ddt_bias = dbias.data()},
           Range{0, n}, kept.data(), piece.data());
    CHECK((out.guarded() && apart.guarded() && din.guarded() && dgate.guarded()));
    CHECK((parts.guarded() && dstate.guarded() && da.guarded() && dd.guarded() && dbias.guarded()));
    CHECK((kept.guarded() && piece.guarded()));
    CHECK(same_bits(h.values(), convert<R>(h0)));
    Named<R> found{{"ddt", dstep.values()},     {"dx", din.values()}, {"dBC", parts.values()},
                   {"dh", dstate.values()},     {"dA", da.values()},  {"dD", dd.values()},
                   {"ddt_bias", dbias.values()}};
    if (c.gate) found.emplace_back("dz", dgate.values());
    return found;
  };
  const auto naive = [](auto... args) { reference::selective_scan_backward<N>(args...); };
  Named<Sized> exact{{"ddt", ddt}, {"dx", dx}, {"dBC", dBC},          {"dh", dh},
                     {"dA", dA},   {"dD", dD}, {"ddt_bias", ddt_bias}};
  if (c.gate) exact.emplace_back("dz", dz);
  // Roundings as in the forward pass, twice: states are computed anew, then carried back.
  check_results(exact, run(0.f, [](auto... args) { simd::selective_scan_backward<N>(args...); }),
                run(0.f, naive), run(0., naive), 32 * unit_roundoff);
}

constexpr int d_state = 5, width = 2 * static_cast<int>(scan_block) + 3;

/// The inputs of some tokens, and scans of parts of them over `width` channels.
struct Scan {
  using P = Policy<float>;

  int length;
  std::vector<float> A_memory, D_memory, bias_memory, dt, x, z, BC;  // BC: (length, 2 d_state)
  Table<float, d_state, width> A;
  Vector<float, width> D, dt_bias;
  bool gate = true;

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
                                std::vector<std::vector<float>*> h, int threads = 1,
                                std::vector<float>* before_gate = nullptr) const {
    SegmentStates<float> states(segments, std::move(h));
    const std::int64_t rows = end - begin;
    std::vector<float> y(static_cast<std::size_t>(rows * width));
    Optional<Out<P, width>> before = none;
    if (before_gate) {
      before_gate->resize(y.size());
      before = Rows<float, width>{before_gate->data(), rows};
    }
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, rows}, {team}};
      kernels::selective_scan<d_state, width>(c, {.A = A,
                                                  .D = D,
                                                  .dt_bias = dt_bias,
                                                  .dt = part(dt, begin, end),
                                                  .B = first<d_state>(fused(begin, end)),
                                                  .C = last<d_state>(fused(begin, end)),
                                                  .x = part(x, begin, end),
                                                  .z = part_of_z(begin, end),
                                                  .h = states.data(),
                                                  .y = {y.data(), rows},
                                                  .before_gate = before});
    });
    CHECK(states.take_over());
    return y;
  }

  /// The gradients of all tokens, for dy; `h` are the states of the segments before them, `dh` the
  /// gradients of those after them. The sums of the weights' gradients go on in `sums`: of A, then
  /// D, then dt_bias.
  Named<float> backward(int begin, int end, const std::vector<Segment>& segments,
                        std::vector<std::vector<float>>& h, std::vector<std::vector<float>>& dh,
                        const std::vector<float>& dy, std::vector<float>& sums, int threads = 1,
                        const std::vector<float>* dbefore_gate = nullptr) const {
    SegmentStates<float> states(segments, h), gradients(segments, dh);
    const std::int64_t rows = end - begin;
    const auto n = static_cast<std::size_t>(rows * width);
    std::vector<float> ddt(n), dx(n), dz(n), dBC(static_cast<std::size_t>(rows * 2 * d_state));
    const Rows<float, 2 * d_state> dfused{dBC.data(), rows};
    Optional<In<P, width>> dbefore = none;
    if (dbefore_gate) dbefore = part(*dbefore_gate, begin, end);
    Optional<Out<P, width>> dgate = none;
    if (gate) dgate = Rows<float, width>{dz.data(), rows};
    Table<float, d_state, width> dA;
    Vector<float, width> dD, ddt_bias;
    dA.bind(reinterpret_cast<std::byte*>(sums.data()));
    dD.bind(reinterpret_cast<std::byte*>(sums.data() + d_state * width));
    ddt_bias.bind(reinterpret_cast<std::byte*>(sums.data() + (d_state + 1) * width));
    using Scratch = ScanBackwardScratch<P, d_state, width>;
    Scratch scratch;
    ScratchPlacer places{{}, rows, threads};
    Scratch::visit(scratch, places);
    Arena memory(places.placer.offset);
    places = {{memory.data()}, rows, threads};
    Scratch::visit(scratch, places);
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, rows}, {team}};
      selective_scan_backward<d_state, width>(c,
                                              {.forward = {.A = A,
                                                           .D = D,
                                                           .dt_bias = dt_bias,
                                                           .dt = part(dt, begin, end),
                                                           .B = first<d_state>(fused(begin, end)),
                                                           .C = last<d_state>(fused(begin, end)),
                                                           .x = part(x, begin, end),
                                                           .z = part_of_z(begin, end),
                                                           .h = states.data()},
                                               .dy = part(dy, begin, end),
                                               .dbefore_gate = dbefore,
                                               .dh = gradients.data(),
                                               .ddt = {ddt.data(), rows},
                                               .dB = first<d_state>(dfused),
                                               .dC = last<d_state>(dfused),
                                               .dx = {dx.data(), rows},
                                               .dz = dgate,
                                               .dA = dA,
                                               .dD = dD,
                                               .ddt_bias = ddt_bias,
                                               .scratch = scratch});
    });
    const auto found = h;
    CHECK((states.take_over() && gradients.take_over()));
    for (std::size_t i = 0; i < h.size(); ++i) CHECK(same_bits(h[i], found[i]));
    return {{"ddt", ddt}, {"dx", dx}, {"dz", dz}, {"dBC", dBC}};
  }

 private:
  static Rows<const float, width> part(const std::vector<float>& all, int begin, int end) {
    return {all.data() + std::int64_t{begin} * width, end - begin};
  }
  Rows<const float, 2 * d_state> fused(int begin, int end) const {
    return {BC.data() + std::int64_t{begin} * 2 * d_state, end - begin};
  }
  Optional<In<P, width>> part_of_z(int begin, int end) const {
    if (!gate) return none;
    return part(z, begin, end);
  }
};

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("selective_scan: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels)
    check<16>({.rows = 5, .channels = channels}, rng);
}

TEST_CASE("selective_scan: simd against reference, numbers of states and lengths") {
  Random rng;
  for (const std::size_t rows : {1u, 2u, 3u, 40u})
    for (const bool in_place : {false, true}) {
      const Case c{.rows = rows, .channels = vector_floats + 1, .in_place = in_place};
      check<1>(c, rng);
      check<7>(c, rng);
      check<16>(c, rng);
      check<32>(c, rng);
    }
}

TEST_CASE("selective_scan: without a gate, and what y was before it") {
  Random rng;
  for (const bool gate : {false, true})
    for (const bool before_gate : {false, true})
      for (const bool in_place : {false, true})
        for (const std::size_t gap : {0u, 3u}) {
          Case c{.rows = 9, .channels = 2 * vector_floats + 3, .gap = gap, .in_place = in_place};
          c.gate = gate;
          c.before_gate = before_gate;
          check<4>(c, rng);
          check<7>(c, rng);
        }
  every_misalignment(Case{.rows = 3, .channels = vector_floats + 3, .before_gate = true},
                     {&Case::z_offset, &Case::y_offset}, [&](const Case& c) { check<4>(c, rng); });
}

TEST_CASE("selective_scan: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.rows = 3, .channels = 2 * vector_floats + 3},
                     {&Case::weight_offset, &Case::x_offset, &Case::dt_offset, &Case::z_offset,
                      &Case::BC_offset, &Case::h_offset, &Case::y_offset},
                     [&](const Case& c) { check<4>(c, rng); });
}

TEST_CASE("selective_scan: time steps from vanishing to large") {
  Random rng;
  // From steps that change nothing to steps that forget everything, each alone, so that none hides
  // in the norm of another.
  for (double dt = -80; dt < 200; dt += 4)
    check<4>({.rows = 6, .channels = 2 * vector_floats + 1, .dt_low = dt, .dt_high = dt + 4}, rng);
  for (const double A : {-1e-6, -1e-3, -100., -1e6})
    check<4>({.rows = 6, .channels = 2 * vector_floats + 1, .A_low = A, .A_high = A / 2}, rng);
  check<4>({.rows = 6, .channels = vector_floats, .dt_low = -200, .dt_high = 200}, rng);
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
    segments.push_back({0, at, n, 4 - std::ssize(segments)});
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

TEST_CASE("selective_scan: segments without a gate, and what y was before it") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 15;
  Scan scan(length, rng);
  const auto start = rng.values(d_state * width), other = rng.values(d_state * width);
  const std::vector<Segment> segments{{0, 0, 6, 1}, {0, 6, length - 6, 0}};
  for (int threads = 1; threads <= 3; ++threads) {
    CAPTURE(threads);
    const auto run = [&](bool gate, std::vector<float>* before_gate) {
      auto h = start, h_of_other = other;
      scan.gate = gate;
      auto y = scan(0, length, segments, {&h, &h_of_other}, threads, before_gate);
      append(y, h);
      append(y, h_of_other);
      return y;
    };
    const auto gated = run(true, nullptr), bare = run(false, nullptr);
    std::vector<float> before_gate, again;
    CHECK(same_result(run(true, &before_gate), gated));
    CHECK(same_result(run(false, &again), bare));
    append(before_gate, {bare.begin() + length * width, bare.end()});
    append(again, {bare.begin() + length * width, bare.end()});
    CHECK(same_result(before_gate, bare));
    CHECK(same_result(again, bare));
    std::vector<double> expected;
    for (std::size_t i = 0; i < length * width; ++i)
      expected.push_back(double{bare[i]} * exact_silu(double{scan.z[i]}));
    CHECK(relative_error(std::vector<float>(gated.begin(), gated.begin() + length * width),
                         expected) <= 8 * unit_roundoff);
  }
}

TEST_CASE("selective_scan backward: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels)
    check_backward<16>({.rows = 5, .channels = channels}, rng);
  constexpr std::size_t block = scan_block;
  for (const std::size_t channels : {block - 1, block, block + 1, 2 * block + 9})
    check_backward<3>({.rows = 19, .channels = channels}, rng);
}

TEST_CASE("selective_scan backward: simd against reference, numbers of states and lengths") {
  Random rng;
  for (const std::size_t rows : {1u, 2u, 15u, 16u, 17u, 32u, 33u, 70u})
    for (const bool in_place : {false, true}) {
      const Case c{.rows = rows, .channels = vector_floats + 1, .in_place = in_place};
      check_backward<3>(c, rng);
      check_backward<16>(c, rng);
      check_backward<64>(c, rng);
    }
}

TEST_CASE("selective_scan backward: without a gate, and with a gradient of y before it") {
  Random rng;
  for (const bool gate : {false, true})
    for (const bool before_gate : {false, true})
      for (const bool in_place : {false, true})
        for (const std::size_t gap : {0u, 3u}) {
          Case c{.rows = 19, .channels = 2 * vector_floats + 3, .gap = gap, .in_place = in_place};
          c.gate = gate;
          c.before_gate = before_gate;
          check_backward<3>(c, rng);
          check_backward<16>(c, rng);
        }
  every_misalignment(Case{.rows = 3, .channels = vector_floats + 3, .before_gate = true},
                     {&Case::z_offset, &Case::y_offset},
                     [&](const Case& c) { check_backward<4>(c, rng); });
}

TEST_CASE("selective_scan backward: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.rows = 18, .channels = 2 * vector_floats + 3},
                     {&Case::weight_offset, &Case::x_offset, &Case::dt_offset, &Case::z_offset,
                      &Case::BC_offset, &Case::h_offset, &Case::y_offset},
                     [&](const Case& c) { check_backward<3>(c, rng); });
}

TEST_CASE("selective_scan backward: time steps from vanishing to large") {
  Random rng;
  for (double dt = -80; dt < 200; dt += 4)
    check_backward<3>({.rows = 6, .channels = vector_floats + 1, .dt_low = dt, .dt_high = dt + 4},
                      rng);
  for (const double A : {-1e-6, -1e-3, -100., -1e6})
    check_backward<3>({.rows = 6, .channels = vector_floats + 1, .A_low = A, .A_high = A / 2}, rng);
}

TEST_CASE("selective_scan backward: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 60;
  const Scan scan(length, rng);
  const auto dy = rng.values(scan.size(width)), old = rng.values((d_state + 2) * width);
  std::vector<Segment> segments;
  std::vector<std::vector<float>> h, starts, ends;
  Named<float> alone{{"ddt", {}}, {"dx", {}}, {"dz", {}}, {"dBC", {}}};
  auto sums = old;
  int at = 0;
  for (const int n : {1, 35, 16, 0, 8}) {
    segments.push_back({0, at, n, 4 - std::ssize(segments)});
    h.push_back(rng.values(d_state * width));
    starts.push_back(rng.values(d_state * width));
    std::vector<std::vector<float>> before{h.back()}, dh{starts.back()};
    const auto part = scan.backward(at, at + n, {{0, 0, n}}, before, dh, dy, sums);
    for (std::size_t i = 0; i < part.size(); ++i) append(alone[i].second, part[i].second);
    if (n == 0) CHECK(same_bits(dh[0], starts.back()));
    ends.push_back(dh[0]);
    at += n;
  }
  REQUIRE(at == length);
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    auto dh = starts;
    auto together = old;
    CHECK(same_results(scan.backward(0, length, segments, h, dh, dy, together, threads), alone));
    CHECK(same_result(together, sums));
    for (std::size_t s = 0; s < dh.size(); ++s) CHECK(same_result(dh[s], ends[s]));
  }
}

TEST_CASE("selective_scan backward: gradients before the gate of segments, of any threads") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 40;
  Scan scan(length, rng);
  const auto dbefore = rng.values(scan.size(width)), dy = rng.values(scan.size(width)),
             start = rng.values(d_state * width);
  const std::vector<float> zeros(dy.size());
  const std::vector<Segment> segments{{0, 0, 17, 1}, {0, 17, length - 17, 0}};
  const auto run = [&](bool gate, const std::vector<float>& gradient,
                       const std::vector<float>* before_gate, int threads) {
    std::vector<std::vector<float>> h{start, start}, dh(2, std::vector<float>(d_state * width));
    std::vector<float> sums((d_state + 2) * width);
    scan.gate = gate;
    auto found = scan.backward(0, length, segments, h, dh, gradient, sums, threads, before_gate);
    found.insert(found.end(), {{"sums", sums}, {"dh", dh[0]}, {"dh", dh[1]}});
    if (!gate || before_gate) found.erase(found.begin() + 2);  // dz: 0 if dy is, else not written
    return found;
  };
  // A gradient before the gate is one of y without a gate.
  const auto alone = run(false, dbefore, nullptr, 1);
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    CHECK(same_results(run(false, dbefore, nullptr, threads), alone));
    CHECK(same_results(run(true, zeros, &dbefore, threads), alone));
    CHECK(same_results(run(false, zeros, &dbefore, threads), alone));
  }
}
