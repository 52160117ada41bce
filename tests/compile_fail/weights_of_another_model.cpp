#include <samba/samba.hpp>
using namespace samba;

// expect: Session, Batch: the weights belong to another model
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
struct Other : LanguageModel<SwiGLU<64>, ModelOptions{.vocab_size = 8}> {};
const Weights<Other> weights;
Batch<Model> batch(weights, 2);
