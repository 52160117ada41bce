#pragma once
// What the tests of training share: a tiny model of every layer, and a file of tokens for it.
#include <samba/train/tensor_norms.hpp>
#include <samba/train/trainer.hpp>

#include "tests/models.hpp"

namespace samba_test {

struct TrainedModel
    : LanguageModel<
          HybridStack<Mamba<16, 4>, SwiGLU<16, 24>, SWA<8, AttentionOptions{.n_heads = 2}>>,
          golden::tied(32)> {};

/// A file of tokens of which each often follows from the one before, in documents of 1 to 30
/// tokens that end with 0.
inline std::shared_ptr<const TokenFile> some_tokens(const std::string& path, std::uint64_t seed = 1,
                                                    int size = 3000) {
  Random rng{seed, seed};
  std::vector<std::int32_t> tokens;
  for (int last = 1; std::ssize(tokens) < size;) {
    last = rng.below(4) > 0 ? (last * 5 + 3) % 32 : rng.below(32);
    if (rng.below(15) == 0) last = 0;
    tokens.push_back(last);
  }
  TokenFileWriter writer(path, 32, 0);
  writer.append(tokens);
  writer.close();
  return std::make_shared<const TokenFile>(path);
}

/// Small steps of a few tokens.
inline TrainOptions few_tokens() {
  return {.sequences = 2,
          .seq_len = 12,
          .learning_rate = {.peak = 0.01, .warmup_steps = 2, .steps = 40},
          .threads = 1};
}

/// All numbers of some weights, one after another.
template <class Model, class T>
std::vector<Real<T>> numbers(const Weights<Model, T>& weights) {
  std::vector<Real<T>> all;
  for (const auto& tensor : weights.tensors()) {
    const auto values = values_of(tensor);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace samba_test
