#include <samba/samba.hpp>
using namespace samba;

// expect: SWA<Window, Options>: write options as AttentionOptions{.n_heads = 8}; d_model is that of the stack
using Stack = HybridStack<DModel<32>, SWA<64, 32>>;
Stack::Tree<WeightsOf<float>> weights;
