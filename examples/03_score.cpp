// 03_score: how well a model predicts a file: perplexity and bits per byte.
//   03_score FILE [--bytes N] [--context N] [--model DIR or FILE.gguf] [--json]
// Reads FILE as one sequence of any length, in fixed memory if the model allows it; --context forgets
// every N tokens.
#include "models.hpp"
#include "program.hpp"

#include <cstdio>
#include <string>

using namespace samba;

namespace {

struct Options {
  std::string file, model = "examples/demo_model";
  std::int64_t bytes = 0, context = 0;  // 0: all of the file, never
  bool json = false;
  SessionOptions session;
};

template <class Model, class Tokenizer>
void score_file(const Options& options, const Tokenizer& tokenizer) {
  const MappedFile file(options.file);
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (options.bytes) text = text.substr(0, static_cast<std::size_t>(options.bytes));
  const auto tokens = ids_of(tokenizer, text);
  if (tokens.size() < 2)
    fail({options.file, ": expected at least 2 tokens of text, found ", tokens.size()});

  // The first token is given, all others are predicted. A part begins with the last token of the
  // one before it, so that every token but the first is predicted once, whatever the context.
  const auto predictions = std::ssize(tokens) - 1;
  const auto context = options.context ? options.context : predictions;
  const auto weights = load_checkpoint<Model>(options.model);
  SessionOptions session_options = options.session;
  session_options.capacity = std::min(context, predictions) + 1;  // of models with full attention
  Session session(weights, session_options);
  Score total;
  Progress progress;
  do {
    const auto rest = std::span(tokens).subspan(static_cast<std::size_t>(total.tokens));
    const auto part = rest.first(static_cast<std::size_t>(std::min(context + 1, std::ssize(rest))));
    session.reset();
    total += score(session, part, [&](std::int64_t done, std::int64_t) {
      progress.show("scored %lld of %lld", static_cast<long long>(total.tokens + done),
                    static_cast<long long>(predictions));
    });
  } while (total.tokens < predictions);

  // The bytes of the predicted tokens: what the first one stands for is given.
  const auto bytes = std::ssize(text) - std::ssize(tokenizer.decode(std::span(tokens).first(1)));
  if (options.json) {
    std::printf(
        "{\"tokens\": %lld, \"bytes\": %lld, \"nats_per_token\": %.9g, \"bits_per_byte\": %.9g}\n",
        static_cast<long long>(total.tokens), static_cast<long long>(bytes), total.nats_per_token(),
        total.bits_per_byte(bytes));
    return;
  }
  const std::string forgets =
      options.context ? "context " + std::to_string(context) : "unlimited context";
  std::printf("%s: %zu bytes, %zu tokens, %s\n", options.file.c_str(), text.size(), tokens.size(),
              forgets.c_str());
  std::printf("perplexity: %.6f\n", total.perplexity());
  std::printf("bits/byte: %.6f\n", total.bits_per_byte(bytes));
}

void run(const Options& options) {
  if (options.bytes < 0) fail({"--bytes: expected 0 or more, found ", options.bytes});
  if (options.context < 0) fail({"--context: expected 0 or more, found ", options.context});
  with_model(options.model, [&]<class Model>(std::type_identity<Model>, const auto& tokenizer) {
    score_file<Model>(options, tokenizer);
  });
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Scores a file with a model: perplexity and bits per byte.");
  app.footer("Example:\n  03_score examples/demo_model/heldout.txt --bytes 4096");
  app.option_defaults()->always_capture_default();
  app.add_option("file", options.file, "text to score")->required();
  app.add_option("--model", options.model, "folder with config.json, or GGUF file");
  app.add_option("--bytes", options.bytes, "score the first N bytes; 0: all");
  app.add_option("--context", options.context, "start afresh every N tokens; 0: never");
  app.add_flag("--json", options.json,
               "print tokens, bytes, nats per token and bits per byte as JSON");
  app.add_option("--threads", options.session.threads, "0: all that OpenMP gives");
  return run_program(app, argc, argv, [&] { run(options); });
}
