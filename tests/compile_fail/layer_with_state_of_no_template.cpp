#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: not a layer: it has no `template <class P> struct State` with visit (if it keeps nothing: `template <class P> using State = Stateless`)
struct Almost : SwiGLU<256> {
  using State = Stateless;
};
using Stack = HybridStack<Almost>;
Stack::Tree<WeightsOf<float>> weights;
