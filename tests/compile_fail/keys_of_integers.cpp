#include <samba/samba.hpp>
using namespace samba;

// expect: SWA, Attention: KV, the type of keys and values, must be float or bf16
struct Model : LanguageModel<HybridStack<DModel<64>, SWA<8, AttentionOptions{.n_heads = 2}>>,
                             ModelOptions{.vocab_size = 8}> {};
Model::States<Policy<float, int8>> states;
