#include <samba/samba.hpp>
using namespace samba;

// expect: LanguageModel: a branch (its number is the first of CheckChannels) reads a channel that no branch before it writes
// expect: CheckChannels<0, -1>
struct Cache : KeyValueChannel<2, 16, 64> {};
struct Model
    : LanguageModel<HybridStack<DModel<64>, CrossAttention<Cache>,
                                SWA<64, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}, Cache>>,
                    ModelOptions{.vocab_size = 8}> {};
float run(const Weights<Model>& weights) {
  Session session(weights);
  return session.step(1)[0];
}
