#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/reference/embedding.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// out[i] = the embedding of tokens[i]. Weight: a Table, or the packed Matrix of a tied head.
/// out: (tokens, d_model). Threads take rows.
template <class Weight, class R, int D>
void embedding(const Team& team, const Weight& table, const std::int32_t* tokens, Rows<R, D> out) {
  const Range rows = team.share(out.count);
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    reference::embedding(table, tokens[i], out.row(i));
  team.barrier();
}

/// dtable += the gradient of the table for dx that of the embeddings of tokens. Threads take
/// columns; tokens are added in order.
template <class Table, class R, int D>
void embedding_backward(const Team& team, const std::int32_t* tokens, Rows<R, D> dx,
                        Table& dtable) {
  const Range columns = team.share(D, line_floats);
  for (std::int64_t i = 0; i < dx.count; ++i) {
    R* const row = dtable.data() + std::int64_t{tokens[i]} * D;
    for (std::int64_t c = columns.begin; c < columns.end; ++c) row[c] += dx.row(i)[c];
  }
  team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
