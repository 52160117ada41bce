// 01_hello: a language model is a type; load its weights, give it a prompt, let it write on.
//   01_hello [DEMO]   writes token ids with samba-421m/model.safetensors if that file is there,
//                     else text with the small model of the folder DEMO (examples/demo_model)
#include "demo_model.hpp"
#include "output.hpp"

#include <iostream>

using namespace samba;

// Samba-421M (arXiv 2406.07522): Mamba, SwiGLU, sliding-window attention, SwiGLU, six times over.
struct Block : HybridStack<Mamba<1536>, SwiGLU<1536>, SWA<2048>, SwiGLU<1536>> {};
constexpr ModelOptions options{.vocab_size = 32000, .tie_embeddings = true};
struct Samba : LanguageModel<Repeat<6, Block>, options> {};
static_assert(Samba::parameters == 421'793'280);

template <class Model>
void write_on(const std::string& path, const std::vector<std::int32_t>& prompt, auto&& print) {
  const auto weights = load<Model>(path);  // throws an Error that names tensors and shapes
  Session session(weights);                // one sequence's state; the weights are shared
  auto logits = session.prefill(prompt);   // of the last token, [vocab_size]
  Sampler sample{{.temperature = 0.7f, .top_p = 0.95f, .seed = 1}};
  while (session.position() < 200) {  // or without end: the state does not grow
    const auto token = sample(logits);
    print(token);
    logits = session.step(token);
  }
  std::cout << std::endl;
}

constexpr const char* help =
    "Writes token ids with samba-421m/model.safetensors if that file is there, else text with the\n"
    "small model of the folder DEMO (examples/demo_model).\n"
    "Usage: 01_hello [DEMO]\n"
    "Example: 01_hello examples/demo_model\n";

void hello(const std::string& demo) {
  const std::string samba_421m = "samba-421m/model.safetensors";
  if (path_exists(samba_421m)) {
    // "Hello world" in the vocabulary of Llama 2, which this model has.
    write_on<Samba>(samba_421m, {1, 15043, 3186},
                    [](auto token) { std::cout << token << ' ' << std::flush; });
  } else {
    std::cerr << "There is no " << samba_421m << " here, so this is the demo model.\n"
              << "To make one from a checkpoint of Samba-421M's training code:\n"
              << "  scripts/convert_checkpoint.py IN.pth " << samba_421m << "\n\n";
    const std::string prompt = "Hello world";
    std::cout << prompt;
    write_on<DemoModel>(demo, ByteTokenizer().encode(prompt),
                        [](auto token) { std::cout << static_cast<char>(token) << std::flush; });
  }
}

int main(int argc, char** argv) {
  return run_main(argc, argv, help, [&] { hello(argc > 1 ? argv[1] : "examples/demo_model"); });
}
