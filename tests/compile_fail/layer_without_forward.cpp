#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: not a layer: it has no forward(context, weights, state, scratch, in, out)
struct Almost : SwiGLU<256> {
  template <class T, class KV>
  static void forward(int) {}
};
using Stack = HybridStack<Almost>;
Stack::Tree<WeightsOf<float>> weights;
