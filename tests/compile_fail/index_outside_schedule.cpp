#include <samba/samba.hpp>
using namespace samba;

// expect: AtIndices: an index lies outside [0, n)
using Stack = AtIndices<4, Indices<1, 4>, SwiGLU<64>, Mamba<64>>;
Stack::Tree<WeightsOf<float>> weights;
