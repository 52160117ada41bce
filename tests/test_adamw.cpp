// AdamW: groups of tensors by name, and the laws it keeps. Its trajectory beside PyTorch's is in
// test_gradient.cpp. Also the schedule of its learning rate.
#include <samba/train/adamw.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/learning_rate.hpp>

#include <map>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// No size a multiple of a vector, and an embedding that several threads take.
struct Model : LanguageModel<HybridStack<Mamba<33>, SwiGLU<33, 41>>, golden::tied(4500)> {};
using Numbers = Weights<Model, Master<double>>;

template <class R>
void randomise(Random& rng, const Weights<Model, Master<R>>& weights) {
  for (const auto& tensor : weights.tensors()) rng.fill(elements(tensor));
}

/// What a group asks of a tensor.
struct Rule {
  double weight_decay, rate = 1;
  bool frozen = false;
};

/// Some steps beside the formulas of the paper, tensor by tensor.
void check_steps(const AdamWOptions& options, const std::map<std::string, Rule>& rules) {
  Random rng;
  CAPTURE(rng.seed);
  Numbers weights, gradients;
  randomise(rng, weights);
  AdamW<Model, double> optimiser(options);
  const auto w = weights.tensors(), g = gradients.tensors();
  const auto names = tensor_names(weights);
  REQUIRE(rules.size() == names.size());
  std::vector<std::vector<double>> expected, mean, square;
  for (const auto& tensor : w) {
    expected.emplace_back(elements(tensor).begin(), elements(tensor).end());
    mean.emplace_back(expected.back().size());
    square.emplace_back(expected.back().size());
  }
  for (int step = 1; step <= 3; ++step) {
    randomise(rng, gradients);
    double squares = 0;
    for (std::size_t t = 0; t < w.size(); ++t)
      for (const double x : elements(g[t])) squares += rules.at(names[t]).frozen ? 0 : x * x;
    const double norm = std::sqrt(squares), scale = std::min(1., options.clip / (norm + 1e-6));
    for (std::size_t t = 0; t < w.size(); ++t) {
      const Rule& rule = rules.at(names[t]);
      for (std::size_t i = 0; i < expected[t].size() && !rule.frozen; ++i) {
        const double x = elements(g[t])[i] * scale, rate = 0.01 * rule.rate;
        mean[t][i] = options.beta1 * mean[t][i] + (1 - options.beta1) * x;
        square[t][i] = options.beta2 * square[t][i] + (1 - options.beta2) * x * x;
        expected[t][i] -= rate * rule.weight_decay * expected[t][i];
        expected[t][i] -=
            rate * mean[t][i] / (1 - std::pow(options.beta1, step)) /
            (std::sqrt(square[t][i] / (1 - std::pow(options.beta2, step))) + options.eps);
      }
    }
    const double found = optimiser.step(weights, gradients, 0.01);
    CHECK(std::abs(found / norm - 1) < 1e-12);
    CHECK(optimiser.steps() == step);
    for (std::size_t t = 0; t < w.size(); ++t) {
      CAPTURE(step, names[t]);
      CHECK(relative_error(elements(w[t]), expected[t]) < 1e-12);
      if (rules.at(names[t]).frozen) CHECK(same_bits(elements(w[t]), expected[t]));
    }
  }
  const auto means = optimiser.state().mean.tensors(), all = optimiser.state().square.tensors();
  for (std::size_t t = 0; t < w.size(); ++t) {
    CHECK(relative_error(elements(means[t]), mean[t]) < 1e-12);
    CHECK(relative_error(elements(all[t]), square[t]) < 1e-12);
    CHECK(optimiser.frozen(t) == rules.at(names[t]).frozen);
  }
}

/// Matrices decay by 0.1, vectors and A_log do not.
std::map<std::string, Rule> usual() {
  std::map<std::string, Rule> rules;
  const Numbers weights;
  const auto names = tensor_names(weights);
  const auto tensors = weights.tensors();
  for (std::size_t t = 0; t < names.size(); ++t)
    rules[names[t]] = {tensors[t].shape.size() > 1 && !names[t].ends_with("A_log") ? 0.1 : 0};
  return rules;
}

}  // namespace

