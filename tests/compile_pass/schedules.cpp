#include <samba/samba.hpp>
using namespace samba;

// The shape of a stack is known to the compiler.
using Block = HybridStack<Mamba<256>, SwiGLU<256, 768>, SWA<64>, SwiGLU<256, 768>>;
static_assert(Block::d_model == 256);
static_assert(Repeat<6, Block>::d_model == 256);
static_assert(HybridStack<DModel<512>, SWA<64>>::d_model == 512);
static_assert(HybridStack<Repeat<2, Block>, Mamba<256>>::d_model == 256);
static_assert(Mamba<256>::d_inner == 512 && Mamba<256>::dt_rank == 16);
