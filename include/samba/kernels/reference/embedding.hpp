#pragma once
#include <samba/core/tensor.hpp>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// out = row `token` of the table. The same for scalar and vector paths: it only copies.
template <class Weight, class R>
void embedding(const Weight& table, std::int64_t token, R* out) {
  table.get_row(token, out);
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
