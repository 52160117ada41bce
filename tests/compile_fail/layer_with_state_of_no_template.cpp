#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: not a layer: it has no `template <class T, class KV> struct State` with visit (if it keeps nothing: `template <class T, class KV> using State = Stateless`)
struct Almost : SwiGLU<256> {
  using State = Stateless;
};
using Stack = HybridStack<Almost>;
Stack::Tree<WeightsOf<float>> weights;
