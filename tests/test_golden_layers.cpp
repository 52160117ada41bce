// Single layers against golden vectors in double: relative L2 error at most 1e-10 for double
// arithmetic and 1e-5 for float.
#include <tests/catch.hpp>
#include <tests/golden_layers.hpp>

using namespace samba_test;
using namespace samba_test::golden;

namespace {

template <class R>
constexpr double tolerance = std::is_same_v<R, double> ? 1e-10 : 1e-5;

/// Calls run(segments, b) for the batch as two segments of one chunk (b = 0), and for each element
/// b alone, on one thread and on two.
template <class F>
void for_each_way(F run) {
  for (int threads = 1; threads <= 2; ++threads) {
    CAPTURE(threads);
    run(std::vector<Segment>{{0, 0, seq_len, 0}, {0, seq_len, seq_len, 1}}, 0, threads);
    for (int b = 0; b < batch; ++b) run(std::vector<Segment>{{0, 0, seq_len}}, b, threads);
  }
}

/// A layer's outputs: both elements in one chunk, each alone, and each in pieces.
template <class L, class T>
void check_layer(const std::string& name, const std::string& prefix = "") {
  CAPTURE(name, sizeof(T));
  const auto file = layer_file(name);
  auto x = read_tensor<T>(file, "in.x"), y = read_tensor<T>(file, "out.y");
  REQUIRE(x.size() == batch * seq_len * d_model);
  Runner<L, T> layer(file, prefix);
  for_each_way([&](const std::vector<Segment>& segments, int b, int threads) {
    const bool both = segments.size() == batch;
    CAPTURE(both, b);
    const std::span<const T> in = both ? std::span(x) : element(x, b),
                             expected = both ? std::span(y) : element(y, b);
    const StatesOf<typename Runner<L, T>::State> states(std::ssize(segments));
    CHECK(relative_error(layer.forward(in, segments, states, threads), expected) <= tolerance<T>);
  });

  for (int b = 0; b < batch; ++b) {
    const StatesOf<typename Runner<L, T>::State> state(1);
    std::vector<T> pieces;
    for (std::int64_t at = 0; at < seq_len;) {
      const std::int64_t n = std::min<std::int64_t>(1 + at, seq_len - at);  // 1, 2, 4, 8, 4
      const auto in = element(x, b).subspan(static_cast<std::size_t>(at * d_model),
                                            static_cast<std::size_t>(n * d_model));
      const auto out = layer.forward(in, {{at, 0, n}}, state);
      pieces.insert(pieces.end(), out.begin(), out.end());
      at += n;
    }
    CAPTURE(b);
    CHECK(relative_error(pieces, element(y, b)) <= tolerance<T>);
  }
}

template <class R>
void check_rmsnorm() {
  const auto file = layer_file("rmsnorm");
  const auto x = read_tensor<R>(file, "in.x"), y = read_tensor<R>(file, "out.y");
  Vector<R, d_model> weight;
  const Arena memory = load(file, "w.weight", weight);
  std::vector<R> out(x.size());
  constexpr std::int64_t rows = batch * seq_len;
  const Context<Policy<R>> c{{{}, rows}, {}};
  kernels::rmsnorm<d_model>(
      c, {.weight = weight, .eps = norm_eps, .x = {x.data(), rows}, .out = {out.data(), rows}});
  CHECK(relative_error(out, y) <= tolerance<R>);
}

template <class R, int HeadDim, int Rotary>
void check_rope(const std::string& name) {
  const auto file = layer_file(name);
  auto x = read_tensor<R>(file, "in.x"), y = read_tensor<R>(file, "out.y");
  const auto positions = read_tensor<std::int64_t>(file, "in.positions");
  REQUIRE(positions.size() == seq_len);
  REQUIRE(positions.back() == positions.front() + seq_len - 1);
  const kernels::RotaryTable<Rotary> table(theta, RopeTable::exact);
  const std::int64_t first = positions.front();
  const auto turned = [&](std::span<const R> in, const std::vector<Segment>& segments) {
    std::vector<R> out(in.begin(), in.end());
    const auto [q, k] = turned_heads<HeadDim>(out);
    const Context<Policy<R>> c{{segments, q.rows}, {}};
    kernels::rope<Rotary, 1, heads - 1, HeadDim>(c, {.angles = table, .q = q, .k = k});
    return out;
  };
  CHECK(relative_error(turned(x, {{first, 0, seq_len}, {first, seq_len, seq_len}}), y) <=
        tolerance<R>);
  for (int b = 0; b < batch; ++b)
    CHECK(relative_error(turned(element(x, b), {{first, 0, seq_len}}), element(y, b)) <=
          tolerance<R>);
}

template <class R, kernels::ConvActivation f>
void check_conv() {
  constexpr bool silu = f == kernels::ConvActivation::silu;
  CAPTURE(silu);
  const auto file = layer_file("causal_conv1d");
  auto x = read_tensor<R>(file, "in.x"), y = read_tensor<R>(file, silu ? "out.silu" : "out.y");
  auto past = read_tensor<R>(file, "in.past"), next_past = read_tensor<R>(file, "out.past");
  Filter<R, d_inner, d_conv> weight;
  Vector<R, d_inner> bias;
  const Arena weight_memory = load(file, "w.weight", weight),
              bias_memory = load(file, "w.bias", bias);
  for_each_way([&](const std::vector<Segment>& segments, int b, int threads) {
    auto carried = past;
    const bool both = segments.size() == batch;
    const auto states = states_in(carried, b);
    const std::span<const R> in = both ? std::span(x) : element(x, b);
    const auto rows = static_cast<std::int64_t>(in.size()) / d_inner;
    std::vector<R> out(in.size());
    parallel(threads, [&](Team team) {
      const Context<Policy<R>> c{{segments, rows}, {team}};
      kernels::causal_conv1d<d_inner, d_conv, f>(c, {.weight = weight,
                                                     .bias = bias,
                                                     .past = states,
                                                     .x = {in.data(), rows},
                                                     .y = {out.data(), rows}});
    });
    CHECK(relative_error(out, both ? std::span(y) : element(y, b)) <= tolerance<R>);
    if (both)
      CHECK(relative_error(carried, next_past) == 0);
    else
      CHECK(relative_error(element(carried, b), element(next_past, b)) == 0);
  });
}

template <class R>
void check_scan() {
  const auto file = layer_file("selective_scan");
  auto u = read_tensor<R>(file, "in.u"), dt = read_tensor<R>(file, "in.dt"),
       z = read_tensor<R>(file, "in.z");
  auto B = read_tensor<R>(file, "in.B"), C = read_tensor<R>(file, "in.C"),
       y = read_tensor<R>(file, "out.y");
  const auto A_file = read_tensor<R>(file, "w.A");
  const auto h0 = transposed_states(read_tensor<R>(file, "in.h0"));
  auto h_end = transposed_states(read_tensor<R>(file, "out.h"));
  auto A_memory = transposed_states(A_file);
  Table<R, d_state, d_inner> A;
  A.bind(reinterpret_cast<std::byte*>(A_memory.data()));
  Vector<R, d_inner> D, dt_bias;
  const Arena D_memory = load(file, "w.D", D), bias_memory = load(file, "w.dt_bias", dt_bias);

  for_each_way([&](const std::vector<Segment>& segments, int b, int threads) {
    const bool both = segments.size() == batch;
    CAPTURE(both, b);
    const auto of = [&](std::vector<R>& v) { return both ? std::span(v) : element(v, b); };
    auto h = h0;
    const auto states = states_in(h, b);
    const auto rows = static_cast<std::int64_t>(of(u).size()) / d_inner;
    std::vector<R> out(of(u).size());
    parallel(threads, [&](Team team) {
      const Context<Policy<R>> c{{segments, rows}, {team}};
      kernels::selective_scan<d_state, d_inner>(c, {.A = A,
                                                    .D = D,
                                                    .dt_bias = dt_bias,
                                                    .dt = {of(dt).data(), rows},
                                                    .B = {of(B).data(), rows},
                                                    .C = {of(C).data(), rows},
                                                    .x = {of(u).data(), rows},
                                                    .z = Rows<R, d_inner>{of(z).data(), rows},
                                                    .h = states,
                                                    .y = {out.data(), rows}});
    });
    CHECK(relative_error(out, of(y)) <= tolerance<R>);
    CHECK(relative_error(of(h), of(h_end)) <= tolerance<R>);
  });
}

/// `first`: the position that the file begins at.
template <class R>
void check_rg_lru(const std::string& name, std::int64_t first) {
  CAPTURE(name, sizeof(R));
  const auto file = layer_file(name);
  auto x = read_tensor<R>(file, "in.x"), y = read_tensor<R>(file, "out.y"),
       h_end = read_tensor<R>(file, "out.h");
  REQUIRE(read_tensor<std::int64_t>(file, "in.positions").front() == first);
  const auto h0 = first > 0 ? read_tensor<R>(file, "in.h0") : std::vector<R>(h_end.size());
  const LruWeights<R> w(file);
  for_each_way([&](std::vector<Segment> segments, int b, int threads) {
    const bool both = segments.size() == batch;
    CAPTURE(both, b);
    const auto of = [&](std::vector<R>& v) { return both ? std::span(v) : element(v, b); };
    for (Segment& segment : segments) segment.position = first;
    auto h = h0;
    const auto states = states_in(h, b);
    const auto rows = static_cast<std::int64_t>(of(x).size()) / d_model;
    std::vector<R> i(of(x).size()), r(i), out(i);
    parallel(threads, [&](Team team) {
      const Context<Policy<R>> c{{segments, rows}, {team}};
      const In<Policy<R>, d_model> in{of(x).data(), rows};
      w.gates(c, in, {i.data(), rows}, {r.data(), rows});
      kernels::rg_lru<lru_heads, d_model>(
          c, {.in = w.inputs(in, {i.data(), rows}, {r.data(), rows}, states),
              .y = {out.data(), rows}});
    });
    CHECK(relative_error(out, of(y)) <= tolerance<R>);
    CHECK(relative_error(of(h), of(h_end)) <= tolerance<R>);
  });
}

}  // namespace