TEST_CASE("glob_match") {
  const auto matches = [](const char* pattern, const char* text) {
    return glob_match(pattern, text);
  };
  CHECK(matches("", ""));
  CHECK(matches("*", ""));
  CHECK(matches("*", "abc"));
  CHECK(matches("a?c", "abc"));
  CHECK(matches("*.weight", "norm.weight"));
  CHECK(matches("a*b*c", "a-b-b-c-c"));
  CHECK(matches("**c", "abc"));
  CHECK(matches("abc*", "abc"));
  CHECK(matches("*.h.1?.*", "transformer.h.12.norm"));
  CHECK_FALSE(matches("", "a"));
  CHECK_FALSE(matches("?", ""));
  CHECK_FALSE(matches("abc", "abcd"));
  CHECK_FALSE(matches("abc?", "abc"));
  CHECK_FALSE(matches("*.weight", "norm.weights"));
  CHECK_FALSE(matches("a*b*c", "a-c-b"));
  CHECK_FALSE(matches("A", "a"));
  static_assert(glob_match("*b", "aab") && !glob_match("*b", "aba"));
}

TEST_CASE("AdamW: matrices decay, or all tensors") {
  check_steps({}, usual());
  auto all = usual();
  for (auto& [name, rule] : all) rule.weight_decay = 0.03;
  check_steps({.beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.03, .decay = Decay::all}, all);
}

TEST_CASE("AdamW: groups by the names of tensors") {
  auto rules = usual();
  REQUIRE(rules.contains("transformer.h.0.attn.in_proj.weight"));
  for (auto& [name, rule] : rules) {
    if (name.find(".attn.") != name.npos) rule.rate = 0.5;
    if (name.ends_with(".bias")) rule = {0.2, 2};
    if (name == "transformer.wte.weight" || name.find(".norm_1.") != name.npos) rule.frozen = true;
    if (name.ends_with(".D")) rule = {0.3, 0.5, true};
    if (name.ends_with("A_log")) rule.weight_decay = 0;
  }
  check_steps({.groups = {{.pattern = "*.attn.*", .rate = 0.5},
                          {.pattern = "*.bias", .weight_decay = 0.2, .rate = 2},
                          {.pattern = "*wte.*", .frozen = true},
                          {.pattern = "transformer.h.?.norm_?.weight", .frozen = true},
                          {.pattern = "*.attn.D", .frozen = true},
                          {.pattern = "*.norm_2.weight", .frozen = false},
                          {.pattern = "*.D", .weight_decay = 0.3},  // sets that alone
                          {.pattern = "*.A_log", .weight_decay = 0}}},
              rules);
}

TEST_CASE("AdamW: the same bits for any number of threads") {
  Random rng;
  CAPTURE(rng.seed);
  const std::uint64_t seed = rng.bits();
  std::vector<std::vector<float>> expected;
  double norm = 0;
  for (const int threads : {1, 2, 3}) {
    Random same{seed, seed};
    Weights<Model, Master<float>> weights, gradients;
    randomise(same, weights);
    AdamW<Model> optimiser({.threads = threads});
    for (int step = 0; step < 2; ++step) {
      randomise(same, gradients);
      const double found = optimiser.step(weights, gradients);
      if (step == 0 && threads == 1) norm = found;
      if (step == 0) CHECK(found == norm);
    }
    std::size_t i = 0;
    for (const auto& tensor : weights.tensors()) {
      const auto values = elements(tensor);
      if (threads == 1) expected.emplace_back(values.begin(), values.end());
      CHECK(same_bits(values, expected[i++]));
    }
  }
}

/// Rows of more than one piece, and no size a multiple of a piece or a panel.
struct Long : LanguageModel<HybridStack<Mamba<33>, SwiGLU<33, 301>>, golden::tied(45)> {};

TEMPLATE_TEST_CASE("assign: what set_row makes of every row", "", float, bf16, int8, q4, double,
                   Master<float>) {
  using R = Real<TestType>;
  const auto master = random_weights<Long, Master<R>>(3);
  Weights<Long, TestType> expected;
  const auto from = master.tensors(), to = expected.tensors();
  for (std::size_t t = 0; t < from.size(); ++t) {
    const auto values = values_of(from[t]);
    for (std::int64_t r = 0; r < from[t].rows; ++r)
      to[t].set_row(r, values.data() + r * from[t].row_size);
  }
  expected.derive();
  for (const int threads : {1, 2, 5}) {
    Weights<Long, TestType> weights;
    assign(weights, master, threads);
    CHECK(same_bits(weights.memory(), expected.memory()));
  }
}

