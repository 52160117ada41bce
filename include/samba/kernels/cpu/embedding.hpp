#pragma once
#include <samba/kernels/embedding.hpp>
#include <samba/kernels/reference/embedding.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// Threads share the rows.
template <class T, Layout layout, class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const EmbeddingArgs<T, layout, R>& a) {
  const Range rows = cpu.team.share(a.rows);
  for (std::int64_t i = rows.begin; i < rows.end; ++i) reference::embedding(a, i);
  cpu.team.barrier();
}

/// Threads share the columns; tokens are added in order.
template <class R>
[[gnu::noinline]] void launch(const Cpu& cpu, const Chunk&, const EmbeddingBackwardArgs<R>& a) {
  const Range columns = cpu.team.share(a.columns, line_floats);
  for (std::int64_t i = 0; i < a.rows; ++i) reference::embedding_backward(a, i, columns);
  cpu.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
