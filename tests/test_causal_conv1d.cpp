#include <samba/kernels/cpu/causal_conv1d.hpp>

#include <tests/catch.hpp>
#include <tests/gradients.hpp>
#include <tests/support.hpp>

using namespace samba;
using namespace samba_test;
using namespace samba::kernels;

namespace {

struct Case {
  std::size_t rows, channels;
  std::size_t weight_offset = 0, bias_offset = 0, x_offset = 0, past_offset = 0, y_offset = 0,
              gap = 0;
};

/// simd and reference against the definition, in double over past and x laid end to end.
template <int Taps, bool Silu>
void check(const Case& c, Random& rng) {
  CAPTURE(rng.seed, Taps, Silu, c.rows, c.channels, c.weight_offset, c.bias_offset, c.x_offset,
          c.past_offset, c.y_offset, c.gap);
  const std::size_t C = c.channels, T = c.rows;
  const auto weight = rng.values(Taps * C), bias = rng.values(C), x = rng.values(T * C),
             past = rng.values((Taps - 1) * C);

  auto inputs = past;
  inputs.insert(inputs.end(), x.begin(), x.end());
  const std::vector<float> next_past(inputs.end() - (Taps - 1) * static_cast<std::ptrdiff_t>(C),
                                     inputs.end());
  std::vector<double> exact, magnitude;
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t i = 0; i < C; ++i) {
      double sum = double{bias[i]}, absolute = std::abs(sum);
      for (std::size_t j = 0; j < Taps; ++j) {
        const double product = double{weight[j * C + i]} * double{inputs[(t + j) * C + i]};
        sum += product;
        absolute += std::abs(product);
      }
      exact.push_back(Silu ? sum / (1 + std::exp(-sum)) : sum);
      magnitude.push_back(absolute);
    }

  const auto convolution = [&]<class R>(R, auto kernel) {
    const Guarded<R> w(convert<R>(weight), c.weight_offset), b(convert<R>(bias), c.bias_offset);
    const Guarded<R> in(convert<R>(x), T, c.gap, c.x_offset),
        carried(convert<R>(past), c.past_offset);
    const Guarded<R> out(T, C, C + c.gap, c.y_offset);
    const auto n = static_cast<std::int64_t>(C);
    kernel(CausalConv1dArgs<R>{.weight = w.data(),
                               .bias = b.data(),
                               .x = in.data(),
                               .x_stride = in.stride(),
                               .past = carried.data(),
                               .y = out.data(),
                               .y_stride = out.stride(),
                               .rows = static_cast<std::int64_t>(T),
                               .channels = n},
           Range{0, n});
    CHECK((out.guarded() && carried.guarded()));
    CHECK(same_bits(carried.values(), convert<R>(next_past)));
    return out.values();
  };
  const auto simd =
      convolution(0.f, [](auto a, Range r) { simd::causal_conv1d<Taps, Silu>(a, r); });
  const auto naive =
      convolution(0.f, [](auto a, Range r) { reference::causal_conv1d<Taps, Silu>(a, r); });
  const auto naive_double =
      convolution(0., [](auto a, Range r) { reference::causal_conv1d<Taps, Silu>(a, r); });

  // Taps roundings of partial sums, and with silu those of exp (4), a sum and a division.
  CHECK(error_to(simd, exact, magnitude) <=
        2 * error_to(naive, exact, magnitude) + (Silu ? 8 : 2) * unit_roundoff);
  CHECK(error_to(naive_double, exact, magnitude) <= 1e-15);
}

