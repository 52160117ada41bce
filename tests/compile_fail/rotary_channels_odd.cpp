#include <samba/samba.hpp>
using namespace samba;

// expect: rotary_fraction must lie in [0, 1] and make an even number of channels
using Stack = HybridStack<DModel<64>, SWA<16, AttentionOptions{.n_heads = 4, .rotary_fraction = 0.2f}>>;
Stack::Tree<WeightsOf<float>> weights;
