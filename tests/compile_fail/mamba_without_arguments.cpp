#include <samba/samba.hpp>
using namespace samba;

// expect: Mamba<D, N>: d_model and d_state must be positive
using Stack = HybridStack<Mamba<>, SwiGLU<64>>;
Stack::Tree<WeightsOf<float>> weights;
