#include <samba/kernels/cpu/rg_lru.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

struct Case {
  std::size_t rows, channels;
  double i_low = -3, i_high = 3;  ///< the gates before their sigmoids
  double r_low = -3, r_high = 3;
  double param_low = -7, param_high = 1;
  std::size_t weight_offset = 0, i_offset = 0, r_offset = 0, x_offset = 0, h_offset = 0,
              y_offset = 0, gap = 0;
  bool at_start = false;  ///< the first row is at position 0
  bool in_place = false;  ///< y is the recurrent gate, the gradient of that gate is dy
};

double exact_softplus(double x) { return std::max(x, 0.) + std::log1p(std::exp(-std::abs(x))); }

/// Random inputs of a case, and the gates of a token in double.
struct Inputs {
  std::size_t C, T;
  bool at_start;
  std::vector<float> param, i_bias, r_bias, i, r, x, h0;

  Inputs(const Case& c, Random& rng)
      : C(c.channels),
        T(c.rows),
        at_start(c.at_start),
        param(rng.values(C, c.param_low, c.param_high)),
        i_bias(rng.values(C)),
        r_bias(rng.values(C)),
        i(rng.values(T * C, c.i_low, c.i_high)),
        r(rng.values(T * C, c.r_low, c.r_high)),
        x(rng.values(T * C)),
        h0(rng.values(C)) {}

  bool restarts(std::size_t t) const { return at_start && t == 0; }
  double input_gate(std::size_t t, std::size_t c) const {
    return exact_sigmoid(double{i[t * C + c]} + double{i_bias[c]});
  }
  double recurrent_gate(std::size_t t, std::size_t c) const {
    return exact_sigmoid(double{r[t * C + c]} + double{r_bias[c]});
  }
  double log_a(std::size_t t, std::size_t c) const {
    return -8 * recurrent_gate(t, c) * exact_softplus(double{param[c]});
  }
  double a(std::size_t t, std::size_t c) const { return restarts(t) ? 0 : std::exp(log_a(t, c)); }
  /// sqrt((1 - a)(1 + a))
  double factor(std::size_t t, std::size_t c) const {
    return restarts(t) ? 1 : std::sqrt(-std::expm1(log_a(t, c)) * (1 + std::exp(log_a(t, c))));
  }
};

/// The same in guarded buffers of a type.
template <class R>
struct Buffers {
  Guarded<R> param, i_bias, r_bias, i, r, x, h;

  Buffers(const Inputs& in, const Case& c)
      : param(convert<R>(in.param), c.weight_offset),
        i_bias(convert<R>(in.i_bias), c.weight_offset),
        r_bias(convert<R>(in.r_bias), c.weight_offset),
        i(convert<R>(in.i), in.T, c.gap, c.i_offset),
        r(convert<R>(in.r), in.T, c.gap + 1, c.r_offset),
        x(convert<R>(in.x), in.T, c.gap + 2, c.x_offset),
        h(convert<R>(in.h0), c.h_offset) {}

  RgLruArgs<R> args(const Inputs& in, const Guarded<R>* y) const {
    return {.param = param.data(),
            .input_bias = i_bias.data(),
            .recurrent_bias = r_bias.data(),
            .input_gate = i.data(),
            .input_gate_stride = i.stride(),
            .recurrent_gate = r.data(),
            .recurrent_gate_stride = r.stride(),
            .x = x.data(),
            .x_stride = x.stride(),
            .h = h.data(),
            .y = y ? y->data() : nullptr,
            .y_stride = y ? y->stride() : 0,
            .at_start = in.at_start,
            .rows = static_cast<std::int64_t>(in.T),
            .channels = static_cast<std::int64_t>(in.C)};
  }
};

