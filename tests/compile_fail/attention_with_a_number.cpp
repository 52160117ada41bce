#include <samba/samba.hpp>
using namespace samba;

// expect: Attention<Options>: write options as AttentionOptions{.n_heads = 8}; d_model is that of the stack
using Stack = HybridStack<DModel<32>, Attention<32>>;
Stack::Tree<WeightsOf<float>> weights;
