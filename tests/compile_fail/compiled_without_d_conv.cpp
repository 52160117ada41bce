#define SAMBA_COMPILED  // as programs that link samba::compiled have it
#include <samba/kernels/cpu/causal_conv1d.hpp>
using namespace samba;

// expect: samba::compiled has the convolution for d_conv 2, 3, 4, 5, 6; for others
auto* const convolution = &kernels::simd::causal_conv1d_backward<8, true>;
