#include <samba/samba.hpp>
using namespace samba;

// expect: SwiGLU<D, Hidden>, GeGLU<D, Hidden>: d_model and d_ff must be positive
using Stack = HybridStack<SwiGLU<64, 0>>;
Stack::Tree<WeightsOf<float>> weights;
