// 10_finetune: fine-tunes a model, on a text or to remember a passkey for longer than its window.
//   10_finetune [--text FILE] [--train PATTERN ... | --adapters PATTERN ... [--rank N]] [--steps N]
//               [--seq-len N] [--model DIR or FILE.gguf] [--out FILE] [--names FORMAT] [--apart FILE]
//               [--svg FILE]
// All weights learn, or those whose names match a pattern, or low-rank adapters of such projections,
// which are saved merged (--out) and apart (--apart). The tensors of --out have the names of the model's
// file, or those of a format that --names says. With --text, the last tenth of the text is kept: prints
// its loss during the run, and draws both losses. Without, prints how often the answer is right by
// length and depth, before and after, and draws it: the demo model was trained with passkey texts of
// other words, and before answers where the key is within its window of 512, and nowhere else.
#include "models.hpp"
#include "program.hpp"
#include "svg.hpp"

#include <samba/train/adapters.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/gradient.hpp>
#include <samba/train/learning_rate.hpp>
#include <samba/train/passkey.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

using namespace samba;

namespace {

template <class Model>
using Numbers = Weights<Model, Master<float>>;

struct Options {
  std::string model = "examples/demo_model", text = "", out = "finetuned.safetensors", names = "",
              apart = "", svg = "passkey.svg";
  std::vector<std::string> train = {"*"};
  AdapterOptions adapters;
  std::int64_t steps = 500, seq_len = 1024;
  int sequences = 8, depths = 5, threads = 0;
  double rate = 5e-4;
  PasskeyOptions passkey{.lengths = {256, 512, 1024, 2048, 4096}};
  bool quick = false;
};

/// The weights, and what of them learns.
template <class Model>
class Learner {
 public:
  explicit Learner(const Options& options)
      : master_(load_checkpoint<Model, Master<float>>(options.model)), threads_(options.threads) {
    if (options.names.empty())
      save_options_.names = save_format(options.model);
    else
      save_options_.names = format_by_name("--names", options.names);
    check_save(master_, options.out, save_options_);
    assign(weights_, master_);
    AdamWOptions adamw{.weight_decay = 0, .threads = options.threads};
    if (!options.adapters.patterns.empty()) {
      adapters_.emplace(options.adapters, options.passkey.seed);
      adapters_optimiser_.emplace(adamw);
      return;
    }
    adamw.groups = {{.pattern = "*", .frozen = true}};
    for (const std::string& pattern : options.train)
      adamw.groups.push_back({.pattern = pattern, .frozen = false});
    optimiser_.emplace(adamw);
  }

  const Weights<Model>& weights() const { return weights_; }

  void step(const Numbers<Model>& gradients, double rate) {
    if (adapters_) {
      adapters_optimiser_->step(*adapters_, gradients, rate);
      adapters_->apply(master_, weights_, threads_);
    } else {
      optimiser_->step(master_, gradients, rate);
      assign(weights_, master_, threads_);
    }
  }

  /// How many numbers learn.
  std::int64_t size() const {
    if (adapters_) return std::ssize(adapters_->numbers());
    std::int64_t n = 0;
    const auto tensors = master_.tensors();
    for (std::size_t t = 0; t < tensors.size(); ++t)
      if (!optimiser_->frozen(t)) n += tensors[t].rows * tensors[t].row_size;
    return n;
  }

  /// The model as an ordinary checkpoint, and the adapters apart.
  void save(const std::string& model, const std::string& apart) {
    if (!apart.empty()) adapters_->save(apart);
    if (adapters_) adapters_->merge(master_);
    samba::save(master_, model, save_options_);
  }

