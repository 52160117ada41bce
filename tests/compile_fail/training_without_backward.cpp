#include <samba/samba.hpp>
#include <samba/train/gradient.hpp>
using namespace samba;

// expect: Gradient: this layer cannot be trained: it has no `template <class P> struct Backward` with visit
// expect: CheckTrained<Untrained>
struct Untrained : SwiGLU<64> {
  using Backward = void;
};
struct Model : LanguageModel<Untrained, ModelOptions{.vocab_size = 8}> {};
Gradient<Model> gradient(GradientOptions{.tokens = 8});