#define CAPTURE_CASE(c, rng)                                                               \
  CAPTURE(rng.seed, c.rows, c.channels, c.i_low, c.i_high, c.r_low, c.r_high, c.param_low, \
          c.param_high, c.weight_offset, c.i_offset, c.r_offset, c.x_offset, c.h_offset,   \
          c.y_offset, c.gap, c.at_start, c.in_place)

/// simd and reference against the recurrence.
void check(const Case& c, Random& rng) {
  CAPTURE_CASE(c, rng);
  const Inputs in(c, rng);
  std::vector<double> h = convert<double>(in.h0), magnitude, y, y_magnitude;
  for (const double x : h) magnitude.push_back(std::abs(x));
  for (std::size_t t = 0; t < in.T; ++t)
    for (std::size_t k = 0; k < in.C; ++k) {
      const double a = in.a(t, k),
                   term = in.factor(t, k) * in.input_gate(t, k) * double{in.x[t * in.C + k]};
      y.push_back(h[k] = a * h[k] + term);
      y_magnitude.push_back(magnitude[k] = a * magnitude[k] + std::abs(term));
    }

  const auto run = [&]<class R>(R, auto kernel) {
    const Buffers<R> b(in, c);
    const Guarded<R> apart(in.T, in.C, in.C + c.gap, c.y_offset);
    const Guarded<R>& out = c.in_place ? b.r : apart;
    kernel(b.args(in, &out), Range{0, static_cast<std::int64_t>(in.C)});
    CHECK((out.guarded() && b.h.guarded()));
    return std::pair(out.values(), b.h.values());
  };
  const auto fast = run(0.f, [](auto a, Range r) { simd::rg_lru(a, r); });
  const auto naive = run(0.f, [](auto a, Range r) { reference::rg_lru(a, r); });
  const auto naive_double = run(0., [](auto a, Range r) { reference::rg_lru(a, r); });

  // A step's roundings: two sigmoids, softplus and exp (4 each), and those of log a that exp
  // multiplies into its result (|log a| <= 4 where that still counts), products and sums.
  constexpr double tiny = 16 * unit_roundoff;
  CHECK(error_to(fast.first, y, y_magnitude) <= 2 * error_to(naive.first, y, y_magnitude) + tiny);
  CHECK(error_to(fast.second, h, magnitude) <= 2 * error_to(naive.second, h, magnitude) + tiny);
  CHECK(error_to(naive_double.first, y, y_magnitude) <= 1e-14);
  CHECK(error_to(naive_double.second, h, magnitude) <= 1e-14);
}

