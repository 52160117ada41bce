// The kernels of samba::compiled for one instruction set: compiled once for each, with its flags.
#include <samba/kernels/compiled/entries.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

// Scratch that depends on the width of vectors comes from the program, which takes the widest.
static_assert(2 * vector_floats <= panel_width);

void list_kernels(Entry* entries) { Kernels::copy_to(entries); }

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
