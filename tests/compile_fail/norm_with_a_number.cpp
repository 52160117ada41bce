#include <samba/samba.hpp>
using namespace samba;

// expect: Norm<Options>: write options as NormOptions{.plus_one = true}
using Stack = HybridStack<Pre<Norm<1>, SwiGLU<48>>>;
Stack::Tree<WeightsOf<float>> weights;
