// The kernels of samba::compiled for one instruction set. Compiled once per set, with its flags.
#include <samba/kernels/compiled/entries.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

// The program allocates scratch that depends on the vector width, and assumes the widest vectors.
static_assert(2 * vector_floats <= panel_width);

void list_kernels(Entry* entries) { Kernels::copy_to(entries); }

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
