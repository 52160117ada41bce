// Gradients of single layers against golden vectors in double, those of the states that a chunk
// starts from and ends in too: relative L2 error of each tensor at most 1e-9 for double arithmetic
// and 5e-5 for float.
#include <functional>

#include "tests/golden_layers.hpp"

using namespace samba_test;
using namespace samba_test::golden;

namespace {

template <class R>
constexpr double tolerance = std::is_same_v<R, double> ? 1e-9 : 5e-5;

template <class Values>
void check_gradient(const SafetensorsFile& file, const std::string& name, const Values& found) {
  CAPTURE(file.path(), name, sizeof(found[0]));
  const auto expected = read_tensor<double>(file, "grad." + name);
  CHECK(relative_error(found, expected) <= tolerance<std::remove_cvref_t<decltype(found[0])>>);
}

/// Rows of n tokens from `at` on of both elements of the batch.
template <class R>
std::vector<R> rows_of(const std::vector<R>& both, int at, int n) {
  const std::size_t cols = both.size() / (batch * seq_len);
  std::vector<R> rows;
  for (int b = 0; b < batch; ++b) {
    const auto first = both.begin() + static_cast<std::ptrdiff_t>(b * seq_len + at) *
                                          static_cast<std::ptrdiff_t>(cols);
    rows.insert(rows.end(), first, first + static_cast<std::ptrdiff_t>(cols) * n);
  }
  return rows;
}

/// The gradients of a layer for a text in these pieces: states are carried forward, then their
/// gradients backward.
template <class L, class T>
void check_pieces(const std::string& name, const std::string& prefix, int threads,
                  const std::vector<int>& pieces) {
  using States = StatesOf<typename Runner<L, T>::State>;
  using StateGradients = typename Runner<L, T>::StateGradients;
  CAPTURE(threads, pieces.size());
  const auto file = layer_file(name);
  const auto x = read_tensor<T>(file, "in.x"), dy = read_tensor<T>(file, "up.y");
  Runner<L, T> layer(file, prefix);
  typename Runner<L, T>::Gradients g;

  const auto chunk = [&](int at, int n) {
    return std::vector<Segment>{{at, 0, n, 0}, {at, n, n, 1}};
  };
  std::vector<States> found(1, States(batch));
  int at = 0;
  for (const int n : pieces) {
    found.push_back(found.back());
    layer.forward(rows_of(x, at, n), chunk(at, n), found.back(), threads);
    at += n;
  }
  REQUIRE(at == seq_len);
  std::vector<T> dx(x.size());
  const StateGradients ds(batch);
  for (std::size_t i = pieces.size(); i-- > 0;) {
    const int n = pieces[i];
    at -= n;
    const auto part = layer.backward(rows_of(x, at, n), rows_of(dy, at, n), chunk(at, n), found[i],
                                     ds, g, threads);
    for (int b = 0; b < batch; ++b)
      std::copy_n(part.begin() + b * n * d_model, n * d_model,
                  dx.begin() + (b * seq_len + at) * d_model);
  }
  if constexpr (requires { layer.weights().derive_backward(g); })
    layer.weights().derive_backward(g);

  check_gradient(file, "in.x", dx);
  g.visit(g, [&](const std::string& tensor, const auto& gradient, const auto&...) {
    check_gradient(file, "w." + tensor.substr(prefix.size()), values_of(gradient));
  });
}

template <class L, class T>
void check_layer(const std::string& name, const std::string& prefix = "") {
  for (const int threads : {1, 2}) {
    check_pieces<L, T>(name, prefix, threads, {seq_len});
    check_pieces<L, T>(name, prefix, threads, {1, 2, 4, 8, 4});
  }
}

template <class R>
void check_rmsnorm() {
  const auto file = layer_file("rmsnorm");
  const auto x = read_tensor<R>(file, "in.x"), dy = read_tensor<R>(file, "up.y");
  constexpr std::int64_t rows = batch * seq_len;
  Vector<R, d_model> weight, dweight;
  const Arena memory = load(file, "w.weight", weight), dmemory = bind(dweight);
  std::vector<R> dx(x.size()), inverse(rows);
  const Context<Policy<R>> c{{{}, rows}, {}};
  kernels::rmsnorm_backward<d_model>(c, {.weight = weight,
                                         .eps = norm_eps,
                                         .x = {x.data(), rows},
                                         .dout = {dy.data(), rows},
                                         .dx = {dx.data(), rows},
                                         .dweight = dweight,
                                         .inverse = {inverse.data(), rows}});
  check_gradient(file, "in.x", dx);
  check_gradient(file, "w.weight", values_of(dweight));
}

template <class R, int HeadDim, int Rotary>
void check_rope(const std::string& name) {
  const auto file = layer_file(name);
  auto dx = read_tensor<R>(file, "up.y");
  const std::int64_t first = read_tensor<std::int64_t>(file, "in.positions").front();
  const kernels::RotaryTable<Rotary> table(theta, RopeTable::exact);
  const std::vector<Segment> segments{{first, 0, seq_len}, {first, seq_len, seq_len}};
  const auto [q, k] = turned_heads<HeadDim>(dx);
  const Context<Policy<R>> c{{segments, q.rows}, {}};
  kernels::rope_backward<Rotary, 1, heads - 1, HeadDim>(c, {.angles = table, .q = q, .k = k});
  check_gradient(file, "in.x", dx);
}

/// The file's gradients are those of three outputs together: without and with the activation, and
/// the inputs that are kept.
template <class R>
void check_conv(int threads) {
  CAPTURE(threads);
  const auto file = layer_file("causal_conv1d");
  const auto x = read_tensor<R>(file, "in.x"), dy = read_tensor<R>(file, "up.y"),
             dsilu = read_tensor<R>(file, "up.silu");
  auto past = read_tensor<R>(file, "in.past"), dpast = read_tensor<R>(file, "up.past");
  std::vector<R> silu_dpast(dpast.size()), dx(x.size()), silu_dx(x.size());
  Filter<R, d_inner, d_conv> weight, dweight;
  Vector<R, d_inner> bias, dbias;
  const Arena memory[] = {load(file, "w.weight", weight), load(file, "w.bias", bias), bind(dweight),
                          bind(dbias)};
  constexpr std::int64_t rows = batch * seq_len;
  const std::vector<Segment> segments{{0, 0, seq_len, 0}, {0, seq_len, seq_len, 1}};
  parallel(threads, [&](Team team) {
    using kernels::ConvActivation;
    const Context<Policy<R>> c{{segments, rows}, {team}};
    kernels::causal_conv1d_backward<d_inner, d_conv, ConvActivation::none>(
        c, {.weight = weight,
            .bias = bias,
            .past = states_in(past),
            .x = {x.data(), rows},
            .dy = {dy.data(), rows},
            .dpast = states_in(dpast),
            .dx = {dx.data(), rows},
            .dweight = dweight,
            .dbias = dbias});
    kernels::causal_conv1d_backward<d_inner, d_conv, ConvActivation::silu>(
        c, {.weight = weight,
            .bias = bias,
            .past = states_in(past),
            .x = {x.data(), rows},
            .dy = {dsilu.data(), rows},
            .dpast = states_in(silu_dpast),
            .dx = {silu_dx.data(), rows},
            .dweight = dweight,
            .dbias = dbias});
  });
  std::transform(dx.begin(), dx.end(), silu_dx.begin(), dx.begin(), std::plus<R>());
  std::transform(dpast.begin(), dpast.end(), silu_dpast.begin(), dpast.begin(), std::plus<R>());
  check_gradient(file, "in.x", dx);
  check_gradient(file, "in.past", dpast);
  check_gradient(file, "w.weight", values_of(dweight));
  check_gradient(file, "w.bias", values_of(dbias));
}

template <class R>
void check_scan(int threads) {
  CAPTURE(threads);
  const auto file = layer_file("selective_scan");
  const auto read = [&](const char* name) { return read_tensor<R>(file, name); };
  const auto u = read("in.u"), dt = read("in.dt"), z = read("in.z"), B = read("in.B"),
             C = read("in.C"), dy = read("up.y");
  auto h = transposed_states(read("in.h0")), dh = transposed_states(read("up.h")),
       A_values = transposed_states(read("w.A")), dA_values = std::vector<R>(A_values.size());
  Table<R, d_state, d_inner> A, dA;
  A.bind(reinterpret_cast<std::byte*>(A_values.data()));
  dA.bind(reinterpret_cast<std::byte*>(dA_values.data()));
  Vector<R, d_inner> D, dt_bias, dD, ddt_bias;
  const Arena memory[] = {load(file, "w.D", D), load(file, "w.dt_bias", dt_bias), bind(dD),
                          bind(ddt_bias)};
  std::vector<R> du(u.size()), ddt(u.size()), dz(u.size()), dB(B.size()), dC(C.size());
  constexpr std::int64_t rows = batch * seq_len;
  const std::vector<Segment> segments{{0, 0, seq_len, 0}, {0, seq_len, seq_len, 1}};
  Placed<kernels::ScanBackwardScratch<Policy<R>, d_state, d_inner>> scratch(rows, threads);
  parallel(threads, [&](Team team) {
    const Context<Policy<R>> c{{segments, rows}, {team}};
    kernels::selective_scan_backward<d_state, d_inner>(
        c, {.forward = {.A = A,
                        .D = D,
                        .dt_bias = dt_bias,
                        .dt = {dt.data(), rows},
                        .B = {B.data(), rows},
                        .C = {C.data(), rows},
                        .x = {u.data(), rows},
                        .z = Rows<const R, d_inner>{z.data(), rows},
                        .h = states_in(h)},
            .dy = {dy.data(), rows},
            .dh = states_in(dh),
            .ddt = {ddt.data(), rows},
            .dB = {dB.data(), rows},
            .dC = {dC.data(), rows},
            .dx = {du.data(), rows},
            .dz = Rows<R, d_inner>{dz.data(), rows},
            .dA = dA,
            .dD = dD,
            .ddt_bias = ddt_bias,
            .scratch = scratch});
  });
  check_gradient(file, "in.u", du);
  check_gradient(file, "in.dt", ddt);
  check_gradient(file, "in.z", dz);
  check_gradient(file, "in.B", dB);
  check_gradient(file, "in.C", dC);
  check_gradient(file, "w.D", values_of(dD));
  check_gradient(file, "w.dt_bias", values_of(ddt_bias));
  // As the file has them: (d_inner, d_state) is one state's transpose, and back.
  const auto in_file_order = [](const std::vector<R>& from) {
    std::vector<R> to(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      constexpr std::size_t one = d_state * d_inner;
      to[i / one * one + i % d_inner * d_state + i / d_inner % d_state] = from[i];
    }
    return to;
  };
  check_gradient(file, "in.h0", in_file_order(dh));
  check_gradient(file, "w.A", in_file_order(dA_values));
}

template <class R>
void check_rg_lru(const std::string& name, std::int64_t first, int threads) {
  CAPTURE(threads);
  const auto file = layer_file(name);
  const auto x = read_tensor<R>(file, "in.x"), dy = read_tensor<R>(file, "up.y");
  auto dh = read_tensor<R>(file, "up.h");
  auto h = first > 0 ? read_tensor<R>(file, "in.h0") : std::vector<R>(dh.size()), moved = h;
  LruWeights<R> w(file);
  std::vector<R> i(x.size()), r(i), y(i), di(i), dr(i), dx(i);
  constexpr std::int64_t rows = batch * seq_len;
  const std::vector<Segment> segments{{first, 0, seq_len, 0}, {first, seq_len, seq_len, 1}};
  parallel(threads, [&](Team team) {
    using P = Policy<R>;
    const Context<P> c{{segments, rows}, {team}};
    const In<P, d_model> in{x.data(), rows};
    const Out<P, d_model> i_rows{i.data(), rows}, r_rows{r.data(), rows}, di_rows{di.data(), rows},
        dr_rows{dr.data(), rows}, dx_rows{dx.data(), rows};
    w.gates(c, in, i_rows, r_rows);
    kernels::rg_lru<lru_heads, d_model>(
        c, {.in = w.inputs(in, i_rows, r_rows, states_in(moved)), .y = {y.data(), rows}});
    kernels::rg_lru_backward<lru_heads, d_model>(
        c, {.forward = w.inputs(in, i_rows, r_rows, states_in(h)),
            .y = {y.data(), rows},
            .dy = {dy.data(), rows},
            .dh = states_in(dh),
            .dinput_gate = di_rows,
            .drecurrent_gate = dr_rows,
            .dx = dx_rows,
            .dparam = w.dparam,
            .dinput_bias = w.dinput_bias,
            .drecurrent_bias = w.drecurrent_bias});
    const auto add = kernels::add_to<R, d_model>(dx_rows);
    kernels::block_matmul_backward(c, w.input_gate,
                                   {.x = in, .dout = di_rows, .dw = w.dinput_gate, .dx = add});
    kernels::block_matmul_backward(c, w.recurrent_gate,
                                   {.x = in, .dout = dr_rows, .dw = w.drecurrent_gate, .dx = add});
  });
  check_gradient(file, "in.x", dx);
  check_gradient(file, "w.recurrent_param", values_of(w.dparam));
  check_gradient(file, "w.input_gate_bias", values_of(w.dinput_bias));
  check_gradient(file, "w.recurrent_gate_bias", values_of(w.drecurrent_bias));
  check_gradient(file, "w.input_gate_weight", values_of(w.dinput_gate));
  check_gradient(file, "w.recurrent_gate_weight", values_of(w.drecurrent_gate));
  if (first > 0) check_gradient(file, "in.h0", dh);
}

}  // namespace

