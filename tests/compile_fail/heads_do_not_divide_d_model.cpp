#include <samba/samba.hpp>
using namespace samba;

// expect: n_heads must divide d_model, or give head_dim
using Stack = HybridStack<DModel<768>, SWA<256, AttentionOptions{.n_heads = 7}>>;
Stack::Tree<WeightsOf<float>> weights;
