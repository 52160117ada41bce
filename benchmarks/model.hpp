#pragma once
/// \file
/// What the benchmarks of whole models share: the demo's model, tokens, and rows.
#include "bench.hpp"

#include <samba/samba.hpp>

namespace bench {

using namespace samba;

struct Demo
    : LanguageModel<Repeat<4, HybridStack<Mamba<256>, SwiGLU<256, 768>,
                                          SWA<512, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                                          SwiGLU<256, 768>>>,
                    ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};

template <class Model>
std::int32_t token(std::int64_t i) {
  return static_cast<std::int32_t>(i * 7919 % Model::vocab_size);
}
template <class Model>
std::vector<std::int32_t> tokens(std::int64_t n) {
  std::vector<std::int32_t> all;
  for (std::int64_t i = 0; i < n; ++i) all.push_back(token<Model>(i));
  return all;
}

/// Registers a row of something that has threads of its own. run(state) measures and returns the
/// cost of what it measured; `n` tokens at once.
template <class Run>
void model_row(const std::string& name, int threads, std::int64_t n, Dot dot, Run run) {
  const auto measure = [=](benchmark::State& state) {
    const Ceiling before = Ceiling::now(threads, dot);
    Cost cost = run(state);
    cost.dot = dot;
    report(state, threads, cost, before);
    state.counters["tokens"] =
        benchmark::Counter(static_cast<double>(n), benchmark::Counter::kIsIterationInvariantRate);
  };
  benchmark::RegisterBenchmark(path({name, with_threads(threads)}).c_str(), measure)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace bench