/// The gradients of simd and reference, for random gradients of y and of past as it is left,
/// against the definition in double. Those of weight and bias are added to what was there.
template <int Taps, bool Silu>
void check_backward(const Case& c, Random& rng) {
  CAPTURE(rng.seed, Taps, Silu, c.rows, c.channels, c.weight_offset, c.bias_offset, c.x_offset,
          c.past_offset, c.y_offset, c.gap);
  const std::size_t C = c.channels, T = c.rows, earlier = Taps - 1;
  const auto weight = rng.values(Taps * C), bias = rng.values(C), x = rng.values(T * C),
             past = rng.values(earlier * C), dy = rng.values(T * C),
             dpast_end = rng.values(earlier * C), dweight0 = rng.values(Taps * C),
             dbias0 = rng.values(C);

  // Inputs and their gradients from the first of past on; the last ones are left as past.
  auto inputs = past;
  inputs.insert(inputs.end(), x.begin(), x.end());
  std::vector<Sized> dinputs(inputs.size()), dweight = sized(dweight0), dbias = sized(dbias0);
  for (std::size_t i = 0; i < earlier * C; ++i) dinputs[T * C + i] = double{dpast_end[i]};
  for (std::size_t t = 0; t < T; ++t)
    for (std::size_t i = 0; i < C; ++i) {
      double sum = double{bias[i]};
      for (std::size_t j = 0; j < Taps; ++j)
        sum += double{weight[j * C + i]} * double{inputs[(t + j) * C + i]};
      const Sized d = Sized(double{dy[t * C + i]}) * (Silu ? exact_silu_derivative(sum) : Sized(1));
      dbias[i] += d;
      for (std::size_t j = 0; j < Taps; ++j) {
        dweight[j * C + i] += d * double{inputs[(t + j) * C + i]};
        dinputs[(t + j) * C + i] += d * double{weight[j * C + i]};
      }
    }
  const auto first_x = dinputs.begin() + static_cast<std::ptrdiff_t>(earlier * C);

  const auto run = [&]<class R>(R, auto kernel) {
    const Guarded<R> w(convert<R>(weight), c.weight_offset), b(convert<R>(bias), c.bias_offset);
    const Guarded<R> in(convert<R>(x), T, c.gap, c.x_offset),
        carried(convert<R>(past), c.past_offset);
    const Guarded<R> out(convert<R>(dy), T, c.gap, c.y_offset), din(T, C, C + c.gap, c.x_offset),
        dcarried(convert<R>(dpast_end), c.past_offset);
    const Guarded<R> dw(convert<R>(dweight0), c.weight_offset),
        db(convert<R>(dbias0), c.bias_offset);
    const auto n = static_cast<std::int64_t>(C);
    kernel(CausalConv1dBackwardArgs<R>{.forward = {.weight = w.data(),
                                                   .bias = b.data(),
                                                   .x = in.data(),
                                                   .x_stride = in.stride(),
                                                   .past = carried.data(),
                                                   .y = nullptr,
                                                   .y_stride = 0,
                                                   .rows = static_cast<std::int64_t>(T),
                                                   .channels = n},
                                       .dy = out.data(),
                                       .dy_stride = out.stride(),
                                       .dx = din.data(),
                                       .dx_stride = din.stride(),
                                       .dpast = dcarried.data(),
                                       .dweight = dw.data(),
                                       .dbias = db.data()},
           Range{0, n});
    CHECK((din.guarded() && dcarried.guarded() && dw.guarded() && db.guarded()));
    CHECK((same_bits(carried.values(), convert<R>(past)) && same_bits(in.values(), convert<R>(x))));
    return Named<R>{{"dx", din.values()},
                    {"dpast", dcarried.values()},
                    {"dweight", dw.values()},
                    {"dbias", db.values()}};
  };
  const auto naive = [](auto a, Range r) { reference::causal_conv1d_backward<Taps, Silu>(a, r); };
  // As in the forward pass; a rounding of the sum goes through the derivative once more.
  check_results({{"dx", {first_x, dinputs.end()}},
                 {"dpast", {dinputs.begin(), first_x}},
                 {"dweight", dweight},
                 {"dbias", dbias}},
                run(0.f, [](auto a, Range r) { simd::causal_conv1d_backward<Taps, Silu>(a, r); }),
                run(0.f, naive), run(0., naive), (Silu ? 16 : 2) * unit_roundoff);
}

constexpr int taps = 4, width = 4 * vector_floats + 3;
using P = Policy<float>;

