// Low-rank adapters: what they add to a model, their gradients, how they are trained, their files.
#include <samba/train/adapters.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/gradient.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Model = tiny::Samba;
template <class R>
using Numbers = Weights<Model, Master<R>>;

const AdapterOptions some{
    .patterns = {"*.in_proj.weight", "*.h.?.attn.attn.weight", "*.1.mlp.*.w3.*"},
    .rank = 3,
    .alpha = 7};
const std::vector<std::string> adapted{
    "transformer.h.0.attn.in_proj.weight", "transformer.h.1.attn.attn.weight",
    "transformer.h.1.mlp.swiglu.w3.weight", "transformer.h.2.attn.in_proj.weight",
    "transformer.h.3.attn.attn.weight"};

/// Adapters whose B is not zero.
template <class R>
Adapters<Model, R> random_adapters(Random& rng) {
  Adapters<Model, R> adapters(some);
  rng.fill(adapters.numbers(), -0.3, 0.3);
  return adapters;
}

/// A text of two sequences.
struct Text {
  std::vector<std::int32_t> a, b;

  explicit Text(Random& rng) : a(random_tokens<Model>(rng, 31)), b(random_tokens<Model>(rng, 26)) {}
  std::vector<Example> examples() const {
    const auto example = [](std::span<const std::int32_t> ids) {
      return Example{ids.first(ids.size() - 1), ids.last(ids.size() - 1)};
    };
    return {example(a), example(b)};
  }
  static GradientOptions options() { return {.sequences = 2, .tokens = 55}; }
};

/// The values of a tensor of a file.
std::vector<double> values(const std::string& path, const std::string& name) {
  return read_tensor<double>(SafetensorsFile::open(path), name);
}

}  // namespace

TEST_CASE("adapters: the model with them is that of the sums, apart or merged") {
  Random rng;
  CAPTURE(rng.seed);
  const auto base = random_weights<Model, Master<double>>(5);
  const auto adapters = random_adapters<double>(rng);
  CHECK(adapters.names() == adapted);

  // A and B as a file has them, multiplied here.
  const TempDir folder;
  adapters.save(folder.file("adapters.safetensors"));
  Numbers<double> expected;
  assign(expected, base);
  const auto tensors = expected.tensors();
  const auto names = tensor_names(base);
  for (std::size_t t = 0; t < names.size(); ++t) {
    if (std::find(adapted.begin(), adapted.end(), names[t]) == adapted.end()) continue;
    const std::string stem = names[t].substr(0, names[t].size() - 7);
    const auto A = values(folder.file("adapters.safetensors"), stem + ".lora_A.weight"),
               B = values(folder.file("adapters.safetensors"), stem + ".lora_B.weight");
    const auto in = static_cast<std::size_t>(tensors[t].row_size);
    REQUIRE(A.size() == 3 * in);
    const auto w = elements(tensors[t]);
    for (std::size_t i = 0; i < w.size(); ++i)
      for (std::size_t j = 0; j < 3; ++j) w[i] += 7. / 3 * B[i / in * 3 + j] * A[j * in + i % in];
  }

  Numbers<double> merged;
  assign(merged, base);
  adapters.merge(merged);
  for (std::size_t t = 0; t < names.size(); ++t) {
    CAPTURE(names[t]);
    CHECK(relative_error(elements(merged.tensors()[t]), elements(tensors[t])) < 1e-14);
  }
  Weights<Model, double> apart, whole;
  assign(apart, base);
  adapters.apply(base, apart);
  assign(whole, merged);
  CHECK(same_bits(apart.memory(), whole.memory()));
  const auto tokens = random_tokens<Model>(rng, 40);
  Session of_apart(apart), of_whole(whole);
  const auto logits = all_logits(of_whole, tokens);
  CHECK(same_bits(all_logits(of_apart, tokens), logits));

  // Merged weights make an ordinary file.
  save(merged, folder.file("merged.safetensors"));
  const auto loaded = load<Model, double>(folder.file("merged.safetensors"));
  Session of_loaded(loaded);
  CHECK(relative_error(all_logits(of_loaded, tokens), logits) < 1e-5);  // float32
}

