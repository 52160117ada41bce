#include <samba/samba.hpp>
using namespace samba;

// expect: the KeyValueChannel that it lends must have its n_kv_heads, head_dim and window
struct Cache : KeyValueChannel<2, 16, 64> {};
using Stack =
    HybridStack<DModel<64>, SWA<32, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}, Cache>>;
Stack::Tree<WeightsOf<float>> weights;
