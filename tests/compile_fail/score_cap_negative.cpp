#include <samba/samba.hpp>
using namespace samba;

// expect: SWA, Attention: scale_dim and score_cap must not be negative
struct Model
    : LanguageModel<
          HybridStack<DModel<64>, Attention<AttentionOptions{.n_heads = 4, .score_cap = -1}>>,
          ModelOptions{.vocab_size = 8}> {};
static_assert(Model::parameters > 0);
