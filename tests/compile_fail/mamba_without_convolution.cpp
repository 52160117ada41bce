#include <samba/samba.hpp>
using namespace samba;

// expect: Mamba: d_conv must be at least 2
using Layer = Mamba<256, 16, MambaOptions{.d_conv = 1}>;
constexpr int d_inner = Layer::d_inner;
