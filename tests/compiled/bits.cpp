// Prints hashes of the logits and gradients of models of every type: compiled for one instruction set, or
// with samba::compiled, which is to give the same for each.
// Usage: bits                                      prints the instruction set that it uses
//        bits FOLDER TOKENS [INSTRUCTION_SET]      prints the hashes; FOLDER: of the demo model;
//                                                  4 tokens or more
#include <samba/samba.hpp>
#include <samba/train/gradient.hpp>

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

/// Other norms, factors, layers side by side, the least and largest d_state, and another recurrence.
template <NormKind kind, bool plus_one = false>
using WithEps = Norm<NormOptions{.kind = kind, .eps = 1e-3f, .plus_one = plus_one}>;
using Centred = Norm<NormOptions{.kind = NormKind::layer, .bias = true}>;
struct Other
    : LanguageModel<
          HybridStack<
              Pre<Centred, Mamba<24, 4, MambaOptions{.d_conv = 2}>>,
              Scaled<ScaledOptions{.factor = 3},
                     Sandwich<WithEps<NormKind::layer>, SwiGLU<24>, WithEps<NormKind::rms, true>>>,
              Parallel<Mamba<24, 128, MambaOptions{.d_conv = 6}>,
                       SWA<9, AttentionOptions{.n_heads = 3, .n_kv_heads = 1}>>,
              RgLru<24, RgLruOptions{.width = 42, .n_heads = 3}>>,
          ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};

/// An FNV-1a hash.
struct Hash {
  std::uint64_t hash = 0xcbf29ce484222325u;

  void add(std::uint32_t x) { hash = (hash ^ x) * 0x100000001b3u; }
  void add(float x) { add(std::bit_cast<std::uint32_t>(x)); }
  void print(const char* model, const char* type, const char* what) const {
    std::printf("%s %s %s %016llx\n", model, type, what, static_cast<unsigned long long>(hash));
  }
};

/// The hash of the logits of all tokens.
template <class KV, class Model, class T>
void print_logits(const char* model, const char* type, const Weights<Model, T>& weights,
                  const std::vector<std::int32_t>& tokens) {
  std::vector<float> logits(tokens.size() * Model::vocab_size);
  Session<Model, T, KV> session(weights);
  session.forward(tokens, logits);
  Hash hash;
  for (const float x : logits) hash.add(x);
  hash.print(model, type, "logits");
}

/// The hash of the gradients of all tensors and of the states, each of two texts adding to those of
/// the one before.
template <class KV, class Model, class T>
void print_gradients(const char* model, const char* type, const Weights<Model, T>& weights,
                     std::span<const std::int32_t> tokens) {
  const std::size_t half = tokens.size() / 2;
  Gradient<Model, T, KV> gradient({.tokens = std::ssize(tokens)});
  Weights<Model, Master<float>> g;
  g.clear();
  Hash hash;
  for (const std::span text : {tokens.first(half), tokens.subspan(half)}) {
    const Example example{text.first(text.size() - 1), text.subspan(1)};
    hash.add(static_cast<float>(gradient.add(weights, {&example, 1}, g)));
    gradient.carry();
  }
  std::vector<float> row;
  for (const auto& tensor : g.tensors()) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      tensor.get_row(r, row.data());
      for (const float x : row) hash.add(x);
    }
  }
  for (const std::byte x : gradient.state_gradients()) hash.add(std::to_integer<std::uint32_t>(x));
  hash.print(model, type, "gradients");
}

template <class T, class KV>
void print_hashes(const char* type, const std::string& folder,
                  const std::vector<std::int32_t>& tokens) {
  const auto print = [&]<class Model>(const char* model, const Weights<Model, T>& weights) {
    print_logits<KV>(model, type, weights, tokens);
    if constexpr (!std::is_same_v<T, int8> && !std::is_same_v<T, q4>)
      print_gradients<KV>(model, type, weights, tokens);
  };
  print("demo", load<Demo, T>(folder + "/model.safetensors"));
  Weights<Odd, T> odd;
  initialize(odd, 1);
  print("odd", odd);
  Weights<Other, T> other;
  initialize(other, 1);
  print("other", other);
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
  print_hashes<q4, float>("q4", folder, tokens);
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
