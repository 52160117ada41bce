// 03_score: how well a model predicts a file: perplexity and bits per byte.
//   03_score FILE [--bytes N] [--context N] [--model DIR]
// Reads FILE as one sequence of any length, in fixed memory; --context forgets every N tokens.
#include "demo_model.hpp"
#include "program.hpp"

#include <cstdio>
#include <string>

using namespace samba;

namespace {

struct Options {
  std::string file, model = "examples/demo_model";
  std::int64_t bytes = 0, context = 0;  // 0: all of the file, never
  SessionOptions session;
};

void score_file(const Options& options) {
  if (options.bytes < 0) fail({"--bytes: expected 0 or more, found ", options.bytes});
  if (options.context < 0) fail({"--context: expected 0 or more, found ", options.context});
  const MappedFile file(options.file);
  std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (options.bytes) text = text.substr(0, static_cast<std::size_t>(options.bytes));
  const auto tokens = ByteTokenizer().encode(text);

  const auto weights = load<DemoModel>(options.model);
  Session session(weights, options.session);

  // The first token is given, all others are predicted. A part begins with the last token of the
  // one before it, so that every token but the first is predicted once, whatever the context.
  const auto predictions = std::ssize(tokens) - 1;
  const auto context = options.context ? options.context : predictions;
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

  const std::string forgets =
      options.context ? "context " + std::to_string(context) : "unlimited context";
  std::printf("%s: %zu bytes, %s\n", options.file.c_str(), tokens.size(), forgets.c_str());
  std::printf("perplexity: %.6f\n", total.perplexity());
  std::printf("bits/byte: %.6f\n", total.bits_per_byte(total.tokens));  // a token is a byte
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Scores a file with the demo model: perplexity and bits per byte.");
  app.footer("Example:\n  03_score examples/demo_model/heldout.txt --bytes 4096");
  app.option_defaults()->always_capture_default();
  app.add_option("file", options.file, "text to score")->required();
  app.add_option("--model", options.model, "folder or file of the weights");
  app.add_option("--bytes", options.bytes, "score the first N bytes; 0: all");
  app.add_option("--context", options.context, "start afresh every N tokens; 0: never");
  app.add_option("--threads", options.session.threads, "0: all that OpenMP gives");
  return run_program(app, argc, argv, [&] { score_file(options); });
}