TEST_CASE("golden layer gradients: rmsnorm") {
  check_rmsnorm<double>();
  check_rmsnorm<float>();
}

TEST_CASE("golden layer gradients: rope") {
  check_rope<double, 4, 4>("rope");
  check_rope<float, 4, 4>("rope");
  check_rope<double, 8, 4>("rope_partial");
  check_rope<float, 8, 4>("rope_partial");
}

TEST_CASE("golden layer gradients: causal_conv1d") {
  for (const int threads : {1, 2}) check_conv<double>(threads), check_conv<float>(threads);
}

TEST_CASE("golden layer gradients: selective_scan") {
  for (const int threads : {1, 2}) check_scan<double>(threads), check_scan<float>(threads);
}

TEST_CASE("golden layer gradients: rg_lru") {
  for (const int threads : {1, 2}) {
    check_rg_lru<double>("rg_lru", 0, threads);
    check_rg_lru<float>("rg_lru", 0, threads);
    check_rg_lru<double>("rg_lru_continued", 40, threads);
    check_rg_lru<float>("rg_lru_continued", 40, threads);
  }
}

TEST_CASE("golden layer gradients: mamba") {
  check_layer<GoldenMamba, double>("mamba");
  check_layer<GoldenMamba, float>("mamba");
}

TEST_CASE("golden layer gradients: swa") {
  check_layer<GoldenSwa, double>("swa");
  check_layer<GoldenSwa, float>("swa");
}

TEMPLATE_TEST_CASE("golden layer gradients: options of attention", "", double, float) {
  check_layer<GoldenSinks, TestType>("attention_sinks");
  check_layer<GoldenTokenNorm, TestType>("attention_token_norm");
  check_layer<GoldenGate, TestType>("attention_gate");
  check_layer<GoldenCap, TestType>("attention_cap");
}

TEST_CASE("golden layer gradients: swiglu") {
  check_layer<GoldenSwiGLU, double>("swiglu", "swiglu.");
  check_layer<GoldenSwiGLU, float>("swiglu", "swiglu.");
}
