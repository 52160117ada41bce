// 07_train: trains a byte-level Samba on a text and shows how it learns to write.
//   sudo apt-get install bible-kjv && bible -f gen1:1-rev22:21 > bible.txt
//   07_train bible.txt                  about 7 minutes on two cores
//   07_train bible.txt --resume         goes on after Ctrl-C, a crash, or a power cut
//   07_train bible.txt --resume --steps 3600      goes on with more steps
// The folder --out (07_train) gets checkpoints, the best by the held-out loss among them in best/,
// log.csv and loss.svg. Another schedule: edit Small.
#include "demo_model.hpp"
#include "program.hpp"
#include "svg.hpp"
#include "training_data.hpp"

#include <samba/train/trainer.hpp>
#include <samba/train/validate.hpp>

#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <numbers>
#include <string>
#include <vector>

using namespace samba;

namespace {

constexpr ModelOptions bytes{.vocab_size = 256, .tie_embeddings = true};

struct Small
    : LanguageModel<Repeat<3, HybridStack<Mamba<192>, SwiGLU<192>,
                                          SWA<256, AttentionOptions{.n_heads = 3}>, SwiGLU<192>>>,
                    bytes> {};
struct Tiny
    : LanguageModel<
          HybridStack<Mamba<64>, SwiGLU<64>, SWA<64, AttentionOptions{.n_heads = 1}>, SwiGLU<64>>,
          bytes> {};

struct Options {
  std::string text = "bible.txt", out = "07_train", model = "small", type = "bf16", prompt = "And ";
  double validation_share = 0.05;
  std::int64_t log_every = 20, sample_every = 500, checkpoint_every = 250, evaluate_every = 100;
  int sample_bytes = 200;
  bool resume = false, quick = false;
  TrainOptions train{
      .sequences = 8,
      .seq_len = 512,
      .learning_rate = {.peak = 3e-3, .floor = 3e-4, .warmup_steps = 100, .steps = 1800}};
};

/// A step as log.csv has it.
struct Row {
  std::int64_t step = 0;
  double tokens = 0, bits = 0, gradient_norm = 0, learning_rate = 0, tokens_per_second = 0;
  double held_out_bits = 0;  // 0: not evaluated after this step
};
constexpr const char* header =
    "step,tokens,bits_per_byte,gradient_norm,learning_rate,tokens_per_second,held_out_bits_per_"
    "byte";

constexpr double bits(double nats) { return nats / std::numbers::ln2; }

/// The rows up to a step, of a run that goes on.
std::vector<Row> read_log(const std::string& path, std::int64_t steps) {
  std::ifstream in(path);
  std::vector<Row> rows;
  std::string line;
  std::getline(in, line);
  while (std::getline(in, line)) {
    Row r;
    if (std::sscanf(line.c_str(), "%ld,%lf,%lf,%lf,%lf,%lf,%lf", &r.step, &r.tokens, &r.bits,
                    &r.gradient_norm, &r.learning_rate, &r.tokens_per_second, &r.held_out_bits) < 6)
      break;
    if (r.step <= steps) rows.push_back(r);
  }
  return rows;
}

void write_log(const std::string& path, const std::vector<Row>& rows) {
  std::string text = std::string(header) + "\n";
  for (const Row& r : rows) {
    char line[160];
    std::snprintf(line, sizeof line, "%ld,%.0f,%.6f,%.6f,%.6g,%.0f,", r.step, r.tokens, r.bits,
                  r.gradient_norm, r.learning_rate, r.tokens_per_second);
    text += line;
    if (r.held_out_bits > 0) {
      std::snprintf(line, sizeof line, "%.6f", r.held_out_bits);
      text += line;
    }
    text += "\n";
  }
  write_file(path, text);
}

void write_curve(const std::string& path, const std::vector<Row>& rows) {
  svg::Series all{.name = "training, mean of 20 steps"}, held_out{.name = "held out"};
  for (const Row& r : rows)
    if (r.held_out_bits > 0) held_out.points.push_back({r.tokens / 1e6, r.held_out_bits});
  double sum = 0;
  constexpr std::size_t together = 20;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    sum += rows[i].bits;
    if ((i + 1) % together && i + 1 < rows.size()) continue;
    const std::size_t n = i % together + 1;
    all.points.push_back({rows[i].tokens / 1e6, sum / static_cast<double>(n)});
    sum = 0;
  }
  svg::Page page;
  page.add(svg::LineChart{.title = "Training",
                          .x = {.label = "million bytes read"},
                          .y = {.label = "bits per byte"},
                          .series = {all, held_out}});
  page.save(path);
}

volatile std::sig_atomic_t interrupted = 0;

