#include <samba/samba.hpp>
using namespace samba;

// expect: LanguageModel: logit_cap must not be negative
struct Model : LanguageModel<SwiGLU<32, 64>, ModelOptions{.vocab_size = 8, .logit_cap = -1}> {};
static_assert(Model::depth == 1);
