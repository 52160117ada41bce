// Whole models in bf16 on a GPU, random weights: prefill, and steps of 1, 16 and 64 sequences with full
// windows, of Samba-1.7B and of 12 layers of each of its kinds; beside the time in which a copy moves the
// bytes of weights and states.
//   models [samba | layers]
#include <samba/model/presets.hpp>
#include <samba/samba.hpp>

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "benchmarks/cuda/bench.cuh"

using namespace samba;
using namespace samba_bench;

namespace {

using Clock = std::chrono::steady_clock;
double bandwidth = 0;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Weights of small numbers, the same in every row but for where they start.
template <class Model>
Weights<Model, RowMajor<bf16>> some_weights() {
  Weights<Model, RowMajor<bf16>> weights;
  std::vector<float> values(1 << 20);
  SplitMix64 random(1);
  for (float& x : values) x = static_cast<float>(.06 * random.uniform() - .03);
  const auto tensors = weights.tensors();
  const unsigned n = (std::max)(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (unsigned rank = 0; rank < n; ++rank)
    threads.emplace_back([&, rank] {
      for (const auto& tensor : tensors) {
        const auto room = static_cast<std::int64_t>(values.size()) - tensor.row_size;
        if (room <= 0) continue;
        for (std::int64_t r = rank; r < tensor.rows; r += n)
          tensor.set_row(r, values.data() + (r * 7919 + tensor.row_size) % room);
      }
    });
  for (std::thread& thread : threads) thread.join();
  weights.derive();
  return weights;
}

template <class Model>
std::vector<std::int32_t> some_tokens(std::size_t n) {
  std::vector<std::int32_t> tokens(n);
  for (std::size_t i = 0; i < n; ++i)
    tokens[i] = static_cast<std::int32_t>(i * 7919 % Model::vocab_size);
  return tokens;
}

template <class Model>
void measure_prefill(const char* name, const cuda::Weights<Model>& weights, int chunk,
                     std::size_t n) {
  const auto tokens = some_tokens<Model>(n);
  cuda::Session session(weights, {.chunk = chunk});
  std::vector<double> times;
  for (int i = 0; i < 4; ++i) {
    session.reset();
    const auto begin = Clock::now();
    session.prefill(tokens);
    if (i > 0) times.push_back(seconds_since(begin));
  }
  const double time = median(times);
  std::printf("%-12s prefill of %7zu tokens in chunks of %d: %8.2f ms, %.1f tokens/ms\n", name, n,
              chunk, time * 1e3, static_cast<double>(n) * 1e-3 / time);
}

template <class Model>
void measure_steps(const char* name, const cuda::Weights<Model>& weights, int sequences,
                   bool overlap = true) {
  // A prompt of one sequence, whose state the others take.
  cuda::Batch batch(weights, sequences, {.chunk = 256, .overlap = overlap});
  const auto tokens = some_tokens<Model>(2304);
  batch.prefill(0, tokens);  // windows are full
  const Snapshot state = batch.snapshot(0);
  for (int i = 1; i < sequences; ++i) batch.restore(i, state);
  const auto next = some_tokens<Model>(static_cast<std::size_t>(sequences));
  std::vector<double> times;
  bool finite = true;
  for (int i = -10; i < 200; ++i) {
    const auto begin = Clock::now();
    const auto logits = batch.step(next);
    if (i >= 0) times.push_back(seconds_since(begin));
    finite &= std::isfinite(logits.front()) && std::isfinite(logits.back());
  }
  const auto bytes = static_cast<double>(weights.bytes() + sequences * state.block.bytes());
  const double time = median(times), floor = bytes / bandwidth;
  std::printf(
      "%-12s a step of %2d sequences%s: %.3f ms (best %.3f), floor %.3f ms (%.3f GB), ratio "
      "%.2f%s\n",
      name, sequences, overlap ? "" : ", no overlap", time * 1e3,
      *std::min_element(times.begin(), times.end()) * 1e3, floor * 1e3, bytes * 1e-9, time / floor,
      finite ? "" : "; LOGITS ARE NOT FINITE");
}

template <class... Layers>
void measure_layer(const char* name) {
  struct Model : LanguageModel<Repeat<12, HybridStack<DModel<2048>, Layers...>>,
                               ModelOptions{.vocab_size = 64}> {};
  const cuda::Weights<Model> weights(some_weights<Model>());
  for (const int sequences : {1, 16, 64}) measure_steps(name, weights, sequences);
  measure_prefill(name, weights, 8192, 32768);
}

void measure_samba() {
  using Model = presets::Samba1_7B;
  const cuda::Weights<Model> weights(some_weights<Model>());
  measure_steps("Samba-1.7B", weights, 1);
  measure_steps("Samba-1.7B", weights, 1, false);
  measure_steps("Samba-1.7B", weights, 16);
  measure_steps("Samba-1.7B", weights, 64);
  for (const int chunk : {2048, 4096, 8192}) measure_prefill("Samba-1.7B", weights, chunk, 32768);
  measure_prefill("Samba-1.7B", weights, 4096, 4096);
  measure_prefill("Samba-1.7B", weights, 8192, 131072);
}

}  // namespace

int main(int argc, char** argv) {
  const auto wanted = [&](const char* part) { return argc < 2 || std::strcmp(argv[1], part) == 0; };
  return run_on_device([&] {
    bandwidth = copy_bandwidth();
    if (wanted("samba")) measure_samba();
    if (wanted("layers")) {
      measure_layer<Mamba<2048>>("Mamba");
      measure_layer<SwiGLU<2048, 8192>>("SwiGLU");
      measure_layer<SWA<2048, AttentionOptions{.n_heads = 32, .n_kv_heads = 4}>>("SWA");
    }
  });
}
