#include <samba/samba.hpp>
using namespace samba;

// expect: Scaled<Options, Element>: write options as ScaledOptions{.factor = 0.22f}
using Stack = HybridStack<Scaled<2, SwiGLU<48>>>;
Stack::Tree<WeightsOf<float>> weights;
