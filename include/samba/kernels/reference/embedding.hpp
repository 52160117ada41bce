#pragma once
#include <samba/kernels/embedding.hpp>

namespace samba::inline SAMBA_TARGET::kernels::reference {

/// Row i of out = scale * row tokens[i] of the table. One form for scalar and vector paths.
template <class T, Layout layout, class R>
void embedding(const EmbeddingArgs<T, layout, R>& a, std::int64_t i) {
  R* const out = a.out + i * a.out_stride;
  get_row(a.table, layout, a.tokens[i], a.vocab_size, a.columns, out);
  if (a.scale != 1)
    for (std::int64_t c = 0; c < a.columns; ++c) out[c] *= a.scale;
}

/// Adds some columns of row i of scale * dx to row tokens[i] of dtable.
template <class R>
void embedding_backward(const EmbeddingBackwardArgs<R>& a, std::int64_t i, Range columns) {
  const R* const from = a.dx + i * a.dx_stride;
  R* const to = a.dtable + a.tokens[i] * a.columns;
  for (std::int64_t c = columns.begin; c < columns.end; ++c) to[c] += a.scale * from[c];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::reference
