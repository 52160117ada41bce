#include <samba/samba.hpp>
using namespace samba;

// expect: Mamba<D, N, Options>: write options as MambaOptions{.d_conv = 3}
using Stack = HybridStack<Mamba<64, 16, 3>>;
Stack::Tree<WeightsOf<float>> weights;