/// The gradients of simd and reference, for random gradients of y and of the state at the end,
/// against those of the recurrence in double. Those of the weights are added to what was there.
void check_backward(const Case& c, Random& rng) {
  CAPTURE_CASE(c, rng);
  const Inputs in(c, rng);
  const std::size_t C = in.C, T = in.T;
  const auto dy = rng.values(T * C), dh_end = rng.values(C), dparam0 = rng.values(C),
             di_bias0 = rng.values(C), dr_bias0 = rng.values(C);

  const std::vector<Sized> zeros(T * C);
  std::vector<Sized> di = zeros, dr = zeros, dx = zeros, dh = sized(dh_end),
                     dparam = sized(dparam0), di_bias = sized(di_bias0), dr_bias = sized(dr_bias0);
  std::vector<double> y;
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t k = 0; k < C; ++k) {
      const double before = t > 0 ? y[(t - 1) * C + k] : double{in.h0[k]};
      y.push_back(in.a(t, k) * before +
                  in.factor(t, k) * in.input_gate(t, k) * double{in.x[t * C + k]});
    }
  for (std::size_t k = 0; k < C; ++k)
    for (std::size_t t = T; t-- > 0;) {
      const Sized x = double{in.x[t * C + k]},
                  before = t > 0 ? y[(t - 1) * C + k] : double{in.h0[k]};
      const Sized i = in.input_gate(t, k), r = in.recurrent_gate(t, k), f = in.factor(t, k);
      const double log_a = in.log_a(t, k), p = double{in.param[k]};
      // exp turns a rounding of its argument into one of its result.
      const Sized a(in.a(t, k), in.a(t, k) * (1 - log_a));
      const Sized g = dh[k] + Sized(double{dy[t * C + k]});
      // The gradient of log a, times r or times softplus(param), and so times log a in all.
      const Sized dlog = in.restarts(t) ? Sized(0)
                                        : g * a * Sized(log_a) * before -
                                              g * i * x * a * a * Sized(log_a / f.value);
      dx[t * C + k] = g * f * i;
      di[t * C + k] = g * f * x * i * (Sized(1) - i);
      dr[t * C + k] = dlog * (Sized(1) - r);
      di_bias[k] += di[t * C + k];
      dr_bias[k] += dr[t * C + k];
      dparam[k] += dlog * Sized(exact_sigmoid(p) / exact_softplus(p));
      dh[k] = g * a;
    }
  // A decay in vectors is at least e^-87.3.
  for (auto* const gradient : {&dr, &dh})
    for (Sized& one : *gradient) one.size += 1e-30;

  const auto run = [&]<class R>(R, auto kernel) {
    const Buffers<R> b(in, c);
    const Guarded<R> states(convert<R>(y), T, c.gap, c.y_offset),
        up(convert<R>(dy), T, c.gap, c.r_offset), apart(T, C, C + c.gap, c.y_offset),
        din(T, C, C + c.gap, c.i_offset), dinput(T, C, C + c.gap, c.x_offset);
    const Guarded<R>& drec = c.in_place ? up : apart;
    const Guarded<R> dstate(convert<R>(dh_end), c.h_offset),
        dp(convert<R>(dparam0), c.weight_offset), dib(convert<R>(di_bias0), c.weight_offset),
        drb(convert<R>(dr_bias0), c.weight_offset);
    kernel(RgLruBackwardArgs<R>{.forward = b.args(in, nullptr),
                                .y = states.data(),
                                .y_stride = states.stride(),
                                .dy = up.data(),
                                .dy_stride = up.stride(),
                                .dinput_gate = din.data(),
                                .dinput_gate_stride = din.stride(),
                                .drecurrent_gate = drec.data(),
                                .drecurrent_gate_stride = drec.stride(),
                                .dx = dinput.data(),
                                .dx_stride = dinput.stride(),
                                .dh = dstate.data(),
                                .dparam = dp.data(),
                                .dinput_bias = dib.data(),
                                .drecurrent_bias = drb.data()},
           Range{0, static_cast<std::int64_t>(C)});
    CHECK((up.guarded() && apart.guarded() && din.guarded() && dinput.guarded()));
    CHECK((dstate.guarded() && dp.guarded() && dib.guarded() && drb.guarded()));
    CHECK(same_bits(b.h.values(), convert<R>(in.h0)));
    return Named<R>{{"dinput_gate", din.values()},    {"drecurrent_gate", drec.values()},
                    {"dx", dinput.values()},          {"dh", dstate.values()},
                    {"dparam", dp.values()},          {"dinput_bias", dib.values()},
                    {"drecurrent_bias", drb.values()}};
  };
  const auto naive = [](auto... args) { reference::rg_lru_backward(args...); };
  const Named<Sized> exact{{"dinput_gate", di},
                           {"drecurrent_gate", dr},
                           {"dx", dx},
                           {"dh", dh},
                           {"dparam", dparam},
                           {"dinput_bias", di_bias},
                           {"drecurrent_bias", dr_bias}};
  // Roundings as in the forward pass, twice: gates are computed anew, then gradients carried back.
  check_results(exact, run(0.f, [](auto... args) { simd::rg_lru_backward(args...); }),
                run(0.f, naive), run(0., naive), 32 * unit_roundoff);
}

void check_both(const Case& c, Random& rng) {
  check(c, rng);
  check_backward(c, rng);
}

