#include <samba/samba.hpp>
using namespace samba;

// also with nvcc
// expect: LanguageModel: a branch (its number is the first of CheckChannels) reads a channel that no branch before it writes
// expect: CheckChannels<1, -1>
struct Memory : Channel<128> {};
struct Reader : SwiGLU<64> {
  using Reads = Channels<Memory>;
};
struct Model : LanguageModel<HybridStack<SwiGLU<64>, Reader, Mamba<64, 16, MambaOptions{}, Memory>>,
                             ModelOptions{.vocab_size = 8}> {};
float run(const Weights<Model>& weights) {
  Session session(weights);
  return session.step(1)[0];
}
