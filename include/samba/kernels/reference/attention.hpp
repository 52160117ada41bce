#pragma once
#include <samba/core/tensor.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's queries, its new keys and values (both in the fused rows of qkv) and its rings of
/// earlier ones. A row of qkv holds, for each key/value head, `group` query heads, the key head,
/// the value head.
template <class R, class KV>
struct AttentionArgs {
  const R* qkv;  ///< (n_rows, n_kv_heads * (group + 2) * head_dim)
  std::int64_t qkv_stride;
  const KV* ring_k;  ///< (n_kv_heads, slots, head_dim), slot = position % slots
  const KV* ring_v;
  std::int64_t slots;
  std::int64_t window;    ///< keys a query sees, itself included
  std::int64_t position;  ///< of row 0
  std::int64_t n_rows;
  int n_kv_heads, group, head_dim;
  R* out;  ///< (n_rows, n_kv_heads * group * head_dim)
  std::int64_t out_stride;
};

/// Keys are taken in tiles [64 t, 64 t + 64) of absolute positions, whatever chunk they came in:
/// every query adds them up in the same order for any split of its sequence.
inline constexpr int attention_tile = 64;

/// Query rows (tokens times heads of a group) that share the keys of a tile.
inline constexpr int attention_rows = 96;

/// Bytes of scratch that a thread needs to attend at most, for any KV and instruction set.
constexpr std::int64_t most_attention_scratch_bytes(std::int64_t head_dim) {
  constexpr std::int64_t buffers = 8, vector = 16, rows_at_once = 12;
  const std::int64_t width = round_up(head_dim, panel_width);
  const std::int64_t floats = attention_rows * (width + vector + 1 + head_dim + 1) +
                              (2 * attention_tile + 1) * head_dim +
                              attention_tile * (2 * rows_at_once + head_dim + 1 + width);
  return 4 * floats + buffers * alignment;
}

/// Earliest position that the query at `position` sees.
constexpr std::int64_t first_visible(std::int64_t position, std::int64_t window) {
  return position < window ? 0 : position - window + 1;
}

namespace reference {

/// softmax(q k^T / sqrt(head_dim)) v over the keys j with position - window < j <= position, for the
/// query rows of the range and all query heads of some key/value heads. One pass with a running
/// maximum (Milakov & Gimelshein 2018); no scores are stored. All factors are rounded to KV: queries,
/// new keys and values, and weights, which are added up as they were before.
template <class R, class KV>
void attention(const AttentionArgs<R, KV>& a, Range heads, Range rows) {
  const int D = a.head_dim;
  const auto as_factor = [](R x) { return static_cast<R>(static_cast<KV>(x)); };
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (std::int64_t head = heads.begin * a.group; head < heads.end * a.group; ++head) {
      const std::int64_t g = head / a.group, group_at = g * (a.group + 2) * D;
      const R* q = a.qkv + i * a.qkv_stride + group_at + head % a.group * D;
      R* out = a.out + i * a.out_stride + head * D;
      R maximum = 0, total = 0;
      for (int d = 0; d < D; ++d) out[d] = 0;

      const std::int64_t begin = first_visible(a.position + i, a.window);
      for (std::int64_t j = begin; j <= a.position + i; ++j) {
        const R* row = a.qkv + (j - a.position) * a.qkv_stride + group_at + a.group * D;
        const std::int64_t at = (g * a.slots + j % a.slots) * D;
        const bool old = j < a.position;
        const auto key = [&](int d) {
          return old ? static_cast<R>(a.ring_k[at + d]) : as_factor(row[d]);
        };
        const auto value = [&](int d) {
          return old ? static_cast<R>(a.ring_v[at + d]) : as_factor(row[D + d]);
        };

        R score = 0;
        for (int d = 0; d < D; ++d) score += as_factor(q[d]) * key(d);
        score /= std::sqrt(static_cast<R>(D));
        const R new_maximum = j == begin || score > maximum ? score : maximum;
        const R keep = j == begin ? R{0} : std::exp(maximum - new_maximum);
        const R weight = std::exp(score - new_maximum);
        for (int d = 0; d < D; ++d) out[d] = keep * out[d] + as_factor(weight) * value(d);
        total = keep * total + weight;
        maximum = new_maximum;
      }
      for (int d = 0; d < D; ++d) out[d] /= total;
    }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
