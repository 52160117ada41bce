// 12_chat: a published model, SmolLM2-135M-Instruct, answers a question. `scripts/fetch_model smollm2`
// downloads its file.
//   12_chat build/models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt "What is the capital of France?"
#include "program.hpp"

#include <samba/io/gguf_checkpoint.hpp>
#include <samba/io/gguf_tokenizer.hpp>
#include <samba/model/published.hpp>
#include <samba/samba.hpp>

#include <cstdio>
#include <iostream>
#include <string>

using namespace samba;

namespace {

using Model = presets::SmolLM2_135M;

struct Options {
  std::string file, prompt = "What is the capital of France?", type = "bf16";
  int tokens = 200;
  bool table = true;
  SamplerOptions sampler{.temperature = 0, .seed = 1};
};

template <class T>
void answer(const Options& options) {
  const BpeTokenizer tokenizer = bpe_tokenizer(GgufFile(options.file));
  const auto weights = load_gguf<Model, T>(options.file);
  if (options.table) std::cout << describe<Model>() << '\n';
  const ChatMessage question[] = {{"user", options.prompt}};
  const auto prompt = smollm2_chat(tokenizer, question);
  const std::int32_t end = tokenizer.id_of("<|im_end|>");

  Session session(weights, {.capacity = std::ssize(prompt) + options.tokens});
  Sampler sample(options.sampler);
  StreamDecoder decode(tokenizer);
  auto logits = session.prefill(prompt);
  for (int i = 0; i < options.tokens; ++i) {
    const auto token = sample(logits);
    if (token == end) break;
    std::cout << decode(token) << std::flush;
    logits = session.step(token);
  }
  std::cout << decode.finish() << '\n';
  check_printed();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("SmolLM2-135M-Instruct answers a question.");
  app.footer(
      "Example:\n"
      "  12_chat build/models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt \"Who wrote Hamlet?\"\n"
      "`scripts/fetch_model smollm2` downloads the file.");
  app.option_defaults()->always_capture_default();
  app.add_option("file", options.file, "the model's GGUF file")->required();
  app.add_option("--prompt", options.prompt, "the question");
  app.add_option("--tokens", options.tokens, "the longest answer");
  app.add_option("--type", options.type, "of the matrices")
      ->check(CLI::IsMember({"float", "bf16", "int8"}));
  app.add_option("--temperature", options.sampler.temperature, "0: the most likely token");
  app.add_option("--seed", options.sampler.seed, "of the random numbers");
  app.add_flag("!--no-table", options.table, "do not print the table of the model");
  return run_program(app, argc, argv, [&] {
    if (options.type == "float")
      answer<float>(options);
    else if (options.type == "bf16")
      answer<bf16>(options);
    else
      answer<int8>(options);
  });
}
