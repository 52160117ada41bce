#include <samba/samba.hpp>
#include <samba/train/gradient.hpp>
using namespace samba;

// expect: Gradient: this layer cannot be trained: it has no backward(context, weights, gradients, state,
// expect: CheckTrained<Untrained>
struct Untrained : SwiGLU<64> {
  static void backward() {}
};
struct Model : LanguageModel<Parallel<Untrained, SwiGLU<64>>, ModelOptions{.vocab_size = 8}> {};
Gradient<Model> gradient(GradientOptions{.tokens = 8});
