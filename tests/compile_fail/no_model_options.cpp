#include <samba/samba.hpp>
using namespace samba;

// expect: LanguageModel: give ModelOptions{.vocab_size = ...}, at least 1
struct Model : LanguageModel<Mamba<64>> {};
constexpr auto n = Model::parameters;
