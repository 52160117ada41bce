#include <samba/samba.hpp>
using namespace samba;

// expect: n_heads must be a multiple of n_kv_heads
using Stack = HybridStack<DModel<768>, SWA<256, AttentionOptions{.n_heads = 12, .n_kv_heads = 5}>>;
Stack::Tree<WeightsOf<float>> weights;