TEST_CASE("AdamW: gradients that are not finite change nothing, unless their tensor is frozen") {
  Random rng;
  Weights<Model, Master<float>> weights, gradients;
  randomise(rng, weights);
  randomise(rng, gradients);
  const auto before = elements(weights.tensors()[0]);
  const std::vector<float> values(before.begin(), before.end());
  elements(gradients.tensors()[0])[70000] = std::bit_cast<float>(0x7f800000u);
  AdamW<Model> optimiser;
  CHECK_FALSE(is_finite(static_cast<float>(optimiser.step(weights, gradients))));
  CHECK(optimiser.steps() == 0);
  CHECK(same_bits(elements(weights.tensors()[0]), values));
  CHECK(elements(optimiser.state().square.tensors()[1])[0] == 0);

  AdamW<Model> frozen({.groups = {{.pattern = "*.wte.*", .frozen = true}}});
  CHECK(is_finite(static_cast<float>(frozen.step(weights, gradients))));
  CHECK(frozen.steps() == 1);
  CHECK(same_bits(elements(weights.tensors()[0]), values));
}

TEMPLATE_TEST_CASE("AdamW: one huge gradient does not stop a weight for good", "", float, double) {
  using R = TestType;
  Weights<Model, Master<R>> weights, gradients;
  const std::span<R> w = elements(weights.tensors()[0]), g = elements(gradients.tensors()[0]);
  AdamW<Model, R> optimiser({.learning_rate = 0.01, .weight_decay = 0, .clip = 0});
  g[0] = static_cast<R>(1e20);
  g[1] = static_cast<R>(-1e38);
  optimiser.step(weights, gradients);
  CHECK(w[0] == Approx(-0.01));  // a first step is as long as the rate
  CHECK(w[1] == Approx(0.01));
  const R before = w[0];
  for (int step = 0; step < 2500; ++step) {  // the square falls by 0.95 each
    g[0] = g[1] = 1;
    optimiser.step(weights, gradients);
  }
  const R late = w[0];
  optimiser.step(weights, gradients);
  CHECK(w[0] < before);
  CHECK(late - w[0] == Approx(0.01).epsilon(1e-3));
}

TEST_CASE("AdamW: in float as in double, however near to 1 the betas are") {
  const AdamWOptions options{
      .learning_rate = 0.01, .beta1 = 0.9999, .beta2 = 0.999999, .weight_decay = 0, .clip = 0};
  AdamW<Model, float> optimiser(options);
  AdamW<Model, double> exact_optimiser(options);
  Weights<Model, Master<float>> weights, gradients;
  Numbers exact, exact_gradients;
  const auto w = elements(weights.tensors()[0]), g = elements(gradients.tensors()[0]);
  const auto we = elements(exact.tensors()[0]), ge = elements(exact_gradients.tensors()[0]);
  Random rng;
  CAPTURE(rng.seed);
  for (int step = 0; step < 10; ++step) {
    rng.fill(g.first(100));
    std::copy_n(g.begin(), 100, ge.begin());
    optimiser.step(weights, gradients);
    exact_optimiser.step(exact, exact_gradients);
    CHECK(relative_error(w.first(100), std::vector<double>(we.begin(), we.begin() + 100)) < 1e-5);
  }
}

TEST_CASE("AdamW: options out of range") {
  const auto make = [](AdamWOptions options) { AdamW<Model> unused(std::move(options)); };
  CHECK_MESSAGE_OF(make({.groups = {{.pattern = "*.head"}}}), "ParameterGroup",
                   "no tensor matches the pattern \"*.head\"", "transformer.wte.weight",
                   "transformer.h.0.norm_1.weight", "more");
  CHECK_MESSAGE_OF(make({.groups = {{.pattern = "*", .frozen = true}}}),
                   "expected a tensor that is not frozen");
  CHECK_MESSAGE_OF(make({.groups = {{.pattern = "*", .rate = -1}}}), "ParameterGroup::rate",
                   "found -1");
  CHECK_MESSAGE_OF(make({.groups = {{.pattern = "*", .weight_decay = -2}}}),
                   "ParameterGroup::weight_decay", "found -2");
  CHECK_MESSAGE_OF(make({.beta1 = 1}), "AdamWOptions::beta1", "found 1");
  CHECK_MESSAGE_OF(make({.beta2 = -0.5}), "AdamWOptions::beta2", "found -0.5");
  CHECK_MESSAGE_OF(make({.eps = 0}), "AdamWOptions::eps", "found 0");
  CHECK_MESSAGE_OF(make({.weight_decay = -1}), "AdamWOptions::weight_decay");
  CHECK_MESSAGE_OF(make({.clip = -1}), "AdamWOptions::clip");
  CHECK_MESSAGE_OF(make({.learning_rate = std::bit_cast<double>(0x7ff8000000000000u)}),
                   "AdamWOptions::learning_rate", "nan");
  CHECK_MESSAGE_OF(make({.threads = -1}), "AdamWOptions::threads", "found -1");
}

