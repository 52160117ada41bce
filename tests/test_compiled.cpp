// The library samba::compiled: every instruction set of this processor against the golden logits, and a
// step of training with gradients against those in double.
// (That its bits are those of a program compiled for the set: tests/compiled.)
#include <samba/train/adamw.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/gradient.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

/// The sets that the library holds; those that the processor lacks are refused.
std::vector<std::string> present_sets() {
  std::vector<std::string> sets;
  for (const char* name : {"sse2", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "neon"}) try {
      use_instruction_set(name);
      sets.push_back(name);
    } catch (const Error& error) {
      CHECK(std::string(error.what())
                .find("use_instruction_set: expected a set that "
                      "samba::compiled contains and this processor supports (") == 0);
    }
  return sets;
}

template <class T>
double error_of(double tolerance) {
  using Model = golden::SambaOdd;
  const auto file = SafetensorsFile::open(golden::path<Model>("expected.safetensors"));
  std::vector<std::int32_t> ids;
  for (const auto id : read_tensor<std::int64_t>(file, "input_ids"))
    ids.push_back(static_cast<std::int32_t>(id));
  ids.resize(ids.size() / 2);  // of the first of two sequences
  auto expected = read_tensor<double>(file, "logits");
  expected.resize(expected.size() / 2);
  const auto weights = load<Model, T>(golden::path<Model>("model.safetensors"));
  Session session(weights);
  return relative_error(all_logits(session, ids), expected) / tolerance;
}

/// A model of all sorts of branches, and a text.
struct Trained
    : LanguageModel<HybridStack<Mamba<24, 8>, SwiGLU<24>, SWA<9, golden::heads_4_2>,
                                RgLru<24, RgLruOptions{.n_heads = 2}>,
                                Scaled<ScaledOptions{.factor = 3},
                                       Pre<Norm<NormOptions{.kind = NormKind::layer, .bias = true}>,
                                           SwiGLU<24, 37, MlpOptions{.bias = true}>>>>,
                    golden::untied(61)> {};

/// One step of AdamW: the loss before and after it, and the gradients of all tensors.
template <class T>
struct Step {
  using R = Real<T>;
  double before = 0, after = 0;
  std::vector<std::vector<R>> gradients;

  explicit Step(std::span<const std::int32_t> tokens) {
    const Example example{tokens.first(tokens.size() - 1), tokens.subspan(1)};
    Weights<Trained, Master<R>> master, g;
    initialize(master, 1);
    Weights<Trained, T> weights;
    assign(weights, master);
    Gradient<Trained, T> gradient({.tokens = std::ssize(example.tokens), .fresh = true});
    before = gradient.add(weights, {&example, 1}, g);
    for (const auto& tensor : g.tensors()) gradients.push_back(values_of(tensor));
    AdamW<Trained, R> optimiser({.learning_rate = 1e-2});
    optimiser.step(master, g);
    assign(weights, master);
    g.clear();
    after = gradient.add(weights, {&example, 1}, g);
  }

  /// The largest error of a tensor's gradients.
  double error(const Step<double>& expected) const {
    double most = std::abs(before / expected.before - 1);
    for (std::size_t i = 0; i < gradients.size(); ++i)
      most = (std::max)(most, relative_error(gradients[i], expected.gradients[i]));
    return most;
  }
};

}  // namespace

TEST_CASE("samba::compiled: golden logits on every instruction set") {
  const std::string best(instruction_set());
  const auto sets = present_sets();
  REQUIRE(!sets.empty());
  CHECK(sets.back() == best);
  for (const std::string& set : sets) {
    CAPTURE(set);
    use_instruction_set(set);
    CHECK(instruction_set() == set);
    CHECK(build_info().find(", " + std::string(target) + " for " + set + ", ") !=
          std::string::npos);
    CHECK(error_of<float>(2e-5) <= 1);
    CHECK(error_of<bf16>(3e-2) <= 1);
    CHECK(error_of<double>(1e-10) <= 1);
  }
}

TEST_CASE("samba::compiled: a step of training on every instruction set") {
  Random rng;
  CAPTURE(rng.seed);
  const auto tokens = random_tokens<Trained>(rng, 120);
  const Step<double> expected(tokens);
  CHECK(expected.after < expected.before);
  for (const std::string& set : present_sets()) {
    CAPTURE(set);
    use_instruction_set(set);
    const Step<float> in_float(tokens);
    CHECK(in_float.error(expected) < 5e-5);  // as the golden gradients
    CHECK(in_float.after < in_float.before);
    const Step<bf16> in_bf16(tokens);
    CHECK(in_bf16.error(expected) < 5e-2);  // factors of 8 bits
    CHECK(in_bf16.after < in_bf16.before);
  }
}

TEST_CASE("samba::compiled: an unknown instruction set changes nothing") {
  const std::string before(instruction_set());
  CHECK_THROWS_WITH(use_instruction_set("sve"),
                    Catch::Contains("found \"sve\"") && Catch::Contains(before));
  CHECK(instruction_set() == before);
}