constexpr int heads = 3, width = 3 * (2 * static_cast<int>(line_floats) + 1);

/// The inputs of some tokens, and runs of parts of them.
struct Recurrence {
  using P = Policy<float>;

  int length;
  std::vector<float> weights, i, r, x;  // weights: param, then the biases

  Recurrence(int tokens, Random& rng)
      : length(tokens),
        weights(rng.values(3 * width, -4, 1)),
        i(rng.values(size())),
        r(rng.values(size())),
        x(rng.values(size())) {}
  std::size_t size() const { return static_cast<std::size_t>(length * width); }

  template <class Tensor>
  static Tensor bound(const std::vector<float>& numbers, int vector) {
    Tensor tensor;
    tensor.bind(reinterpret_cast<std::byte*>(const_cast<float*>(numbers.data()) + vector * width));
    return tensor;
  }
  using Biases = Table<float, heads, width / heads>;

  RgLruInputs<P, heads, width> inputs(int begin, int end, ArrayData<float> h) const {
    return {.param = bound<Vector<float, width>>(weights, 0),
            .input_bias = bound<Biases>(weights, 1),
            .recurrent_bias = bound<Biases>(weights, 2),
            .input_gate = part(i, begin, end),
            .recurrent_gate = part(r, begin, end),
            .x = part(x, begin, end),
            .h = h};
  }

  /// Tokens [begin, end); `h` are the states of the segments, advanced.
  std::vector<float> operator()(int begin, int end, const std::vector<Segment>& segments,
                                std::vector<std::vector<float>*> h, int threads = 1) const {
    SegmentStates<float> states(segments, std::move(h));
    const std::int64_t rows = end - begin;
    std::vector<float> y(static_cast<std::size_t>(rows * width));
    parallel(threads, [&](Team team) {
      rg_lru<heads, width>(Context<P>{{segments, rows}, {team}},
                           {.in = inputs(begin, end, states.data()), .y = {y.data(), rows}});
    });
    CHECK(states.take_over());
    return y;
  }

  /// The gradients of all tokens, for dy; `h` are the states of the segments before them, `dh` the
  /// gradients of those after them. The sums of the weights' gradients go on in `sums`.
  Named<float> backward(int begin, int end, const std::vector<Segment>& segments,
                        std::vector<std::vector<float>>& h, std::vector<std::vector<float>>& dh,
                        const std::vector<float>& dy, std::vector<float>& sums,
                        int threads = 1) const {
    std::vector<std::vector<float>> moved = h;
    std::vector<std::vector<float>*> pointers;
    for (auto& state : moved) pointers.push_back(&state);
    const auto y = (*this)(begin, end, segments, pointers);
    SegmentStates<float> states(segments, h), gradients(segments, dh);
    const std::int64_t rows = end - begin;
    std::vector<float> di(y.size()), dr(y.size()), dx(y.size());
    auto dparam = bound<Vector<float, width>>(sums, 0);
    auto di_bias = bound<Biases>(sums, 1), dr_bias = bound<Biases>(sums, 2);
    parallel(threads, [&](Team team) {
      rg_lru_backward<heads, width>(Context<P>{{segments, rows}, {team}},
                                    {.forward = inputs(begin, end, states.data()),
                                     .y = {y.data(), rows},
                                     .dy = part(dy, begin, end),
                                     .dh = gradients.data(),
                                     .dinput_gate = {di.data(), rows},
                                     .drecurrent_gate = {dr.data(), rows},
                                     .dx = {dx.data(), rows},
                                     .dparam = dparam,
                                     .dinput_bias = di_bias,
                                     .drecurrent_bias = dr_bias});
    });
    const auto found = h;
    CHECK((states.take_over() && gradients.take_over()));
    for (std::size_t s = 0; s < h.size(); ++s) CHECK(same_bits(h[s], found[s]));
    return {{"di", di}, {"dr", dr}, {"dx", dx}};
  }

