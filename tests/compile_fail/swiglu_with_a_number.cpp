#include <samba/samba.hpp>
using namespace samba;

// expect: SwiGLU<D, Hidden, Options>: write options as MlpOptions{.bias = true}
using Stack = HybridStack<SwiGLU<64, 128, 1>>;
Stack::Tree<WeightsOf<float>> weights;
