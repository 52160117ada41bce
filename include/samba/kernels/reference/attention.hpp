#pragma once
#include <samba/core/tensor.hpp>

#include <algorithm>
#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's queries, its new keys and values (both in the fused rows of qkv) and its ring of
/// earlier ones. A row of qkv holds, for each key/value head, `group` query heads, the key head,
/// the value head; a slot of a ring holds all key (value) heads.
template <class R, class KV>
struct AttentionArgs {
  const R* qkv;  ///< (n_rows, n_kv_heads * (group + 2) * head_dim)
  std::int64_t qkv_stride;
  const KV* ring_k;  ///< (slots, n_kv_heads * head_dim), slot = position % slots
  const KV* ring_v;
  std::int64_t slots;
  std::int64_t window;    ///< keys a query sees, itself included
  std::int64_t position;  ///< of row 0
  std::int64_t n_rows;
  int n_kv_heads, group;
  R* out;  ///< (n_rows, n_kv_heads * group * head_dim)
  std::int64_t out_stride;
};

/// Earliest position that the query at `position` sees.
constexpr std::int64_t first_visible(std::int64_t position, std::int64_t window) {
  return position < window ? 0 : position - window + 1;
}

namespace reference {

/// softmax(q k^T / sqrt(HeadDim)) v over the keys j with position - window < j <= position, for the
/// query rows of the range and all query heads of key/value head g. One pass with a running maximum
/// (Milakov & Gimelshein 2018); no scores are stored.
template <int HeadDim, class R, class KV>
void attention(const AttentionArgs<R, KV>& a, int g, Range rows) {
  const std::int64_t kv_width = std::int64_t{a.n_kv_heads} * HeadDim;
  const std::int64_t group_at = std::int64_t{g} * (a.group + 2) * HeadDim;
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (int h = 0; h < a.group; ++h) {
      const R* q = a.qkv + i * a.qkv_stride + group_at + h * HeadDim;
      R* out = a.out + i * a.out_stride + (std::int64_t{g} * a.group + h) * HeadDim;
      R maximum = 0, total = 0;
      for (int d = 0; d < HeadDim; ++d) out[d] = 0;

      const std::int64_t begin = first_visible(a.position + i, a.window);
      for (std::int64_t j = begin; j <= a.position + i; ++j) {
        const R* row = a.qkv + (j - a.position) * a.qkv_stride + group_at + a.group * HeadDim;
        const std::int64_t at = j % a.slots * kv_width + g * HeadDim;
        const bool old = j < a.position;
        const auto key = [&](int d) { return old ? static_cast<R>(a.ring_k[at + d]) : row[d]; };
        const auto value = [&](int d) {
          return old ? static_cast<R>(a.ring_v[at + d]) : row[HeadDim + d];
        };

        R score = 0;
        for (int d = 0; d < HeadDim; ++d) score += q[d] * key(d);
        score /= std::sqrt(R{HeadDim});
        const R new_maximum = j == begin || score > maximum ? score : maximum;
        const R keep = j == begin ? R{0} : std::exp(maximum - new_maximum);
        const R weight = std::exp(score - new_maximum);
        for (int d = 0; d < HeadDim; ++d) out[d] = keep * out[d] + weight * value(d);
        total = keep * total + weight;
        maximum = new_maximum;
      }
      for (int d = 0; d < HeadDim; ++d) out[d] /= total;
    }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
