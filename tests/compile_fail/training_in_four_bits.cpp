#include <samba/samba.hpp>
#include <samba/train/gradient.hpp>
using namespace samba;

// expect: Gradient: train in float or bf16; quantise afterwards
struct Model : LanguageModel<SwiGLU<64>, ModelOptions{.vocab_size = 8}> {};
Gradient<Model, q4> gradient(GradientOptions{.tokens = 8});
