#include <samba/samba.hpp>
using namespace samba;

// expect: deleted
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
Session<Model> session{Weights<Model>()};  // the weights would be gone
