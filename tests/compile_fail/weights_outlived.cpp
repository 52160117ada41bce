#include <samba/samba.hpp>
using namespace samba;

// expect: Session, Batch: the weights must outlive it: give them a name, as in const auto weights = load<Model>(path);
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
Session<Model> session{Weights<Model>()};
