#include <samba/samba.hpp>
using namespace samba;

// expect: the window counts the token itself and must be positive
using Stack = HybridStack<DModel<256>, SWA<0>>;
Stack::Tree<WeightsOf<float>> weights;
