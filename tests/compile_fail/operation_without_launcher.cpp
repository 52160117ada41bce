#include <samba/layers/swiglu.hpp>
using namespace samba;

// also with nvcc
// expect: samba: this operation has no launcher for the device: include <samba/kernels/cpu.hpp> or, for CUDA, <samba/cuda.cuh>; or it does not exist there
struct Abacus {};
using P = Policy<float, float, Abacus>;
void run(const Context<P>& c, const SwiGLU<64>::Weights<float>& w, const SwiGLU<64>::Scratch<P>& t,
         In<P, 64> in, Out<P, 64> out) {
  SwiGLU<64>::forward(c, w, {}, t, in, out);
}