 private:
  static Rows<const float, width> part(const std::vector<float>& all, int begin, int end) {
    return {all.data() + std::int64_t{begin} * width, end - begin};
  }
};

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("rg_lru: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels)
    check_both({.rows = 5, .channels = channels}, rng);
}

TEST_CASE("rg_lru: simd against reference, lengths, the start of a sequence, in place") {
  Random rng;
  for (const std::size_t rows : {1u, 2u, 7u, 8u, 9u, 16u, 17u, 50u})
    for (const bool at_start : {false, true})
      for (const bool in_place : {false, true})
        check_both({.rows = rows,
                    .channels = vector_floats + 1,
                    .at_start = at_start,
                    .in_place = in_place},
                   rng);
}

TEST_CASE("rg_lru: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.rows = 10, .channels = 2 * vector_floats + 3},
                     {&Case::weight_offset, &Case::i_offset, &Case::r_offset, &Case::x_offset,
                      &Case::h_offset, &Case::y_offset},
                     [&](const Case& c) { check_both(c, rng); });
}

TEST_CASE("rg_lru: gates from closed to open, decays from nothing to almost one") {
  Random rng;
  // Each range alone, so that none hides in the norm of another.
  constexpr std::size_t channels = 2 * vector_floats + 1;
  for (double gate = -72; gate < 72; gate += 4) {
    check_both({.rows = 9, .channels = channels, .i_low = gate, .i_high = gate + 4}, rng);
    check_both({.rows = 9, .channels = channels, .r_low = gate, .r_high = gate + 4}, rng);
  }
  for (double param = -60; param < 100; param += 4)
    check_both({.rows = 9, .channels = channels, .param_low = param, .param_high = param + 4}, rng);
}

TEST_CASE("rg_lru: gradients stay finite where a is 1") {
  Random rng;
  CAPTURE(rng.seed);
  for (const double gate : {-1000., -110., -90.})
    for (const double param : {-1000., -110., -90., 1000.}) {
      CAPTURE(gate, param);
      const Case c{.rows = 3,
                   .channels = vector_floats + 1,
                   .r_low = gate,
                   .r_high = gate,
                   .param_low = param,
                   .param_high = param};
      const Inputs in(c, rng);
      const auto run = [&](auto kernel) {
        const Buffers<float> b(in, c);
        const std::vector<float> ones(in.T * in.C, 1.f), y = ones;
        std::vector<float> di(y), dr(y), dx(y), sums(4 * in.C);
        const auto n = static_cast<std::int64_t>(in.C);
        kernel(RgLruBackwardArgs<float>{.forward = b.args(in, nullptr),
                                        .y = y.data(),
                                        .y_stride = n,
                                        .dy = ones.data(),
                                        .dy_stride = n,
                                        .dinput_gate = di.data(),
                                        .dinput_gate_stride = n,
                                        .drecurrent_gate = dr.data(),
                                        .drecurrent_gate_stride = n,
                                        .dx = dx.data(),
                                        .dx_stride = n,
                                        .dh = sums.data(),
                                        .dparam = sums.data() + n,
                                        .dinput_bias = sums.data() + 2 * n,
                                        .drecurrent_bias = sums.data() + 3 * n},
               Range{0, n});
        for (const auto* values : {&di, &dr, &dx, &sums})
          for (const float x : *values) CHECK(is_finite(x));
        // Nothing is left of what the gate and the parameter do.
        for (const float x : dr) CHECK(std::abs(x) < 1e-10f);
      };
      run([](auto... args) { simd::rg_lru_backward(args...); });
      run([](auto... args) { reference::rg_lru_backward(args...); });
    }
}

TEST_CASE("rg_lru: without rows nothing changes") {
  Random rng;
  CAPTURE(rng.seed);
  const Recurrence recurrence(1, rng);
  for (const int position : {0, 3}) {
    auto h = rng.values(width);
    const auto before = h;
    recurrence(0, 0, {{position, 0, 0}}, {&h});
    CHECK(same_bits(h, before));
  }
}

