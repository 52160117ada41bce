// Random weights to begin training with.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

struct Model : LanguageModel<HybridStack<Mamba<96>, SwiGLU<96, 200, MlpOptions{.bias = true}>,
                                         SWA<8, AttentionOptions{.n_heads = 4, .bias = true}>,
                                         Parallel<Mamba<96>, SwiGLU<96, 200>>,
                                         RgLru<96, RgLruOptions{.width = 160, .n_heads = 4}>>,
                             golden::untied(300)> {};

template <class T>
std::vector<Real<T>> values(const TensorRef<Real<T>>& tensor) {
  std::vector<Real<T>> all(static_cast<std::size_t>(tensor.rows * tensor.row_size));
  for (std::int64_t r = 0; r < tensor.rows; ++r)
    tensor.get_row(r, all.data() + r * tensor.row_size);
  return all;
}

/// The values of a tensor of a branch.
std::vector<float> values(const Weights<Model>& weights, int branch, const std::string& name) {
  for (const auto& tensor : weights.tensors())
    if (tensor.branch == branch && tensor.name == name) return values<float>(tensor);
  FAIL("no tensor " << name);
  return {};
}

/// Uniform within +-bound: near it, never past it, with its standard deviation and mean.
void check_uniform(const std::vector<float>& x, double bound) {
  double sum = 0, squares = 0, largest = 0;
  for (const double v : x) sum += v, squares += v * v, largest = std::max(largest, std::abs(v));
  const auto n = static_cast<double>(x.size());
  CHECK(largest <= bound * (1 + 1e-6));
  CHECK(largest > 0.95 * bound);
  CHECK(std::sqrt(squares / n) == Approx(bound / std::sqrt(3.)).epsilon(0.1));
  CHECK(std::abs(sum / n) < 5 * bound / std::sqrt(n));
}

void check_all(const std::vector<float>& x, float value) {
  for (const float v : x) CHECK(v == value);
}

}  // namespace

TEST_CASE("initialize draws every tensor from its distribution") {
  Weights<Model> weights;
  initialize(weights, 42);

  const auto embedding = values(weights, -1, "embedding");
  double squares = 0, fourth = 0;
  for (const double v : embedding) squares += v * v, fourth += v * v * v * v;
  const auto n = static_cast<double>(embedding.size());
  CHECK(std::sqrt(squares / n) == Approx(0.02).epsilon(0.02));
  // Of a normal distribution.
  CHECK(fourth / n / (squares / n * squares / n) == Approx(3).epsilon(0.1));
  check_uniform(values(weights, -1, "head"), 1 / std::sqrt(96.));
  check_all(values(weights, -1, "norm"), 1);

  for (const auto& [branch, prefix] : {std::pair{0, ""}, {3, "0.mamba."}}) {
    CAPTURE(branch);
    const std::string at = prefix;
    check_all(values(weights, branch, "norm.weight"), 1);
    check_uniform(values(weights, branch, at + "in_proj.weight"), 1 / std::sqrt(96.));
    check_uniform(values(weights, branch, at + "x_proj.weight"), 1 / std::sqrt(192.));
    // 5 branches.
    check_uniform(values(weights, branch, at + "out_proj.weight"), 1 / std::sqrt(192. * 5));
    // Dt_rank.
    check_uniform(values(weights, branch, at + "dt_proj.weight"), 1 / std::sqrt(6.));
    check_uniform(values(weights, branch, at + "conv1d.weight"), 1 / std::sqrt(4.));
    check_all(values(weights, branch, at + "conv1d.bias"), 0);
    check_all(values(weights, branch, at + "D"), 1);
    const auto A_log = values(weights, branch, at + "A_log");
    for (std::size_t i = 0; i < A_log.size(); ++i)
      CHECK(A_log[i] == Approx(std::log(1. + static_cast<double>(i % 16))));
    double log_sum = 0;
    for (const double b : values(weights, branch, at + "dt_proj.bias")) {
      const double dt = std::log1p(std::exp(b));
      CHECK(dt > 0.99e-3);
      CHECK(dt < 0.101);
      log_sum += std::log(dt);
    }
    // The middle of [1e-3, 1e-1] by logarithm.
    CHECK(log_sum / 192 == Approx(std::log(0.01)).epsilon(0.1));
  }

  check_uniform(values(weights, 1, "swiglu.w1.weight"), 1 / std::sqrt(96.));
  check_uniform(values(weights, 1, "swiglu.w2.weight"), 1 / std::sqrt(96.));
  check_uniform(values(weights, 1, "swiglu.w3.weight"), 1 / std::sqrt(200. * 5));
  check_uniform(values(weights, 3, "1.mlp.swiglu.w3.weight"), 1 / std::sqrt(200. * 5));
  for (const char* bias : {"swiglu.w1.bias", "swiglu.w2.bias", "swiglu.w3.bias"})
    check_all(values(weights, 1, bias), 0);
  check_uniform(values(weights, 2, "attn.weight"), 1 / std::sqrt(96.));
  check_uniform(values(weights, 2, "proj.weight"), 1 / std::sqrt(96. * 5));
  for (const char* bias : {"attn.bias", "proj.bias"}) check_all(values(weights, 2, bias), 0);

  for (const char* matrix : {"linear_x.weight", "linear_y.weight"})
    check_uniform(values(weights, 4, matrix), 1 / std::sqrt(96.));
  for (const char* matrix : {"rg_lru.input_gate_weight", "rg_lru.recurrent_gate_weight"})
    check_uniform(values(weights, 4, matrix), 1 / std::sqrt(40.));
  check_uniform(values(weights, 4, "linear_out.weight"), 1 / std::sqrt(160. * 5));
  check_uniform(values(weights, 4, "conv_1d.weight"), 1 / std::sqrt(4.));
  for (const char* bias : {"linear_x.bias", "linear_y.bias", "linear_out.bias", "conv_1d.bias",
                           "rg_lru.input_gate_bias", "rg_lru.recurrent_gate_bias"})
    check_all(values(weights, 4, bias), 0);
  double squares_of_radii = 0;
  for (const double p : values(weights, 4, "rg_lru.recurrent_param")) {
    const double radius = std::exp(-std::log1p(std::exp(p)));
    CHECK(radius > 0.8999);
    CHECK(radius < 0.9991);
    squares_of_radii += radius * radius;
  }
  // The middle of [0.81, 0.998].
  CHECK(squares_of_radii / 160 == Approx(0.904).epsilon(0.015));
}

TEST_CASE("initialize: one seed, one result; float is double rounded; derived tensors follow") {
  Weights<Model> one, same, other;
  Weights<Model, double> exact;
  initialize(one, 1);
  initialize(same, 1);
  initialize(other, 2);
  initialize(exact, 1);
  const auto a = one.tensors(), b = same.tensors(), c = other.tensors();
  const auto d = exact.tensors();
  int differ = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(same_bits(values<float>(a[i]), values<float>(b[i])));
    CHECK(same_bits(values<float>(a[i]), convert<float>(values<double>(d[i]))));
    differ += !same_bits(values<float>(a[i]), values<float>(c[i]));
  }
  CHECK(differ >= 15);

  Session session(one), again(same);
  const auto logits = copy(session.step(3));
  CHECK(same_bits(logits, again.step(3)));
  same.derive();  // changes nothing: it was called
  again.reset();
  CHECK(same_bits(logits, again.step(3)));
  for (const float logit : logits) CHECK(is_finite(logit));
}
