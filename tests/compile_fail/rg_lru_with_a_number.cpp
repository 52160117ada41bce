#include <samba/samba.hpp>
using namespace samba;

// expect: RgLru<D, Options>: write options as RgLruOptions{.n_heads = 4}
using Stack = HybridStack<RgLru<64, 3>>;
Stack::Tree<WeightsOf<float>> weights;
