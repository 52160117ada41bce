#include <samba/samba.hpp>
using namespace samba;

// expect: Periodic: offset must lie in [0, period)
using Stack = Periodic<8, 2, 2, SwiGLU<64>, Mamba<64>>;
Stack::Tree<WeightsOf<float>> weights;
