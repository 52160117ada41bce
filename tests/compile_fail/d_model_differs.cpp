#include <samba/samba.hpp>
using namespace samba;

// expect: HybridStack: this element's d_model differs from that of the elements before it
// expect: 256, 512
using Stack = HybridStack<Mamba<256>, SwiGLU<512>>;
Stack::Tree<WeightsOf<float>> weights;
