#include <samba/samba.hpp>
using namespace samba;

// also with nvcc
// expect: LanguageModel: a branch (its number is the second of CheckChannels) writes a channel that another one writes, or itself where it is repeated
// expect: CheckChannels<-1, 1>
struct Memory : Channel<128> {};
struct Model : LanguageModel<Repeat<2, Mamba<64, 16, MambaOptions{}, Memory>>,
                             ModelOptions{.vocab_size = 8}> {};
float run(const Weights<Model>& weights) {
  Session session(weights);
  return session.step(1)[0];
}