/// What the model writes after the prompt; bytes that do not print as dots.
template <class Model, class T>
std::string sample(const Weights<Model, T>& weights, const Options& options) {
  const ByteTokenizer tokenizer;
  Session session(weights, {.threads = options.train.threads});
  Sampler next{{.temperature = 0.8f, .top_p = 0.95f, .seed = 1}};
  auto logits = session.prefill(tokenizer.encode(options.prompt));
  std::string text = options.prompt;
  for (int i = 0; i < options.sample_bytes; ++i) {
    const std::int32_t token = next(logits);
    text += tokenizer.decode({&token, 1});
    logits = session.step(token);
  }
  for (char& c : text)
    if (c != '\n' && (c < ' ' || c > '~')) c = '.';
  return text;
}

template <class Model, class T>
void train(const Options& options) {
  const TrainingData data = prepare_data(options.text, options.out, options.validation_share);
  TrainOptions train_options = options.train;
  train_options.checkpoints = options.out;
  // Of a short text fewer windows, and not so long ones.
  const std::int64_t seq_len = options.train.seq_len;
  ValidationOptions validation{.seq_len = seq_len, .threads = options.train.threads};
  while (validation.multiples.size() > 1 &&
         validation.multiples.back() * seq_len >= data.validation->size())
    validation.multiples.pop_back();
  ValidationOptions often = validation;
  often.multiples = {1};
  validation.windows =
      validation_windows(data, options.text, validation.multiples.back() * seq_len, 8);
  often.windows = validation_windows(data, options.text, seq_len, 32);
  const std::string latest = options.resume ? latest_checkpoint(options.out) : "";
  if (options.resume && latest.empty()) fail({options.out, ": no checkpoint to resume from"});
  std::printf("%.2f M parameters, %s; %.2f M bytes to train on; %.0f MB for training\n",
              static_cast<double>(Model::parameters) / 1e6, options.type.c_str(),
              static_cast<double>(data.train->size()) / 1e6,
              static_cast<double>(training_bytes<Model, T>(train_options)) / 1e6);
  Trainer<Model, T> trainer = options.resume
                                  ? Trainer<Model, T>::resume(latest, data.train, train_options)
                                  : Trainer<Model, T>(data.train, train_options);
  const std::string log = options.out + "/log.csv", curve = options.out + "/loss.svg";
  std::vector<Row> rows;
  if (options.resume) {
    rows = read_log(log, trainer.steps());
    std::printf("resumed: %s%s\n", latest.c_str(),
                trainer.done() ? "; all steps are made, --steps gives more" : "");
  }
  // The log before the checkpoint: it has the steps of every checkpoint that there is.
  const auto save = [&] {
    write_log(log, rows);
    write_curve(curve, rows);
    return trainer.save();
  };

  std::signal(SIGINT, [](int) { interrupted = 1; });
  const std::int64_t steps = options.train.learning_rate.steps;
  const auto is_multiple = [&](std::int64_t step, std::int64_t of) {
    return (of > 0 && step % of == 0) || step == steps;
  };
  double seconds = 0, loss = 0;
  std::int64_t first = trainer.steps(), counted = 0;
  std::printf("%8s %14s %10s %10s %10s %10s %10s %8s\n", "step", "bits per byte", "held out",
              "gradient", "rate", "bytes/s", "left", "MB");
  while (!trainer.done() && !interrupted) {
    const TrainStep s = trainer.step();
    seconds += s.seconds;
    loss += s.loss;
    ++counted;
    rows.push_back({s.step, static_cast<double>(trainer.tokens()), bits(s.loss), s.gradient_norm,
                    s.learning_rate, static_cast<double>(s.tokens) / s.seconds});
    if (is_multiple(s.step, options.evaluate_every)) {
      const Evaluation evaluation = trainer.evaluate(*data.validation, often);
      rows.back().held_out_bits = bits(evaluation.losses[0].loss);
      if (!evaluation.checkpoint_error.empty())
        std::printf("step %ld: the best so far is not kept: %s\n", s.step,
                    evaluation.checkpoint_error.c_str());
    }
    if (s.outlier)
      std::printf("step %ld stands out%s: loss %.1f, gradient %.1f deviations above the mean\n",
                  s.step, s.skipped ? " and was left out" : "", s.loss_z, s.gradient_norm_z);
    if (is_multiple(s.step, options.log_every) || interrupted) {
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      const double left =
          seconds / static_cast<double>(s.step - first) * static_cast<double>(steps - s.step);
      char held_out[16] = "";
      if (rows.back().held_out_bits > 0)
        std::snprintf(held_out, sizeof held_out, "%.4f", rows.back().held_out_bits);
      std::printf("%8ld %14.4f %10s %10.3f %10.2e %10.0f %7d:%02d %8ld\n", s.step,
                  bits(loss / static_cast<double>(counted)), held_out, s.gradient_norm,
                  s.learning_rate, rows.back().tokens_per_second, static_cast<int>(left) / 60,
                  static_cast<int>(left) % 60, usage.ru_maxrss / 1024);
      std::fflush(stdout);
      loss = 0;
      counted = 0;
    }
    if (is_multiple(s.step, options.sample_every))
      std::printf("--- step %ld writes:\n%s\n---\n", s.step,
                  sample(trainer.weights(), options).c_str());
    if (!trainer.done() && is_multiple(s.step, options.checkpoint_every)) try {
        save();
      } catch (const Error& error) {
        std::printf("step %ld: no checkpoint: %s\n", s.step, error.what());
      }
  }
  const std::string saved = save();
  if (!trainer.done()) {
    std::printf("stopped after step %ld; go on with --resume\n", trainer.steps());
  } else {
    std::printf("validation, bits per byte:");
    for (const auto& [length, nats] : validate(trainer.weights(), *data.validation, validation))
      std::printf("  %ld: %.4f", length, bits(nats));
    std::printf("\n");
  }
  const std::string best = latest_checkpoint(options.out + "/best");
  if (!best.empty())
    std::printf("best held-out loss, %.4f bits per byte: %s/model.safetensors\n",
                bits(trainer.best_loss().value_or(0)), best.c_str());
  std::printf("written: %s/model.safetensors, %s, %s\n", saved.c_str(), log.c_str(), curve.c_str());
}

