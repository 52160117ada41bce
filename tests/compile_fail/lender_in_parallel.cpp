#include <samba/samba.hpp>
using namespace samba;

// expect: Parallel: a layer that lends its state must be in a branch of its own
struct Cache : KeyValueChannel<2, 16, 64> {};
using Stack = HybridStack<
    Parallel<SwiGLU<64>, SWA<64, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}, Cache>>>;
Stack::Tree<WeightsOf<float>> weights;
