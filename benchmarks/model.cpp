// Whole models with random weights: `prefill` reads 512 tokens, `decode` steps one by one at small
// positions. Rows of Samba421M (1.7 GB of weights) are there when SAMBA_BENCH_LARGE is set.
#include "bench.hpp"

#include <samba/samba.hpp>

#include <cstdlib>

using namespace bench;
using namespace samba;

namespace {

struct Demo
    : LanguageModel<Repeat<4, HybridStack<Mamba<256>, SwiGLU<256, 768>,
                                          SWA<512, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                                          SwiGLU<256, 768>>>,
                    ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};
struct Mamba130M : LanguageModel<Repeat<24, Mamba<768>>,
                                 ModelOptions{.vocab_size = 50280, .tie_embeddings = true}> {};

constexpr int prompt_tokens = 512, decode_tokens = 64;

template <class Model>
const Weights<Model>& random_weights() {
  static const Weights<Model> weights = [] {
    Weights<Model> w;
    Random random;
    w.visit([&]<class X>(int, auto, auto, X& x) { random.fill(x.data(), X::bytes / 4, 0.05f); });
    w.derive();
    return w;
  }();
  return weights;
}

/// Bytes of the weights that a token needs: all but the rows of an embedding that stands alone.
template <class Model>
constexpr double weights_read =
    floats(Model::parameters -
           (Model::tie_embeddings ? 0 : std::int64_t{Model::vocab_size} * Model::d_model));

/// Bytes of state that are read and written by a chunk of `rows` tokens from `position` on.
template <class Model>
double state_traffic(std::int64_t position, std::int64_t rows) {
  double bytes = 0;
  for_each_branch<typename Model::Stack>([&](auto branch, Use) {
    using State = typename decltype(branch)::type::template State<float, float>;
    State state{};
    State::visit(state, [&]<class X>(auto, const X&) {
      if constexpr (requires(X x) { x.slots; })
        bytes += floats(std::min<std::int64_t>(position + rows, X::shape[0]) * X::shape[1]);
      else
        bytes += 2.0 * static_cast<double>(X::bytes(0));
    });
  });
  return bytes;
}

/// run(state) measures and returns the cost of what it measured.
template <class Run>
void add_row(const std::string& name, int threads, int tokens, Run run) {
  const auto measure = [=](benchmark::State& state) {
    report(state, threads, run(state));
    state.counters["tokens/s"] =
        benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  };
  benchmark::RegisterBenchmark(path({name, with_threads(threads)}).c_str(), measure)
      ->UseRealTime()
      ->Unit(benchmark::kMillisecond);
}

template <class Model>
void add(const std::string& model) {
  for (const int threads : thread_counts())
    add_row(path({"model/prefill", model, std::to_string(prompt_tokens)}), threads, prompt_tokens,
            [=](benchmark::State& state) {
              Session session(random_weights<Model>(), {.threads = threads});
              std::vector<std::int32_t> tokens;
              for (int i = 0; i < prompt_tokens; ++i)
                tokens.push_back(i * 7919 % Model::vocab_size);
              while (state.KeepRunning()) {
                state.PauseTiming();
                session.reset();
                state.ResumeTiming();
                session.prefill(tokens);
              }
              // The head is needed for the last token only.
              double flops = -2.0 * Model::vocab_size * Model::d_model * (prompt_tokens - 1);
              for (int i = 0; i < prompt_tokens; ++i)
                flops += static_cast<double>(Model::flops_per_token(i));
              return Cost{.bytes = weights_read<Model> + state_traffic<Model>(0, prompt_tokens),
                          .flops = flops};
            });
  for (const int threads : thread_counts())
    add_row(path({"model/decode", model, "1"}), threads, 1, [=](benchmark::State& state) {
      Session session(random_weights<Model>(), {.threads = threads});
      while (state.KeepRunning()) {
        if (session.position() == decode_tokens) {
          state.PauseTiming();
          session.reset();
          state.ResumeTiming();
        }
        session.step(static_cast<std::int32_t>(session.position() * 7919 % Model::vocab_size));
      }
      constexpr std::int64_t middle = decode_tokens / 2;
      return Cost{.bytes = weights_read<Model> + state_traffic<Model>(middle, 1),
                  .flops = static_cast<double>(Model::flops_per_token(middle))};
    });
}

[[maybe_unused]] const bool registered = [] {
  add<Demo>("demo");
  add<Mamba130M>("mamba130m");
  if (std::getenv("SAMBA_BENCH_LARGE")) add<presets::Samba421M>("samba421m");
  return true;
}();

}  // namespace
