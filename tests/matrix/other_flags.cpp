// What other people's flags are tried on: most of the library, and a model that runs.
#ifdef TEST_MACROS  // of Qt, windows.h and others, after the standard headers
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>
#define slots
#define signals
#define emit
#define foreach(variable, container) a macro
#define min(a, b) a macro
#define max(a, b) a macro
#define check(condition) a macro
#define near
#define far
#define small char
#define interface struct
#endif

#include "../consumers/tiny_model.hpp"

#include <samba/io/gguf_checkpoint.hpp>
#include <samba/io/gguf_tokenizer.hpp>
#include <samba/io/sentencepiece_model.hpp>
#include <samba/model/published.hpp>
#include <samba/train/adapters.hpp>
#include <samba/train/outliers.hpp>
#include <samba/train/passkey.hpp>
#include <samba/train/trainer.hpp>
#include <samba/train/validate.hpp>

#include <cstdio>

template double samba::FileRecord::number<double>(std::string_view) const;

namespace {

using namespace samba;

/// Nothing that a session keeps.
struct WithoutState : LanguageModel<SwiGLU<32>, ModelOptions{.vocab_size = 8}> {};

template <class T>
void run_without_state() {
  const Weights<WithoutState, T> weights;
  Session session(weights);
  session.step(1);
  session.reset();
  Snapshot snapshot = session.snapshot();
  session.snapshot(snapshot);
  session.restore(snapshot);
  session = Session(session);
}

void train_without_state() {
  Weights<WithoutState> weights;
  Weights<WithoutState, Master<float>> gradients;
  Gradient<WithoutState> gradient(GradientOptions{.tokens = 8, .recompute = true});
  const std::array<std::int32_t, 3> tokens{1, 2, 3};
  gradient.add(weights, std::array{Example{tokens, tokens}}, gradients);
  gradient.carry();
  gradient.reset();
}

}  // namespace

int main() {
  run_without_state<float>();
  run_without_state<bf16>();
  run_without_state<int8>();
  run_without_state<q4>();
  train_without_state();
  const std::vector<float> logits = tiny_logits();
  std::printf("%s: %zu logits\n", build_info().c_str(), logits.size());
  return is_finite(logits[0]) ? 0 : 1;
}