TEST_CASE("adapters: at first they add nothing") {
  const auto base = random_weights<Model, Master<double>>(5);
  const Adapters<Model, double> adapters(some, 1);
  Numbers<double> merged;
  assign(merged, base);
  adapters.merge(merged);
  CHECK(same_bits(merged.memory(), base.memory()));

  // A is random within its bound, another with another seed; B is zero.
  const std::span<const double> A = adapters.numbers().first(3 * 32),
                                B = adapters.numbers().subspan(3 * 32, 3 * 128);
  CHECK(std::all_of(B.begin(), B.end(), [](double x) { return x == 0; }));
  const auto [low, high] = std::minmax_element(A.begin(), A.end());
  CHECK(*low >= -1 / std::sqrt(32.));
  CHECK(*low < -0.9 / std::sqrt(32.));
  CHECK(*high > 0.9 / std::sqrt(32.));
  CHECK(*high <= 1 / std::sqrt(32.));
  CHECK_FALSE(same_bits(adapters.numbers(), Adapters<Model, double>(some, 2).numbers()));
}

TEST_CASE("adapters: central differences") {
  Random rng;
  CAPTURE(rng.seed);
  const Text text(rng);
  const auto base = random_weights<Model, Master<double>>(5);
  auto adapters = random_adapters<double>(rng);
  Weights<Model, double> weights;
  assign(weights, base);
  Gradient<Model, double> gradient(Text::options());
  const auto loss = [&](Numbers<double>& g) {
    adapters.apply(base, weights);
    g.clear();
    return gradient.add(weights, text.examples(), g);
  };
  Numbers<double> g, unused;
  loss(g);
  const auto slopes = adapters.gradients(g);
  const auto numbers = adapters.numbers();
  REQUIRE(slopes.size() == numbers.size());

  // Along a random direction of each A and each B.
  const std::vector<std::size_t> sizes{3 * 32, 3 * 128, 3 * 32,  3 * 64, 3 * 48,
                                       3 * 32, 3 * 32,  3 * 128, 3 * 32, 3 * 64};
  std::size_t begin = 0;
  for (const std::size_t n : sizes) {
    const auto direction = rng.values<double>(n);
    const auto moved = [&](double step) {
      for (std::size_t i = 0; i < n; ++i) numbers[begin + i] += step * direction[i];
      const double at = loss(unused);
      for (std::size_t i = 0; i < n; ++i) numbers[begin + i] -= step * direction[i];
      return at;
    };
    double expected = 0, magnitude = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double term = slopes[begin + i] * direction[i];
      expected += term;
      magnitude += term * term;
    }
    constexpr double step = 1e-5;
    const double found = (moved(step) - moved(-step)) / (2 * step);
    CAPTURE(begin, expected, found);
    CHECK(magnitude > 0);
    CHECK(std::abs(found - expected) <= 1e-6 * (std::abs(expected) + std::sqrt(magnitude)) + 1e-9);
    begin += n;
  }
  CHECK(begin == numbers.size());
}

TEST_CASE("adapters: the same bits for any threads") {
  Random rng;
  CAPTURE(rng.seed);
  const auto base = random_weights<Model, Master<float>>(5),
             dense = random_weights<Model, Master<float>>(6);
  const auto adapters = random_adapters<float>(rng);
  Numbers<float> expected;
  assign(expected, base);
  adapters.merge(expected, 1);
  for (const int threads : {2, 3, 5}) {
    CAPTURE(threads);
    CHECK(same_result(adapters.gradients(dense, threads), adapters.gradients(dense, 1)));
    Numbers<float> merged;
    assign(merged, base);
    adapters.merge(merged, threads);
    for (std::size_t t = 0; t < merged.tensors().size(); ++t)
      CHECK(same_result(elements(merged.tensors()[t]), elements(expected.tensors()[t])));
  }
}

