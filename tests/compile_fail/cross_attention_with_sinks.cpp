#include <samba/samba.hpp>
using namespace samba;

// expect: CrossAttention: qk_norm, sinks and gate are options of SWA and Attention only
struct Cache : KeyValueChannel<2, 16, 64> {};
struct Model
    : LanguageModel<
          HybridStack<DModel<64>, SWA<64, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}, Cache>,
                      CrossAttention<Cache, AttentionOptions{.sinks = true}>>,
          ModelOptions{.vocab_size = 8}> {};
static_assert(Model::parameters > 0);
