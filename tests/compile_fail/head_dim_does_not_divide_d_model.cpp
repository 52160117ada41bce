#include <samba/samba.hpp>
using namespace samba;

// expect: head_dim (128 unless given) must divide d_model, or give n_heads
using Stack = HybridStack<DModel<200>, Attention<>>;
Stack::Tree<WeightsOf<float>> weights;