TEST_CASE("adapters: a step of AdamW") {
  Random rng;
  CAPTURE(rng.seed);
  auto adapters = random_adapters<double>(rng);
  const auto dense = random_weights<Model, Master<double>>(6);
  const auto gradients = adapters.gradients(dense);
  const std::vector<double> before(adapters.numbers().begin(), adapters.numbers().end());
  AdapterAdamW<Model, double> optimiser({.learning_rate = 0.01, .weight_decay = 0.2, .clip = 0});
  const double norm = optimiser.step(adapters, dense);
  CHECK(optimiser.steps() == 1);
  // After the first step the means are the gradient and its square.
  std::vector<double> expected;
  double squares = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    const double x = gradients[i];
    squares += x * x;
    expected.push_back(before[i] * (1 - 0.01 * 0.2) - 0.01 * x / (std::abs(x) + 1e-8));
  }
  CHECK(std::abs(norm / std::sqrt(squares) - 1) < 1e-12);
  CHECK(relative_error(adapters.numbers(), expected) < 1e-12);

  Adapters<Model, double> fewer({.patterns = {"*.in_proj.weight"}});
  CHECK_MESSAGE_OF(optimiser.step(fewer, dense), "expected adapters of", "found");
}

TEST_CASE("adapters: training changes nothing else, and lowers the loss") {
  Random rng;
  CAPTURE(rng.seed);
  const Text text(rng);
  const auto base = random_weights<Model, Master<float>>(5);
  Weights<Model> weights;
  assign(weights, base);
  Adapters<Model> adapters(some);
  AdapterAdamW<Model> optimiser({.learning_rate = 0.02, .weight_decay = 0});
  Gradient<Model> gradient(Text::options());
  Numbers<float> g;
  std::vector<double> losses;
  for (int i = 0; i < 10; ++i) {
    g.clear();
    losses.push_back(gradient.add(weights, text.examples(), g));
    optimiser.step(adapters, g);
    adapters.apply(base, weights);
  }
  CAPTURE(losses);
  CHECK(losses.back() < 0.8 * losses.front());

  CHECK(same_bits(base.memory(), random_weights<Model, Master<float>>(5).memory()));
  const auto names = tensor_names(base);
  std::vector<std::string> changed;
  for (std::size_t t = 0; t < names.size(); ++t)
    if (!same_bits(values_of(weights.tensors()[t]), values_of(base.tensors()[t])))
      changed.push_back(names[t]);
  CHECK(changed == adapted);
}

