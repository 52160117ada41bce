#include <samba/samba.hpp>
using namespace samba;

// expect: RgLru: n_heads must divide width
using Layer = RgLru<64, RgLruOptions{.width = 60, .n_heads = 8}>;
constexpr int width = Layer::width;
