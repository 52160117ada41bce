#include <samba/samba.hpp>
using namespace samba;

// expect: Session<Model, T>, Batch<Model, T>: T is the type of the weights' matrices
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
Weights<Model> weights;
Session<Model, bf16> session(weights);