/// A convolution with its weights, over `width` channels.
struct Convolution {
  std::vector<float> taps_memory, bias_memory;
  Filter<float, width, taps> weight;
  Vector<float, width> bias;

  explicit Convolution(Random& rng)
      : taps_memory(rng.values(taps * width)), bias_memory(rng.values(width)) {
    weight.bind(reinterpret_cast<std::byte*>(taps_memory.data()));
    bias.bind(reinterpret_cast<std::byte*>(bias_memory.data()));
  }

  /// The outputs for x, (rows, width), of silu or another f; `pasts` are the states of the segments, advanced.
  template <ConvActivation f = ConvActivation::silu>
  std::vector<float> operator()(const std::vector<float>& x, const std::vector<Segment>& segments,
                                std::vector<std::vector<float>*> pasts, int threads = 1) const {
    SegmentStates<float> states(segments, std::move(pasts));
    const auto rows = static_cast<std::int64_t>(x.size() / width);
    std::vector<float> y(x.size());
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, rows}, {team}};
      kernels::causal_conv1d<width, taps, f>(c, {.weight = weight,
                                                 .bias = bias,
                                                 .past = states.data(),
                                                 .x = {x.data(), rows},
                                                 .y = {y.data(), rows}});
    });
    CHECK(states.take_over());
    return y;
  }

  /// The gradients of x for dy; `pasts` are the states of the segments before it, `dpasts` the
  /// gradients of those after it. The sums of the weights' gradients go on in `sums`: of the taps,
  /// then of the bias.
  template <ConvActivation f = ConvActivation::silu>
  std::vector<float> backward(const std::vector<float>& x, const std::vector<float>& dy,
                              const std::vector<Segment>& segments,
                              std::vector<std::vector<float>>& pasts,
                              std::vector<std::vector<float>>& dpasts, std::vector<float>& sums,
                              int threads = 1) const {
    SegmentStates<float> states(segments, pasts), gradients(segments, dpasts);
    Filter<float, width, taps> dweight;
    Vector<float, width> dbias;
    dweight.bind(reinterpret_cast<std::byte*>(sums.data()));
    dbias.bind(reinterpret_cast<std::byte*>(sums.data() + taps * width));
    const auto rows = static_cast<std::int64_t>(x.size() / width);
    std::vector<float> dx(x.size());
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, rows}, {team}};
      causal_conv1d_backward<width, taps, f>(c, {.weight = weight,
                                                 .bias = bias,
                                                 .past = states.data(),
                                                 .x = {x.data(), rows},
                                                 .dy = {dy.data(), rows},
                                                 .dpast = gradients.data(),
                                                 .dx = {dx.data(), rows},
                                                 .dweight = dweight,
                                                 .dbias = dbias});
    });
    const auto found = pasts;
    CHECK((states.take_over() && gradients.take_over()));
    CHECK(pasts == found);
    return dx;
  }
};

void append(std::vector<float>& to, const std::vector<float>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

TEST_CASE("causal_conv1d: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels) {
    check<4, true>({.rows = 6, .channels = channels}, rng);
    check<4, false>({.rows = 6, .channels = channels}, rng);
  }
}

TEST_CASE("causal_conv1d: simd against reference, taps and lengths, shorter than the past too") {
  Random rng;
  for (std::size_t rows = 1; rows <= 8; ++rows)
    for (const std::size_t channels : {std::size_t{1}, std::size_t{vector_floats + 1}}) {
      check<2, true>({rows, channels}, rng);
      check<3, true>({rows, channels}, rng);
      check<3, false>({rows, channels}, rng);
      check<4, true>({rows, channels}, rng);
      check<7, false>({rows, channels}, rng);
    }
}

TEST_CASE("causal_conv1d: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.rows = 5, .channels = 2 * vector_floats + 3},
                     {&Case::weight_offset, &Case::bias_offset, &Case::x_offset, &Case::past_offset,
                      &Case::y_offset},
                     [&](const Case& c) { check<4, true>(c, rng); });
}

