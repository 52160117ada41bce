// The kernels of samba::compiled for one instruction set: compiled once for each, with its flags.
#include <samba/kernels/compiled/entries.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

void list_kernels(Entry* entries) { Kernels::copy_to(entries); }

static_assert([] {
  for (std::int64_t D = 1; D <= 1024; ++D)
    if (simd::attention_scratch_bytes(D) > most_attention_scratch_bytes(D)) return false;
  return true;
}());

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
