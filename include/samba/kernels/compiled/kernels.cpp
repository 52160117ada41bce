// The kernels of samba::compiled for one instruction set: compiled once for each, with its flags.
#include <samba/kernels/compiled/entries.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

void list_kernels(Entry* entries) { Kernels::copy_to(entries); }

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
