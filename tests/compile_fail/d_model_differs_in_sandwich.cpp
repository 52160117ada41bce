#include <samba/samba.hpp>
using namespace samba;

// also with nvcc
// expect: HybridStack: this element's d_model differs from that of the elements before it
// expect: 64, 48
using Stack = HybridStack<SwiGLU<64>, Sandwich<Norm<>, SwiGLU<48>>>;
Stack::Tree<WeightsOf<float>> weights;