TEST_CASE("LearningRate: warm-up, cosine, floor") {
  const LearningRate rate{.peak = 0.02, .floor = 0.002, .warmup_steps = 10, .steps = 110};
  CHECK(rate.at(0) == 0);
  CHECK(rate.at(1) == Approx(0.002));
  CHECK(rate.at(5) == Approx(0.01));
  CHECK(rate.at(10) == Approx(0.02));
  CHECK(rate.at(35) == Approx(0.011 + 0.009 * std::sqrt(0.5)));
  CHECK(rate.at(60) == Approx(0.011));
  CHECK(rate.at(85) == Approx(0.011 - 0.009 * std::sqrt(0.5)));
  CHECK(rate.at(110) == 0.002);
  CHECK(rate.at(1'000'000) == 0.002);

  const LearningRate cosine{.peak = 1, .steps = 100};
  CHECK(cosine.at(0) == 1);
  CHECK(cosine.at(50) == Approx(0.5));
  const LearningRate only_warmup{.peak = 1, .warmup_steps = 4, .steps = 4};
  CHECK(only_warmup.at(3) == 0.75);
  CHECK(only_warmup.at(4) == 1);
  CHECK(only_warmup.at(5) == 0);
  const LearningRate one_step;
  CHECK(one_step.at(1) == one_step.peak);
  CHECK(one_step.at(2) == one_step.floor);
}

TEST_CASE("LearningRate: linear, and stable until the end") {
  LearningRate rate{
      .peak = 0.02, .floor = 0.002, .warmup_steps = 10, .steps = 110, .curve = RateCurve::linear};
  CHECK(rate.at(5) == Approx(0.01));
  CHECK(rate.at(10) == 0.02);
  CHECK(rate.at(60) == Approx(0.011));
  CHECK(rate.at(85) == Approx(0.0065));
  CHECK((rate.at(110) == 0.002 && rate.at(200) == 0.002));
  rate.curve = RateCurve::stable;
  rate.decay_steps = 20;
  CHECK(rate.at(5) == Approx(0.01));
  CHECK((rate.at(10) == 0.02 && rate.at(60) == 0.02 && rate.at(90) == 0.02));
  CHECK(rate.at(100) == Approx(0.011));
  CHECK((rate.at(110) == 0.002 && rate.at(200) == 0.002));
  rate.decay_steps = 0;
  CHECK(rate.at(110) == 0.02);
}

TEST_CASE("LearningRate: what makes no schedule") {
  const auto at = [](LearningRate rate, std::int64_t step = 0) { rate.at(step); };
  CHECK_MESSAGE_OF(at({.peak = 0}), "LearningRate::peak", "found 0");
  CHECK_MESSAGE_OF(at({.peak = std::bit_cast<double>(0x7ff8000000000000u)}), "LearningRate::peak");
  CHECK_MESSAGE_OF(at({.peak = 1, .floor = 2}), "LearningRate::floor", "[0, 1]", "found 2");
  CHECK_MESSAGE_OF(at({.floor = -1}), "LearningRate::floor", "found -1");
  CHECK_MESSAGE_OF(at({.steps = 0}), "LearningRate::steps", "at least 1, found 0");
  CHECK_MESSAGE_OF(at({.warmup_steps = -1}), "LearningRate::warmup_steps", "found -1");
  CHECK_MESSAGE_OF(at({.warmup_steps = 11, .steps = 10}), "LearningRate::warmup_steps", "10",
                   "found 11");
  CHECK_MESSAGE_OF(at({}, -1), "step", "at least 0, found -1");
  CHECK_MESSAGE_OF(at({.steps = 10, .decay_steps = 1}), "LearningRate::decay_steps",
                   "0 to 0 except for RateCurve::stable, found 1");
  CHECK_MESSAGE_OF(
      at({.warmup_steps = 4, .steps = 10, .curve = RateCurve::stable, .decay_steps = 7}),
      "LearningRate::decay_steps: expected 0 to 6", "found 7");
}