template <class T>
void train(const Options& options) {
  if (options.model == "small")
    train<Small, T>(options);
  else if (options.model == "demo")
    train<DemoModel, T>(options);
  else
    train<Tiny, T>(options);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  TrainOptions& train_options = options.train;
  LearningRate& rate = train_options.learning_rate;
  CLI::App app("Trains a byte-level model on a text.");
  app.footer("Example: 07_train bible.txt --steps 600 --out short");
  app.option_defaults()->always_capture_default();
  app.add_option("text", options.text, "text, or token file with a vocabulary of at most 256");
  app.add_option("--out", options.out, "folder for checkpoints, log and curve");
  app.add_option("--model", options.model)->check(CLI::IsMember({"small", "demo", "tiny"}));
  app.add_option("--type", options.type, "of the matrices")
      ->check(CLI::IsMember({"float", "bf16"}));
  app.add_option("--steps", rate.steps, "with --resume: how many there are now");
  app.add_option("--warmup", rate.warmup_steps, "steps; a tenth of all at most unless given");
  app.add_option("--rate", rate.peak, "highest learning rate");
  app.add_option("--last-rate", rate.floor, "learning rate at the end");
  app.add_option("--sequences", train_options.sequences, "in a batch");
  app.add_option("--seq-len", train_options.seq_len, "bytes of a sequence");
  app.add_option("--accumulate", train_options.accumulate, "batches for one step");
  app.add_option("--seed", train_options.seed, "of the first weights and the order of the data");
  app.add_option("--threads", train_options.threads, "0: all that OpenMP gives");
  app.add_flag("--recompute", train_options.recompute, "less memory, a third more work");
  app.add_flag("--skip-outliers", train_options.outliers.skip, "leave steps out that stand out");
  app.add_option("--checkpoint-every", options.checkpoint_every, "steps");
  app.add_option("--evaluate-every", options.evaluate_every, "steps, on the held-out part");
  app.add_option("--keep", train_options.keep, "newest checkpoints, 0: all");
  app.add_option("--log-every", options.log_every, "steps");
  app.add_option("--sample-every", options.sample_every, "steps");
  app.add_option("--prompt", options.prompt, "what samples begin with");
  app.add_flag("--resume", options.resume, "go on from the newest checkpoint in --out");
  app.add_flag("--quick", options.quick, "a tiny model and 40 steps, to see that it works");
  return run_program(app, argc, argv, [&] {
    if (options.quick) {
      set_unless_given(app, "--model", options.model, "tiny");
      set_unless_given(app, "--steps", rate.steps, 40);
      set_unless_given(app, "--sequences", train_options.sequences, 4);
      set_unless_given(app, "--seq-len", train_options.seq_len, 128);
      for (auto [option, every] : {std::pair{"--checkpoint-every", &options.checkpoint_every},
                                   {"--evaluate-every", &options.evaluate_every},
                                   {"--sample-every", &options.sample_every}})
        set_unless_given(app, option, *every, 20);
      options.validation_share = 0.1;
    }
    limit_warmup(app, rate);
    for (const char* option : {"--steps", "--warmup", "--rate", "--last-rate"})
      train_options.change_learning_rate |= app.count(option) > 0;
    options.type == "bf16" ? train<bf16>(options) : train<float>(options);
  });
}
