#include <samba/samba.hpp>
using namespace samba;

// expect: LanguageModel<Stack, Options>: write options as ModelOptions{.vocab_size = 256}
struct Model : LanguageModel<Mamba<64>, 256> {};
constexpr auto n = Model::parameters;
