// The paper's comparison of speed (arXiv 2406.07522, figure 4) on a CPU: how four models of about 1.7
// billion parameters decode as their texts grow, how fast they read prompts, and the memory they take.
// Weights are random and in bf16, as are keys and values; a state is not computed for decoding, only its
// position is set, which changes no work. Writes a table: model, parameters, what, tokens, seconds (per
// token of decode, per prompt), memory. Usage: headline FILE.csv [--tiny] [--threads N]
#include <samba/model/presets.hpp>
#include <samba/samba.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <unistd.h>

using namespace samba;

namespace {

/// Small models of the same kinds, to see that the program runs.
struct TinySamba
    : LanguageModel<HybridStack<Mamba<64>, SwiGLU<64, 128>, SWA<64, AttentionOptions{.n_heads = 4}>,
                                SwiGLU<64, 128>>,
                    ModelOptions{.vocab_size = 128, .tie_embeddings = true}> {};
struct TinyLlama
    : LanguageModel<
          Repeat<2, HybridStack<Attention<AttentionOptions{.n_heads = 4}>, SwiGLU<64, 128>>>,
          ModelOptions{.vocab_size = 128, .tie_embeddings = true}> {};

struct Options {
  const char* file = nullptr;
  bool tiny = false;
  int threads = 0;
  std::vector<std::int64_t> contexts = {1024, 4096, 16384, 65536}, prompts = {1024, 4096, 16384};
  int steps = 9;
};

double seconds(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Bytes of memory in use by the process.
double resident() {
  long pages = 0;
  if (std::FILE* const file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  return static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

template <class Model>
void measure(const char* name, const Options& options, std::FILE* out) {
  Weights<Model, bf16> weights;
  SplitMix64 random(1);
  std::vector<float> row;
  for (const auto& tensor : weights.tensors()) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      for (float& x : row) x = static_cast<float>(0.05 * (2 * random.uniform() - 1));
      tensor.set_row(r, row.data());
    }
  }
  weights.derive();
  const auto write = [&](const char* what, std::int64_t tokens, double time) {
    std::fprintf(out, "%s,%lld,%s,%lld,%.6g,%.0f\n", name,
                 static_cast<long long>(Model::parameters), what, static_cast<long long>(tokens),
                 time, resident());
    std::fflush(out);
    std::printf("%-12s %-8s %8lld tokens: %.4g s\n", name, what, static_cast<long long>(tokens),
                time);
    std::fflush(stdout);
  };
  for (const std::int64_t prompt : options.prompts) {
    Session<Model, bf16, bf16> session(weights, {.capacity = prompt, .threads = options.threads});
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < prompt; ++i)
      ids.push_back(static_cast<std::int32_t>(random() % Model::vocab_size));
    write("prompt", prompt, seconds([&] { session.prefill(ids); }));
  }
  for (const std::int64_t context : options.contexts) {
    Session<Model, bf16, bf16> session(
        weights, {.capacity = context + options.steps, .threads = options.threads});
    Snapshot state = session.snapshot();
    state.position = context;
    std::memset(state.block.data(), 0, static_cast<std::size_t>(state.block.bytes()));
    session.restore(state);
    state.block = {};
    std::vector<double> times;
    for (int i = 0; i < options.steps; ++i) times.push_back(seconds([&] { session.step(1); }));
    std::nth_element(times.begin(), times.begin() + options.steps / 2, times.end());
    write("decode", context, times[static_cast<std::size_t>(options.steps / 2)]);
  }
}

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--tiny") == 0)
      options.tiny = true;
    else if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
      options.threads = std::atoi(argv[++i]);
    else if (options.file == nullptr && argv[i][0] != '-')
      options.file = argv[i];
    else
      fail({"unknown argument ", Quoted{argv[i]}});
  }
  if (options.file == nullptr) fail({"usage: headline FILE.csv [--tiny] [--threads N]"});
  std::FILE* const out = std::fopen(options.file, "w");
  if (out == nullptr) fail({options.file, ": cannot open for writing"});
  std::fprintf(out, "model,parameters,what,tokens,seconds,resident_bytes\n");
  if (options.tiny) {
    options.contexts = {64, 256};
    options.prompts = {64};
    measure<TinySamba>("Samba", options, out);
    measure<TinyLlama>("Llama-3", options, out);
  } else {
    measure<presets::Samba1_7B>("Samba", options, out);
    measure<presets::PaperMistral_1700M>("Mistral", options, out);
    measure<presets::PaperMamba_1700M>("Mamba", options, out);
    measure<presets::PaperLlama3_1700M>("Llama-3", options, out);
  }
  if (std::fclose(out) != 0) fail({options.file, ": cannot write"});
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
