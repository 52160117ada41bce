#pragma once
#include <samba/core/chunk.hpp>
#include <samba/kernels/simd/attention.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// Scratch of one thread for attention with heads of HeadDim values.
template <int HeadDim, class R>
using AttentionScratch = PerThread<R, simd::attention_scratch<HeadDim>>;

namespace detail {

/// The work of attention on one sequence. A function of sizes, compiled once for all layers with
/// such heads.
template <int HeadDim, class R, class KV>
[[gnu::noinline]] void attend(const Team& team, const AttentionArgs<R, KV>& args,
                              std::int64_t n_rows, AttentionScratch<HeadDim, R> scratch) {
  const std::int64_t block = std::max(1, simd::attention_rows / args.group),
                     blocks = (n_rows + block - 1) / block;
  for (std::int64_t task = team.rank; task < blocks * args.n_kv_heads; task += team.size) {
    const int g = static_cast<int>(task / blocks);
    const std::int64_t first = task % blocks * block;
    const Range rows{first, std::min(first + block, n_rows)};
    if constexpr (std::is_same_v<R, float>)
      simd::attention<HeadDim>(args, g, rows, scratch.of(team.rank));
    else
      reference::attention<HeadDim>(args, g, rows);
  }
}

}  // namespace detail

/// Grouped-query attention of every sequence of the chunk, causal, over the last `window` keys with
/// the query's own. qkv: (rows, n_kv_heads * (group + 2) * HeadDim), keys already rotated; k, v:
/// each sequence's ring of earlier keys and values, not changed;
/// out: (rows, n_kv_heads * group * HeadDim). Threads take key/value heads and blocks of rows.
template <int HeadDim, class R, class KV, int Slots, int KvWidth, int QkvWidth, int OutWidth>
void attention(const Chunk& chunk, std::int64_t window, Rows<R, QkvWidth> qkv,
               States<Ring<KV, Slots, KvWidth>> k, States<Ring<KV, Slots, KvWidth>> v,
               AttentionScratch<HeadDim, R> scratch, Rows<R, OutWidth> out) {
  constexpr int n_kv_heads = KvWidth / HeadDim, group = OutWidth / KvWidth;
  static_assert(group <= simd::attention_rows,
                "attention: more query heads per key/value head than a block of rows");
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    const AttentionArgs<R, KV> args{.qkv = qkv.row(row),
                                    .qkv_stride = qkv.stride,
                                    .ring_k = k[s].data,
                                    .ring_v = v[s].data,
                                    .slots = k[s].slots,
                                    .window = window,
                                    .position = position,
                                    .n_rows = n_rows,
                                    .n_kv_heads = n_kv_heads,
                                    .group = group,
                                    .out = out.row(row),
                                    .out_stride = out.stride};
    detail::attend<HeadDim>(chunk.team, args, n_rows, scratch);
  }
  chunk.team.barrier();
}

/// Rounds the keys and values of fused rows to KV in place, so that they are the same for queries
/// of their own chunk as for later ones. Threads take rows. Does nothing where KV is R.
template <class KV, int HeadDim, class R, int C>
void round_keys_values(const Chunk& chunk, int group, Rows<R, C> qkv) {
  if constexpr (!std::is_same_v<KV, R>) {
    const Range rows = chunk.team.share(qkv.count);
    for (std::int64_t i = rows.begin; i < rows.end; ++i)
      for (int head = 0; head < C / HeadDim; ++head) {
        if (head % (group + 2) < group) continue;  // a query head
        R* x = qkv.row(i) + head * HeadDim;
        for (int d = 0; d < HeadDim; ++d) x[d] = static_cast<R>(KV(x[d]));
      }
    chunk.team.barrier();
  }
}

namespace detail {

/// Stores n_rows fused rows in the rings of one sequence, the first at `position`.
template <class R, class KV>
[[gnu::noinline]] void store_rows(const R* qkv, std::int64_t stride, std::int64_t n_rows,
                                  int n_kv_heads, int group, int head_dim, std::int64_t position,
                                  std::int64_t slots, KV* k, KV* v) {
  for (std::int64_t i = 0; i < n_rows; ++i) {
    const std::int64_t slot = (position + i) % slots * n_kv_heads * head_dim;
    for (int g = 0; g < n_kv_heads; ++g) {
      const R* key = qkv + i * stride + (g * (group + 2) + group) * head_dim;
      for (int d = 0; d < head_dim; ++d) {
        k[slot + g * head_dim + d] = static_cast<KV>(key[d]);
        v[slot + g * head_dim + d] = static_cast<KV>(key[head_dim + d]);
      }
    }
  }
}

}  // namespace detail

/// Stores the keys and values of the chunk's last tokens in the rings, slot = position % slots.
/// Threads take slots. Every thread must have finished reading the rings.
template <int HeadDim, class R, class KV, int Slots, int KvWidth, int C>
void store_keys_values(const Chunk& chunk, Rows<R, C> qkv, States<Ring<KV, Slots, KvWidth>> k,
                       States<Ring<KV, Slots, KvWidth>> v) {
  constexpr int n_kv_heads = KvWidth / HeadDim, group = C / KvWidth - 2;
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto& segment = chunk.segments[s];
    const std::int64_t skip = std::max<std::int64_t>(0, segment.n_rows - k[s].slots);
    const Range rows = chunk.team.share(segment.n_rows - skip);
    const std::int64_t first = skip + rows.begin;
    detail::store_rows(qkv.row(segment.first_row + first), qkv.stride, rows.end - rows.begin,
                       n_kv_heads, group, HeadDim, segment.position + first, k[s].slots, k[s].data,
                       v[s].data);
  }
  chunk.team.barrier();
}

}  // namespace samba::inline SAMBA_TARGET::kernels
