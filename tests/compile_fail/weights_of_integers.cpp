#include <samba/samba.hpp>
using namespace samba;

// expect: Weights<Model, T>: T must be float, bf16, int8 or q4, or double for checking
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
Weights<Model, int> weights;