TEST_CASE("rg_lru: at position 0 an earlier state does not count") {
  Random rng;
  CAPTURE(rng.seed);
  const Recurrence recurrence(6, rng);
  std::vector<float> zero(width), other = rng.values(width), same = other, later = other;
  const auto expected = recurrence(0, 6, {{0, 0, 6}}, {&zero});
  CHECK(same_result(recurrence(0, 6, {{0, 0, 6}}, {&other}), expected));
  CHECK(same_result(other, zero));
  CHECK_FALSE(same_result(recurrence(0, 6, {{1, 0, 6}}, {&later}), expected));
  std::vector<std::vector<float>> h{same}, dh{rng.values(width)};
  std::vector<float> sums(3 * width);
  recurrence.backward(0, 6, {{0, 0, 6}}, h, dh, rng.values(recurrence.size()), sums);
  for (const float x : dh[0]) CHECK(x == 0);
}

TEST_CASE("rg_lru: the same bits for a sequence split anywhere") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 20;
  const Recurrence recurrence(length, rng);
  for (const int position : {0, 5}) {
    const auto start = rng.values(width);
    auto whole_h = start;
    const auto whole = recurrence(0, length, {{position, 0, length}}, {&whole_h});
    for (int split = 0; split <= length; ++split) {
      CAPTURE(position, split);
      auto h = start;
      auto y = recurrence(0, split, {{position, 0, split}}, {&h});
      append(y, recurrence(split, length, {{position + split, 0, length - split}}, {&h}));
      CHECK(same_result(y, whole));
      CHECK(same_result(h, whole_h));
    }
  }
}

TEST_CASE("rg_lru: segments of a chunk as alone, for any number of threads, and their gradients") {
  Random rng;
  CAPTURE(rng.seed);
  constexpr int length = 60;
  const Recurrence recurrence(length, rng);
  const auto dy = rng.values(recurrence.size()), old = rng.values(3 * width);
  std::vector<Segment> segments;
  std::vector<std::vector<float>> starts, ends, slopes, end_slopes;
  std::vector<float> alone;
  Named<float> gradients{{"di", {}}, {"dr", {}}, {"dx", {}}};
  auto sums = old;
  int at = 0;
  for (const int n : {1, 35, 16, 0, 8}) {
    const std::int64_t position = n == 16 ? 0 : 2;
    segments.push_back({position, at, n, 4 - std::ssize(segments)});
    starts.push_back(rng.values(width));
    slopes.push_back(rng.values(width));
    auto h = starts.back();
    append(alone, recurrence(at, at + n, {{position, 0, n}}, {&h}));
    ends.push_back(h);
    std::vector<std::vector<float>> before{starts.back()}, dh{slopes.back()};
    const auto part = recurrence.backward(at, at + n, {{position, 0, n}}, before, dh, dy, sums);
    for (std::size_t k = 0; k < part.size(); ++k) append(gradients[k].second, part[k].second);
    if (n == 0) CHECK(same_bits(dh[0], slopes.back()));
    end_slopes.push_back(dh[0]);
    at += n;
  }
  REQUIRE(at == length);
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    auto h = starts, dh = slopes;
    std::vector<std::vector<float>*> states;
    for (auto& state : h) states.push_back(&state);
    CHECK(same_result(recurrence(0, length, segments, states, threads), alone));
    for (std::size_t s = 0; s < h.size(); ++s) CHECK(same_result(h[s], ends[s]));
    h = starts;
    auto together = old;
    CHECK(same_results(recurrence.backward(0, length, segments, h, dh, dy, together, threads),
                       gradients));
    CHECK(same_result(together, sums));
    for (std::size_t s = 0; s < dh.size(); ++s) CHECK(same_result(dh[s], end_slopes[s]));
  }
}
