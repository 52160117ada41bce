#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out[i] = scale * row tokens[i] of a table with elements T in a layout.
template <class T, Layout layout, class R>
struct EmbeddingArgs {
  const T* table;  ///< (vocab_size, columns)
  const std::int32_t* tokens;
  R* out;  ///< (rows, columns)
  std::int64_t out_stride;
  R scale;
  std::int64_t rows, vocab_size, columns;
};

/// dtable += the gradient of the table, scale * dx, given dx, the gradient of the embeddings.
template <class R>
struct EmbeddingBackwardArgs {
  const std::int32_t* tokens;
  const R* dx;  ///< (rows, columns)
  std::int64_t dx_stride;
  R scale;
  R* dtable;  ///< (vocab_size, columns), row major
  std::int64_t rows, columns;
};

/// x[i] = scale times the embedding of tokens[i], in the residual stream. Table: a Table, or the
/// Matrix of a tied head. tokens: (rows), x: (rows, d_model).
template <class P, class Table, int D>
void embedding(const Context<P>& c, const Table& table, const std::int32_t* tokens,
               Rows<Residual<P>, D> x, Residual<P> scale = 1) {
  static_assert(Table::row_size == D);
  using T = typename Table::value_type;
  samba::detail::launch_on(c,
                           EmbeddingArgs<T, Table::layout, Residual<P>>{.table = table.data(),
                                                                        .tokens = tokens,
                                                                        .out = x.data,
                                                                        .out_stride = x.stride,
                                                                        .scale = scale,
                                                                        .rows = x.rows,
                                                                        .vocab_size = Table::rows,
                                                                        .columns = D});
}

/// dtable += the gradient of the table, scale * dx, given dx, the gradient of the scaled embeddings.
template <class P, class Table, int D>
void embedding_backward(const Context<P>& c, const std::int32_t* tokens, Rows<Residual<P>, D> dx,
                        Table& dtable, Residual<P> scale = 1) {
  static_assert(Table::row_size == D && Table::layout == Layout::rows);
  samba::detail::launch_on(c, EmbeddingBackwardArgs<Residual<P>>{.tokens = tokens,
                                                                 .dx = dx.data,
                                                                 .dx_stride = dx.stride,
                                                                 .scale = scale,
                                                                 .dtable = dtable.data(),
                                                                 .rows = dx.rows,
                                                                 .columns = D});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
