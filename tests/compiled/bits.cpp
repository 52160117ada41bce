// Prints a hash of the logits of models of every type: compiled for one instruction set, or with
// samba::compiled, which is to give the same for each.
// Usage: bits                                      prints the instruction set that it uses
//        bits FOLDER TOKENS [INSTRUCTION_SET]      prints the hashes; FOLDER: of the demo model
#include <samba/samba.hpp>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

using namespace samba;

namespace {

struct Demo
    : LanguageModel<Repeat<4, HybridStack<Mamba<256>, SwiGLU<256, 768>,
                                          SWA<512, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>,
                                          SwiGLU<256, 768>>>,
                    ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};

/// Sizes that fill no vector.
struct Odd
    : LanguageModel<
          HybridStack<
              Mamba<40, 8, MambaOptions{.d_conv = 3}>, SwiGLU<40, 100, MlpOptions{.bias = true}>,
              SWA<70, AttentionOptions{.n_heads = 5, .rotary_fraction = 0.5f, .bias = true}>,
              Attention<AttentionOptions{.n_heads = 5, .rope_table = RopeTable::bfloat16}>>,
          ModelOptions{.vocab_size = 256}> {};

/// The FNV-1a hash of the logits of all tokens.
template <class KV, class Model, class T>
void print_hash(const char* model, const char* type, const Weights<Model, T>& weights,
                const std::vector<std::int32_t>& tokens) {
  std::vector<float> logits(tokens.size() * Model::vocab_size);
  Session<Model, T, KV> session(weights);
  session.forward(tokens, logits);
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const float x : logits) hash = (hash ^ std::bit_cast<std::uint32_t>(x)) * 0x100000001b3u;
  std::printf("%s %s %016llx\n", model, type, static_cast<unsigned long long>(hash));
}

template <class T, class KV>
void print_hashes(const char* type, const std::string& folder,
                  const std::vector<std::int32_t>& tokens) {
  print_hash<KV>("demo", type, load<Demo, T>(folder + "/model.safetensors"), tokens);
  Weights<Odd, T> odd;
  initialize(odd, 1);
  print_hash<KV>("odd", type, odd, tokens);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::printf("%s\n", std::string(instruction_set()).c_str());
    return 0;
  }
#ifdef SAMBA_COMPILED
  if (argc > 3) use_instruction_set(argv[3]);
#endif
  const std::string folder = argv[1];
  std::ifstream file(folder + "/heldout.txt");
  std::string text(std::stoul(argv[2]), ' ');
  file.read(text.data(), std::ssize(text));
  const std::vector<std::int32_t> tokens(text.begin(), text.end());
  print_hashes<float, float>("float", folder, tokens);
  print_hashes<bf16, bf16>("bf16", folder, tokens);
  print_hashes<int8, float>("int8", folder, tokens);
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
