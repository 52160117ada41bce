// 02_generate: text that appears while it is written, and that another run can continue.
//   02_generate --prompt "In the beginning God" --tokens 500 --save-state text.state
//   02_generate --load-state text.state --prompt " And"        (--help lists all options)
#include "models.hpp"
#include "program.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>

using namespace samba;

namespace {

struct Options {
  std::string model = "examples/demo_model", prompt, prompt_file, save_state, load_state;
  int tokens = 400;
  SamplerOptions sampler{.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
  SessionOptions session;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string read_text(const std::string& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  check_printed();
}

// Ctrl-C ends the text, so that its state can be saved; a second one ends the program.
volatile std::sig_atomic_t interrupted = 0;
void interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

/// Reads the prompt in parts, which changes no bit of the result, to say how far it is.
template <class Model>
std::span<const float> read_prompt(Session<Model>& session, std::span<const std::int32_t> prompt) {
  constexpr std::size_t part = 4096;
  Progress progress;
  std::span<const float> logits;
  for (std::size_t done = 0; done < prompt.size() && !interrupted;) {
    const auto next = prompt.subspan(done, std::min(part, prompt.size() - done));
    logits = session.prefill(next);
    done += next.size();
    if (prompt.size() > part)
      progress.show("reading the prompt: %zu of %zu tokens", done, prompt.size());
  }
  return logits;
}

template <class Model, class Tokenizer>
void generate(const Options& options, const std::string& text, const Tokenizer& tokenizer) {
  // A text that goes on has had its beginning.
  const auto prompt = options.load_state.empty() ? ids_of(tokenizer, text) : tokenizer.encode(text);
  Sampler sample(options.sampler);
  const auto weights = load_checkpoint<Model>(options.model);
  Session session(weights, options.session);
  if (!options.load_state.empty()) session.load(options.load_state);

  std::signal(SIGINT, interrupt);
  const auto start = Clock::now();
  const std::int64_t before = session.position();
  auto logits = read_prompt(session, prompt);
  const auto read = static_cast<std::size_t>(session.position() - before);
  const double prompt_seconds = seconds_since(start);

  StreamDecoder decode(tokenizer);  // complete UTF-8 characters only
  for (const auto token : std::span(prompt).first(read)) print(decode(token));
  sample.observe(prompt);
  int written = 0;
  for (; written < options.tokens && !interrupted; ++written) {
    const auto token = sample(logits);
    print(decode(token));
    logits = session.step(token);
  }
  print(decode.finish() + "\n");
  const double seconds = seconds_since(start) - prompt_seconds;

  if (!options.save_state.empty()) session.save(options.save_state);
  if (interrupted) std::fprintf(stderr, "interrupted; ");
  std::fprintf(stderr,
               "prompt: %zu tokens in %.2f s (%.0f/s); text: %d tokens in %.2f s (%.0f/s); "
               "position %lld, state %.2f MB\n",
               read, prompt_seconds, static_cast<double>(read) / prompt_seconds, written, seconds,
               written / seconds, static_cast<long long>(session.position()),
               static_cast<double>(session.state_bytes()) / 1e6);
}

void run(const Options& options) {
  if (options.tokens < 0) fail({"--tokens: expected 0 or more, found ", options.tokens});
  const std::string text =
      options.prompt_file.empty() ? options.prompt : read_text(options.prompt_file);
  if (text.empty()) fail({"the prompt is empty: give --prompt or --prompt-file"});
  if (!options.save_state.empty()) check_output("--save-state", options.save_state);
  with_model(options.model, [&]<class Model>(std::type_identity<Model>, const auto& tokenizer) {
    generate<Model>(options, text, tokenizer);
  });
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Writes text with a model. Ctrl-C ends it, and saves the state if asked.");
  app.footer(
      "Example:\n"
      "  02_generate --prompt \"In the beginning God\" --tokens 500 --save-state text.state\n"
      "  02_generate --load-state text.state --prompt \" And\"");
  app.option_defaults()->always_capture_default();
  app.add_option("--model", options.model, "folder with config.json, or GGUF file");
  app.add_option("--prompt", options.prompt, "text to begin or to go on with");
  app.add_option("--prompt-file", options.prompt_file, "file with the prompt")
      ->excludes("--prompt");
  app.add_option("--tokens", options.tokens, "tokens to write");
  app.add_option("--temperature", options.sampler.temperature, "0: the most likely token");
  app.add_option("--top-k", options.sampler.top_k, "keep the k most likely; 0: all");
  app.add_option("--top-p", options.sampler.top_p, "keep the most likely up to this probability");
  app.add_option("--min-p", options.sampler.min_p, "keep those with this share of the best");
  app.add_option("--repetition-penalty", options.sampler.repetition_penalty, "1: none");
  app.add_option("--seed", options.sampler.seed, "of the random numbers");
  app.add_option("--capacity", options.session.capacity, "positions of models with full attention");
  app.add_option("--threads", options.session.threads, "0: all that OpenMP gives");
  app.add_option("--save-state", options.save_state, "file for the state at the end of the text");
  app.add_option("--load-state", options.load_state, "file with the state to go on from");
  return run_program(app, argc, argv, [&] { run(options); });
}
