// 12_chat: a published model answers a question: SmolLM2-135M-Instruct, or Gemma 3 270M. A model without
// a template for conversations, as the published file of Gemma 3 270M, continues the text instead.
// `scripts/fetch_model smollm2` and `scripts/fetch_model gemma3` download their files.
//   12_chat build/models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt "What is the capital of France?"
#include "models.hpp"
#include "program.hpp"

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

using namespace samba;

namespace {

struct Options {
  std::string file, prompt = "What is the capital of France?", type = "bf16";
  int tokens = 200;
  bool table = true;
  SamplerOptions sampler{.temperature = 0, .seed = 1};
};

/// How a model is asked, and the token that ends its answer.
template <class Model>
struct Chat;
template <>
struct Chat<presets::SmolLM2_135M> {
  static constexpr auto ask = smollm2_chat;
  static constexpr const char* end = "<|im_end|>";
};
template <>
struct Chat<presets::Gemma3_270M> {
  static constexpr auto ask = gemma3_chat;
  static constexpr const char* end = "<end_of_turn>";
};

template <class Model, class T>
void answer(const Options& options, const BpeTokenizer& tokenizer) {
  const auto weights = load_checkpoint<Model, T>(options.file);
  if (options.table) std::cout << describe<Model>() << '\n';
  const bool talks = !is_gguf(options.file) ||
                     GgufFile(options.file).metadata().find("tokenizer.chat_template") != nullptr;
  const std::vector<ChatMessage> question{{"user", options.prompt}};
  const auto prompt =
      talks ? Chat<Model>::ask(tokenizer, question) : ids_of(tokenizer, options.prompt);
  const std::int32_t end = tokenizer.id_of(Chat<Model>::end);

  Session session(weights, {.capacity = std::ssize(prompt) + options.tokens});
  Sampler sample(options.sampler);
  StreamDecoder decode(tokenizer);
  auto logits = session.prefill(prompt);
  for (int i = 0; i < options.tokens; ++i) {
    const auto token = sample(logits);
    if (token == end || token == tokenizer.eos_id()) break;
    std::cout << decode(token) << std::flush;
    logits = session.step(token);
  }
  std::cout << decode.finish() << '\n';
  check_printed();
}

template <class Model>
void answer(const Options& options) {
  const BpeTokenizer tokenizer = load_tokenizer(options.file);
  if (options.type == "float")
    answer<Model, float>(options, tokenizer);
  else if (options.type == "bf16")
    answer<Model, bf16>(options, tokenizer);
  else if (options.type == "int8")
    answer<Model, int8>(options, tokenizer);
  else
    answer<Model, q4>(options, tokenizer);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("A published model answers a question: SmolLM2-135M-Instruct or Gemma 3 270M.");
  app.footer(
      "Example:\n"
      "  12_chat build/models/SmolLM2-135M-Instruct.Q4_1.gguf --prompt \"Who wrote Hamlet?\"\n"
      "`scripts/fetch_model smollm2` and `scripts/fetch_model gemma3` download the files.");
  app.option_defaults()->always_capture_default();
  app.add_option("file", options.file, "the model's GGUF file, or its folder")->required();
  app.add_option("--prompt", options.prompt, "the question");
  app.add_option("--tokens", options.tokens, "the longest answer");
  app.add_option("--type", options.type, "of the matrices")
      ->check(CLI::IsMember({"float", "bf16", "int8", "q4"}));
  app.add_option("--temperature", options.sampler.temperature, "0: the most likely token");
  app.add_option("--seed", options.sampler.seed, "of the random numbers");
  app.add_flag("!--no-table", options.table, "do not print the table of the model");
  return run_program(app, argc, argv, [&] {
    dispatch(Registry<presets::SmolLM2_135M, presets::Gemma3_270M>{}, options.file,
             [&]<class Model>(std::type_identity<Model>) { answer<Model>(options); });
  });
}
