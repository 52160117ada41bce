#include <samba/samba.hpp>
using namespace samba;

// also with nvcc
// expect: Mamba: the channel Memory must be d_inner wide
struct Memory : Channel<64> {};
Mamba<64, 16, MambaOptions{}, Memory>::Weights<float> weights;
