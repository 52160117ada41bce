#include <samba/samba.hpp>
using namespace samba;

// expect: Parallel: give at least two layers
using Stack = HybridStack<Parallel<Mamba<64>>>;
Stack::Tree<WeightsOf<float>> weights;