 private:
  Numbers<Model> master_;
  Weights<Model> weights_;
  SaveOptions save_options_;
  int threads_;
  std::optional<AdamW<Model>> optimiser_;
  std::optional<Adapters<Model>> adapters_;
  std::optional<AdapterAdamW<Model>> adapters_optimiser_;
};

/// Makes the steps; returns the losses. batch(step, f): calls f with the examples of a step.
/// after(step): called after each.
template <class Model, class Batch, class After>
svg::Series make_steps(Learner<Model>& learner, const Options& options, Batch batch, After after) {
  const LearningRate rate{
      .peak = options.rate, .warmup_steps = options.steps / 20, .steps = options.steps};
  Gradient<Model> gradient({.sequences = options.sequences,
                            .tokens = options.sequences * options.seq_len,
                            .capacity = options.seq_len,
                            .threads = options.threads,
                            .fresh = true});
  Numbers<Model> gradients;
  svg::Series losses{.name = "training"};
  const auto start = std::chrono::steady_clock::now();
  Progress progress;
  for (std::int64_t step = 1; step <= options.steps; ++step) {
    double loss = 0;
    batch([&](const std::vector<Example>& examples) {
      gradients.clear();
      loss = gradient.add(learner.weights(), examples, gradients);
    });
    learner.step(gradients, rate.at(step));
    losses.points.push_back({static_cast<double>(step), loss});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    progress.show("step %lld of %lld: loss %.4f, %.0f s", static_cast<long long>(step),
                  static_cast<long long>(options.steps), loss, seconds.count());
    after(step);
  }
  return losses;
}

/// Steps on texts of seq_len tokens with keys at any depth.
template <class Model, class Tokenizer>
svg::Series train_passkey(Learner<Model>& learner, const Options& options,
                          const Tokenizer& tokenizer) {
  SplitMix64 random(options.passkey.seed ^ 0x7261696e);  // not the texts that the model is asked
  const auto batch = [&](auto use) {
    std::vector<PasskeyTokens> texts;
    std::vector<std::vector<std::int32_t>> targets;
    std::vector<Example> examples;
    for (int s = 0; s < options.sequences; ++s) {
      const double depth = random.uniform();
      texts.push_back(passkey_tokens(tokenizer, options.seq_len, depth, random()));
      targets.push_back(texts.back().targets());
    }
    for (std::size_t s = 0; s < texts.size(); ++s)
      examples.push_back({std::span(texts[s].tokens).first(targets[s].size()), targets[s]});
    use(examples);
  };
  return make_steps(learner, options, batch, [](std::int64_t) {});
}

/// The mean over a part of the steps. The loss of one step says little: it depends on how many of its
/// keys happen to be within the window.
double mean_loss(const svg::Series& losses, double from, double to) {
  const auto n = static_cast<double>(losses.points.size());
  const auto begin = static_cast<std::size_t>(from * n),
             end = std::max(static_cast<std::size_t>(to * n), begin + 1);
  double sum = 0;
  for (std::size_t i = begin; i < end; ++i) sum += losses.points[i][1];
  return sum / static_cast<double>(end - begin);
}

template <class Model, class Tokenizer>
PasskeyResult ask(const Learner<Model>& learner, const Options& options,
                  const Tokenizer& tokenizer) {
  const std::int64_t longest =
      *std::max_element(options.passkey.lengths.begin(), options.passkey.lengths.end());
  Session session(learner.weights(), {.capacity = longest, .threads = options.threads});
  Progress progress;
  return passkey_retrieval(session, tokenizer, options.passkey,
                           [&](std::int64_t done, std::int64_t total) {
                             progress.show("asked %lld of %lld", static_cast<long long>(done),
                                           static_cast<long long>(total));
                           });
}

void print(const char* when, const PasskeyResult& result) {
  std::printf("right answers %s, %%\n  bytes, depth", when);
  for (const double depth : result.depths) std::printf(" %6.2f", depth);
  for (std::size_t l = 0; l < result.lengths.size(); ++l) {
    std::printf("\n%14lld", static_cast<long long>(result.lengths[l]));
    for (std::size_t d = 0; d < result.depths.size(); ++d)
      std::printf(" %6.0f", 100 * result.rate(l, d));
  }
  std::printf("\n");
}

svg::HeatMap map_of(const std::string& when, const PasskeyResult& result) {
  svg::HeatMap map{.title = "Passkey: right answers " + when + ", %",
                   .x_label = "length of the text, bytes",
                   .y_label = "depth of the key"};
  for (const std::int64_t length : result.lengths) map.columns.push_back(std::to_string(length));
  for (std::size_t d = 0; d < result.depths.size(); ++d) {
    map.rows.push_back(svg::text_of(result.depths[d]));
    for (std::size_t l = 0; l < result.lengths.size(); ++l)
      map.values.push_back(100 * result.rate(l, d));
  }
  return map;
}

template <class Model>
void print_size(const Learner<Model>& learner, const Options& options) {
  std::printf("training %lld of %lld parameters, %lld steps of %d texts of %lld tokens\n",
              static_cast<long long>(learner.size()), static_cast<long long>(Model::parameters),
              static_cast<long long>(options.steps), options.sequences,
              static_cast<long long>(options.seq_len));
}

template <class Model, class Tokenizer>
void learn_passkey(Learner<Model>& learner, const Options& options, const Tokenizer& tokenizer) {
  const PasskeyResult before = ask(learner, options, tokenizer);
  print("before", before);
  print_size(learner, options);
  const svg::Series losses = train_passkey(learner, options, tokenizer);
  std::printf(
      "loss of the answer, nats per token, means of the first and last quarter of the steps: "
      "%.4f, %.4f\n",
      mean_loss(losses, 0, 0.25), mean_loss(losses, 0.75, 1));
  const PasskeyResult after = ask(learner, options, tokenizer);
  print("after", after);
  std::printf("right answers over all: %.1f %%, then %.1f %%\n", 100 * before.mean(),
              100 * after.mean());

  svg::Page page;
  page.add(map_of("before", before));
  page.add(map_of("after", after));
  page.add(svg::LineChart{.title = "Fine-tuning",
                          .x = {.label = "step"},
                          .y = {.label = "loss of the answer, nats per token", .from_zero = true},
                          .series = {losses}});
  page.save(options.svg);
}

/// The mean loss of windows of seq_len + 1 tokens, each from an empty state.
template <class Model>
double held_out_loss(const Learner<Model>& learner, const Options& options,
                     std::span<const std::int32_t> tokens) {
  Session session(learner.weights(), {.capacity = options.seq_len, .threads = options.threads});
  const auto window = static_cast<std::size_t>(options.seq_len) + 1;
  constexpr std::size_t most = 16;
  Score total;
  for (std::size_t i = 0; i < most && (i + 1) * window <= tokens.size(); ++i) {
    session.reset();
    total += score(session, tokens.subspan(i * window, window));
  }
  return total.nats_per_token();
}

template <class Model, class Tokenizer>
void learn_text(Learner<Model>& learner, const Options& options, const Tokenizer& tokenizer) {
  const MappedFile file(options.text);
  const auto tokens =
      tokenizer.encode({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
  const std::size_t kept = tokens.size() / 10,
                    window = static_cast<std::size_t>(options.seq_len) + 1;
  if (kept < window)
    fail({options.text, ": expected at least ", 10 * window,
          " tokens, of which the last tenth is kept for validation, found ", tokens.size()});
  const auto train = std::span(tokens).first(tokens.size() - kept),
             rest = std::span(tokens).last(kept);
  print_size(learner, options);
  svg::Series held_out{.name = "held out"};
  const std::int64_t every = std::max<std::int64_t>(1, options.steps / 10);
  const auto measure = [&](std::int64_t step) {
    if (step % every != 0 && step != options.steps) return;
    held_out.points.push_back({static_cast<double>(step), held_out_loss(learner, options, rest)});
    std::printf("%8lld  held-out loss %.4f nats per token\n", static_cast<long long>(step),
                held_out.points.back()[1]);
    std::fflush(stdout);
  };
  measure(0);
  SplitMix64 random(options.passkey.seed);
  const auto batch = [&](auto use) {
    std::vector<Example> examples;
    for (int s = 0; s < options.sequences; ++s) {
      const auto at = static_cast<std::size_t>(random.uniform() *
                                               static_cast<double>(train.size() - window + 1));
      examples.push_back({train.subspan(at, window - 1), train.subspan(at + 1, window - 1)});
    }
    use(examples);
  };
  const svg::Series losses = make_steps(learner, options, batch, measure);
  std::printf("held-out loss: %.4f, then %.4f nats per token\n", held_out.points.front()[1],
              held_out.points.back()[1]);
  svg::Page page;
  page.add(svg::LineChart{.title = "Fine-tuning",
                          .x = {.label = "step"},
                          .y = {.label = "nats per token"},
                          .series = {losses, held_out}});
  page.save(options.svg);
}

void run(Options options) {
  check_at_least("--steps", options.steps, 1);
  check_at_least("--sequences", options.sequences, 1);
  check_at_least("--seq-len", options.seq_len, 1);
  check_at_least("--depths", options.depths, 2);
  check_output("--svg", options.svg);
  check_output("--out", options.out);
  if (!options.apart.empty()) check_output("--apart", options.apart);
  options.passkey.depths.clear();
  for (int i = 0; i < options.depths; ++i)
    options.passkey.depths.push_back(static_cast<double>(i) / (options.depths - 1));

  with_model(options.model, [&]<class Model>(std::type_identity<Model>, const auto& tokenizer) {
    Learner<Model> learner(options);
    if (options.text.empty())
      learn_passkey(learner, options, tokenizer);
    else
      learn_text(learner, options, tokenizer);
    learner.save(options.out, options.apart);
  });
  std::printf("written: %s, %s %s\n", options.svg.c_str(), options.out.c_str(),
              options.apart.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Fine-tunes a model, on a text or to remember a passkey for longer than its window.");
  app.footer(
      "Example:\n"
      "  10_finetune --steps 300 --out finetuned.safetensors\n"
      "  10_finetune --adapters '*.attn.*' '*.swiglu.w3.*' --apart adapters.safetensors\n"
      "  10_finetune --text notes.txt --model build/models/SmolLM2-135M-Instruct.Q4_1.gguf "
      "--adapters '*.attn.*' --seq-len 256 --steps 100");
  app.option_defaults()->always_capture_default();
  app.add_option("--model", options.model, "folder with config.json, or GGUF file");
  app.add_option("--text", options.text, "text to learn, instead of passkeys");
  auto* const train = app.add_option("--train", options.train, "patterns of tensors that learn");
  auto* const adapters = app.add_option("--adapters", options.adapters.patterns,
                                        "patterns of projections that get adapters instead");
  adapters->excludes(train);
  app.add_option("--rank", options.adapters.rank, "of the adapters")->needs(adapters);
  app.add_option("--alpha", options.adapters.alpha, "their weight times the rank")->needs(adapters);
  app.add_option("--steps", options.steps, "steps");
  app.add_option("--sequences", options.sequences, "texts of a step");
  app.add_option("--seq-len", options.seq_len, "tokens of a text");
  app.add_option("--rate", options.rate, "largest learning rate");
  app.add_option("--lengths", options.passkey.lengths, "of texts that are asked, tokens");
  app.add_option("--depths", options.depths, "places of the key in them");
  app.add_option("--trials", options.passkey.trials, "texts of each length and depth");
  app.add_option("--seed", options.passkey.seed, "of the keys");
  app.add_option("--threads", options.threads, "0: all that OpenMP gives");
  app.add_option("--out", options.out, "file for the model, adapters merged");
  app.add_option("--names", options.names,
                 "names of its tensors: samba, fla, llama, gemma2, phi3, recurrent_gemma, mamba; "
                 "or, if not given, those of the model's file");
  app.add_option("--apart", options.apart, "file for the adapters alone")->needs(adapters);
  app.add_option("--svg", options.svg, "file for the plots");
  app.add_flag("--quick", options.quick, "a few small steps, to see that it runs");
  return run_program(app, argc, argv, [&] {
    if (options.quick) {
      set_unless_given(app, "--steps", options.steps, 4);
      set_unless_given(app, "--sequences", options.sequences, 1);
      set_unless_given(app, "--seq-len", options.seq_len, 768);
      set_unless_given(app, "--lengths", options.passkey.lengths, {256, 768});
      set_unless_given(app, "--depths", options.depths, 2);
      set_unless_given(app, "--trials", options.passkey.trials, 1);
    }
    run(options);
  });
}