TEST_CASE("adapters: files") {
  Random rng;
  CAPTURE(rng.seed);
  const TempDir folder;
  const std::string path = folder.file("adapters.safetensors");
  const auto adapters = random_adapters<float>(rng);
  adapters.save(path);
  const auto loaded = Adapters<Model>::load(path);
  CHECK(same_bits(loaded.numbers(), adapters.numbers()));
  CHECK(loaded.names() == adapted);
  CHECK(loaded.rank() == 3);
  CHECK(loaded.alpha() == 7);

  // The tensors of a file, some changed.
  struct Tensor {
    std::string name;
    Shape shape;
    std::vector<float> values;
  };
  const auto write = [&](auto change, const char* rank = "3") {
    const auto file = SafetensorsFile::open(path);
    std::vector<Tensor> tensors;
    for (const TensorView& t : file.tensors())
      tensors.push_back(
          {std::string(t.name), t.shape, read_tensor<float>(file, std::string(t.name))});
    change(tensors);
    const std::string changed = folder.file("changed.safetensors");
    SafetensorsWriter writer(changed, {{"samba.rank", rank}, {"samba.alpha", "7"}});
    for (const Tensor& t : tensors) writer.declare(t.name, Dtype::f32, t.shape);
    for (const Tensor& t : tensors) writer.write(t.name, std::as_bytes(std::span(t.values)));
    writer.finish();
    return changed;
  };
  const auto load = [](const std::string& from) { Adapters<Model>::load(from); };
  const std::string first = "transformer.h.0.attn.in_proj.lora_";
  const auto nothing = [](std::vector<Tensor>&) {};
  CHECK_MESSAGE_OF(load(write(nothing, "4")), "changed.safetensors: tensor", first + "A.weight",
                   "expected [4, 32]", "the rank of 4, found [3, 32]");
  CHECK_MESSAGE_OF(load(write(nothing, "0")),
                   "AdapterOptions::rank: expected a number in [1, 4096], found 0");
  CHECK_MESSAGE_OF(load(write(nothing, "x")),
                   "metadata \"samba.rank\": expected an integer, found \"x\"");
  CHECK_MESSAGE_OF(load(write([](auto& t) { t.clear(); })), "expected adapters, found no tensor");
  CHECK_MESSAGE_OF(load(write([](auto& t) { t.erase(t.begin() + 1); })), first + "B.weight",
                   "expected [128, 3], found none");
  CHECK_MESSAGE_OF(load(write([](auto& t) {
                     t[0].name = "transformer.h.9.x.lora_A.weight";
                     t[1].name = "transformer.h.9.x.lora_B.weight";
                   })),
                   "transformer.h.9.x.lora_A.weight",
                   "expected an adapter of a projection of the model vocab_size=61",
                   "found none of this name");
  CHECK_MESSAGE_OF(
      load(write([](auto& t) { t[0].values[5] = std::numeric_limits<float>::infinity(); })),
      first + "A.weight", "element 5 is not finite");
  CHECK_MESSAGE_OF(Adapters<golden::SambaTiny>::load(path), first + "A.weight", "expected [3, 64]",
                   "found [3, 32]");
  save(random_weights<Model>(1), folder.file("model.safetensors"));
  CHECK_MESSAGE_OF(load(folder.file("model.safetensors")),
                   "model.safetensors: not a file of adapters");
}

TEST_CASE("adapters: of projections, not of block-diagonal matrices") {
  const Adapters<tiny::Recurrent> all({.patterns = {"*"}});
  CHECK(all.names().size() == 2 * (3 + 3 + 3 + 3 + 2));
  CHECK_MESSAGE_OF((Adapters<tiny::Recurrent>({.patterns = {"*gate_weight"}})),
                   "AdapterOptions::patterns: no tensor matches the pattern \"*gate_weight\"");
}

TEST_CASE("adapters: bad options") {
  const auto make = [](AdapterOptions options) { Adapters<Model> adapters(options); };
  CHECK_MESSAGE_OF(make({.rank = 2}),
                   "AdapterOptions::patterns: expected at least one, found none");
  CHECK_MESSAGE_OF(make({.patterns = {"*.in_proj.weight", "*.q_proj.*"}}),
                   "AdapterOptions::patterns: no tensor matches the pattern \"*.q_proj.*\"",
                   "in_proj");
  // Neither the convolution, a table of numbers, nor the tied embedding is a projection.
  CHECK_MESSAGE_OF(make({.patterns = {"*.conv1d.weight"}}), "no tensor matches");
  CHECK_MESSAGE_OF(make({.patterns = {"*.A_log"}}), "no tensor matches");
  CHECK_MESSAGE_OF(make({.patterns = {"*.wte.weight"}}), "no tensor matches");
  CHECK_MESSAGE_OF(make({.patterns = {"*"}, .rank = 0}), "AdapterOptions::rank", "found 0");
  CHECK_MESSAGE_OF(make({.patterns = {"*"}, .alpha = -1}), "AdapterOptions::alpha", "found -1");
  CHECK_MESSAGE_OF(AdapterAdamW<Model>({.beta1 = 2}), "AdamWOptions::beta1");
  CHECK_MESSAGE_OF(AdapterAdamW<Model>({.groups = {{.pattern = "*"}}}),
                   "groups: expected none, found 1");
}