TEST_CASE("golden layers: rmsnorm") {
  check_rmsnorm<double>();
  check_rmsnorm<float>();
}

TEST_CASE("golden layers: rope") {
  check_rope<double, 4, 4>("rope");
  check_rope<float, 4, 4>("rope");
}

TEST_CASE("golden layers: rope_partial") {
  check_rope<double, 8, 4>("rope_partial");
  check_rope<float, 8, 4>("rope_partial");
}

TEST_CASE("golden layers: causal_conv1d") {
  using kernels::ConvActivation;
  check_conv<double, ConvActivation::none>();
  check_conv<double, ConvActivation::silu>();
  check_conv<float, ConvActivation::none>();
  check_conv<float, ConvActivation::silu>();
}

TEST_CASE("golden layers: selective_scan") {
  check_scan<double>();
  check_scan<float>();
}

TEST_CASE("golden layers: rg_lru") {
  check_rg_lru<double>("rg_lru", 0);
  check_rg_lru<float>("rg_lru", 0);
  check_rg_lru<double>("rg_lru_continued", 40);
  check_rg_lru<float>("rg_lru_continued", 40);
}

TEST_CASE("golden layers: mamba") {
  check_layer<GoldenMamba, double>("mamba");
  check_layer<GoldenMamba, float>("mamba");
}

TEST_CASE("golden layers: swa") {
  check_layer<GoldenSwa, double>("swa");
  check_layer<GoldenSwa, float>("swa");
}

TEMPLATE_TEST_CASE("golden layers: options of attention", "", double, float) {
  check_layer<GoldenSinks, TestType>("attention_sinks");
  check_layer<GoldenTokenNorm, TestType>("attention_token_norm");
  check_layer<GoldenGate, TestType>("attention_gate");
  check_layer<GoldenCap, TestType>("attention_cap");
}

TEST_CASE("golden layers: swiglu") {
  check_layer<GoldenSwiGLU, double>("swiglu", "swiglu.");
  check_layer<GoldenSwiGLU, float>("swiglu", "swiglu.");
}
