#include <samba/samba.hpp>
using namespace samba;

// expect: Session, Batch: the weights must outlive it: give them a name
struct Model : LanguageModel<Mamba<64>, ModelOptions{.vocab_size = 8}> {};
Batch batch(Weights<Model>(), 2);
