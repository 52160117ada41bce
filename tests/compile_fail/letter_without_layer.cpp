#include <samba/samba.hpp>
using namespace samba;

// expect: Pattern: a letter of the string has no Is<letter, Element>, or more than one
using Stack = Pattern<"MSX", Is<'M', Mamba<64>>, Is<'S', SwiGLU<64>>>;
Stack::Tree<WeightsOf<float>> weights;
