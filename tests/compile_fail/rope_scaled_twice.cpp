#include <samba/samba.hpp>
using namespace samba;

// expect: SWA, Attention: rope_linear_factor must be positive, and 1 with rope_original_positions
struct Model
    : LanguageModel<
          HybridStack<DModel<64>,
                      Attention<AttentionOptions{
                          .n_heads = 4, .rope_original_positions = 64, .rope_linear_factor = 2}>>,
          ModelOptions{.vocab_size = 8}> {};
static_assert(Model::parameters > 0);
