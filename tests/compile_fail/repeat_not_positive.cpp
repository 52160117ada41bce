#include <samba/samba.hpp>
using namespace samba;

// expect: Repeat<n, Block>: n must be positive
using Stack = Repeat<0, HybridStack<Mamba<256>>>;
Stack::Tree<WeightsOf<float>> weights;
