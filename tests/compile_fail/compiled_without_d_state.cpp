#define SAMBA_COMPILED  // as programs that link samba::compiled have it
#include <samba/kernels/cpu/selective_scan.hpp>
using namespace samba;

// expect: samba::compiled has the scan for d_state 4, 8, 16, 32, 64, 128; for others
auto* const scan = &kernels::simd::selective_scan<24>;
