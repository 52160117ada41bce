#pragma once
#include <samba/kernels/embedding.hpp>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// Row i of out = row tokens[i] of the table. The same for scalar and vector paths: it only copies.
template <class T, Layout layout, class R>
void embedding(const EmbeddingArgs<T, layout, R>& a, std::int64_t i) {
  get_row(a.table, layout, a.tokens[i], a.vocab_size, a.columns, a.out + i * a.out_stride);
}

/// Adds some columns of row i of dx to row tokens[i] of dtable.
template <class R>
void embedding_backward(const EmbeddingBackwardArgs<R>& a, std::int64_t i, Range columns) {
  const R* const from = a.dx + i * a.dx_stride;
  R* const to = a.dtable + a.tokens[i] * a.columns;
  for (std::int64_t c = columns.begin; c < columns.end; ++c) to[c] += from[c];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