TEST_CASE("causal_conv1d: without rows nothing changes") {
  Random rng;
  CAPTURE(rng.seed);
  const Convolution convolution(rng);
  auto past = rng.values((taps - 1) * width);
  const auto before = past;
  convolution({}, {{0, 0, 0}}, {&past});
  CHECK(same_bits(past, before));
}

TEST_CASE("causal_conv1d: the same bits for a sequence split anywhere") {
  Random rng;
  CAPTURE(rng.seed);
  const Convolution convolution(rng);
  constexpr int length = 20;
  const auto x = rng.values(length * width), start = rng.values((taps - 1) * width);
  auto whole_past = start;
  const auto whole = convolution(x, {{0, 0, length}}, {&whole_past});
  for (int split = 0; split <= length; ++split) {
    CAPTURE(split);
    auto past = start;
    const std::vector<float> before(x.begin(), x.begin() + split * width),
        after(x.begin() + split * width, x.end());
    auto y = convolution(before, {{0, 0, split}}, {&past});
    append(y, convolution(after, {{split, 0, length - split}}, {&past}));
    CHECK(same_result(y, whole));
    CHECK(same_bits(past, whole_past));
  }
}

TEST_CASE("causal_conv1d: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const Convolution convolution(rng);
  const std::vector<int> lengths{1, 7, 2, 0, 5};
  std::vector<std::vector<float>> pasts, starts;
  std::vector<Segment> segments;
  std::vector<float> x, alone;
  for (const int length : lengths) {
    segments.push_back(
        {0, static_cast<std::int64_t>(x.size() / width), length, 4 - std::ssize(segments)});
    const auto part = rng.values(static_cast<std::size_t>(length * width));
    auto past = rng.values((taps - 1) * width);
    starts.push_back(past);
    append(x, part);
    append(alone, convolution(part, {{0, 0, length}}, {&past}));
    pasts.push_back(past);
  }
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    auto carried = starts;
    std::vector<std::vector<float>*> states;
    for (auto& past : carried) states.push_back(&past);
    CHECK(same_result(convolution(x, segments, states, threads), alone));
    CHECK(carried == pasts);
  }
}

TEST_CASE("causal_conv1d: an operation has silu behind it, or nothing") {
  Random rng;
  CAPTURE(rng.seed);
  const Convolution convolution(rng);
  const auto x = rng.values(6 * width), start = rng.values((taps - 1) * width),
             dy = rng.values(6 * width);
  const std::vector<Segment> all{{0, 0, 6}};
  auto past = start, same_past = start;
  const auto bare = convolution.operator()<ConvActivation::none>(x, all, {&past});
  const auto y = convolution.operator()<ConvActivation::silu>(x, all, {&same_past});
  CHECK(same_bits(past, same_past));
  std::vector<double> expected;
  std::vector<float> dsum;
  for (std::size_t i = 0; i < y.size(); ++i) {
    expected.push_back(exact_silu(double{bare[i]}));
    dsum.push_back(
        static_cast<float>(double{dy[i]} * exact_silu_derivative(double{bare[i]}).value));
  }
  CHECK(relative_error(y, expected) <= 8 * unit_roundoff);
  // Gradients with silu are those without it for the gradient of the sum.
  std::vector<std::vector<float>> before{start}, dpast{start}, same_dpast{start};
  std::vector<float> sums((taps + 1) * width), same_sums = sums;
  const auto dx = convolution.backward<ConvActivation::silu>(x, dy, all, before, dpast, sums);
  const auto same_dx =
      convolution.backward<ConvActivation::none>(x, dsum, all, before, same_dpast, same_sums);
  // Silu's derivative and the float that dsum is made of round a few times.
  CHECK(relative_error(dx, same_dx) <= 32 * unit_roundoff);
  CHECK(relative_error(sums, same_sums) <= 32 * unit_roundoff);
  CHECK(relative_error(dpast[0], same_dpast[0]) <= 32 * unit_roundoff);
}

TEST_CASE("causal_conv1d: only the channels of the range are touched") {
  Random rng;
  CAPTURE(rng.seed);
  const auto weight = rng.values(taps * width), bias = rng.values(width), x = rng.values(2 * width);
  const auto start = rng.values((taps - 1) * width);
  for (std::int64_t begin = 0; begin < 4; ++begin) {
    const Range channels{begin * vector_floats, begin * vector_floats + vector_floats + 1};
    auto past = start;
    std::vector<float> y(2 * width, 9.f);
    simd::causal_conv1d<taps, true>(CausalConv1dArgs<float>{.weight = weight.data(),
                                                            .bias = bias.data(),
                                                            .x = x.data(),
                                                            .x_stride = width,
                                                            .past = past.data(),
                                                            .y = y.data(),
                                                            .y_stride = width,
                                                            .rows = 2,
                                                            .channels = width},
                                    channels);
    for (std::int64_t i = 0; i < 2 * width; ++i) {
      const bool inside = i % width >= channels.begin && i % width < channels.end;
      CHECK((y[static_cast<std::size_t>(i)] != 9.f) == inside);
      CHECK((past[static_cast<std::size_t>(i)] != start[static_cast<std::size_t>(i)]) == inside);
    }
  }
}

TEST_CASE("causal_conv1d backward: simd against reference, every number of channels") {
  Random rng;
  for (std::size_t channels = 1; channels <= 3 * vector_floats + 1; ++channels) {
    check_backward<4, true>({.rows = 6, .channels = channels}, rng);
    check_backward<4, false>({.rows = 6, .channels = channels}, rng);
  }
}

TEST_CASE("causal_conv1d backward: simd against reference, taps and lengths, short ones too") {
  Random rng;
  for (std::size_t rows = 1; rows <= 8; ++rows)
    for (const std::size_t channels : {std::size_t{1}, std::size_t{vector_floats + 1}}) {
      check_backward<2, true>({rows, channels}, rng);
      check_backward<3, true>({rows, channels}, rng);
      check_backward<4, true>({rows, channels}, rng);
      check_backward<7, false>({rows, channels}, rng);
    }
}

TEST_CASE("causal_conv1d backward: simd against reference, every misalignment, rows with gaps") {
  Random rng;
  every_misalignment(Case{.rows = 5, .channels = 2 * vector_floats + 3},
                     {&Case::weight_offset, &Case::bias_offset, &Case::x_offset, &Case::past_offset,
                      &Case::y_offset},
                     [&](const Case& c) { check_backward<4, true>(c, rng); });
}

TEST_CASE("causal_conv1d backward: segments of a chunk as alone, for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const Convolution convolution(rng);
  std::vector<Segment> segments;
  std::vector<std::vector<float>> pasts, starts, ends;
  std::vector<float> x, dy, alone, old = rng.values((taps + 1) * width), sums = old;
  for (const int length : {1, 7, 2, 0, 5}) {
    segments.push_back(
        {0, static_cast<std::int64_t>(x.size() / width), length, 4 - std::ssize(segments)});
    const auto n = static_cast<std::size_t>(length * width);
    const auto part = rng.values(n), dpart = rng.values(n);
    pasts.push_back(rng.values((taps - 1) * width));
    starts.push_back(rng.values((taps - 1) * width));
    std::vector<std::vector<float>> past{pasts.back()}, dpast{starts.back()};
    append(alone, convolution.backward(part, dpart, {{0, 0, length}}, past, dpast, sums));
    append(x, part);
    append(dy, dpart);
    if (length == 0) CHECK(same_bits(dpast[0], starts.back()));
    ends.push_back(dpast[0]);
  }
  for (int threads = 1; threads <= 4; ++threads) {
    CAPTURE(threads);
    auto dpasts = starts;
    auto together = old;
    CHECK(same_result(convolution.backward(x, dy, segments, pasts, dpasts, together, threads),
                      alone));
    CHECK(same_result(together, sums));
    for (std::size_t s = 0; s < ends.size(); ++s) CHECK(same_result(dpasts[s], ends[s]));
  }
}
