#pragma once
#include <samba/core/chunk.hpp>
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/attention_backward.hpp>
#endif

namespace samba::inline SAMBA_TARGET::kernels {

/// Scratch of one thread for attention with heads of HeadDim values.
template <int HeadDim, class R>
using AttentionScratch = PerThread<R, static_cast<int>(simd::attention_scratch_bytes(HeadDim) / 4)>;
template <int HeadDim, class R>
using AttentionBackwardScratch =
    PerThread<R, static_cast<int>(simd::attention_backward_scratch(HeadDim))>;

namespace detail {

/// One thread's part of the attention of one sequence. scratch: of this thread.
template <class R, class KV>
void attend(const Team& team, const AttentionArgs<R, KV>& args, R* scratch) {
  const std::int64_t block = (std::max)(1, attention_rows / args.group),
                     blocks = (args.n_rows + block - 1) / block;
  // Of a short chunk one thread takes several heads at once.
  const std::int64_t together =
      blocks > 1 ? 1
                 : std::max<std::int64_t>(
                       1, attention_rows / (args.group * std::max<std::int64_t>(args.n_rows, 1)));
  const Range share = team.share(blocks * args.n_kv_heads);
  for (std::int64_t task = share.begin, n; task < share.end; task += n) {
    n = (std::min)(together, share.end - task);
    const std::int64_t g = task / blocks, first = task % blocks * block;
    const Range heads{g, g + n}, rows{first, (std::min)(first + block, args.n_rows)};
    if constexpr (std::is_same_v<R, float>)
      simd::attention(args, heads, rows, reinterpret_cast<std::byte*>(scratch));
    else
      reference::attention(args, heads, rows);
  }
}

/// Stores n_rows fused rows in the rings of one sequence, the first at `position`.
template <class R, class KV>
void store_rows(const AttentionArgs<R, KV>& a, std::int64_t first, std::int64_t n_rows, KV* k,
                KV* v) {
  for (std::int64_t i = first; i < first + n_rows; ++i)
    for (int g = 0; g < a.n_kv_heads; ++g) {
      const R* const key = a.qkv + i * a.qkv_stride + (g * (a.group + 2) + a.group) * a.head_dim;
      const std::int64_t at = (g * a.n_slots + (a.position + i) % a.n_slots) * a.head_dim;
      for (int d = 0; d < a.head_dim; ++d) {
        k[at + d] = static_cast<KV>(key[d]);
        v[at + d] = static_cast<KV>(key[a.head_dim + d]);
      }
    }
}

/// Attention of every sequence of the chunk, then the chunk's last keys and values to the rings;
/// args as of the chunk's first row, without rings. A function of sizes, compiled once for all
/// layers.
template <class R, class KV>
[[gnu::noinline]] void attend_segments(const Chunk& chunk, const AttentionArgs<R, KV>& args,
                                       States<RingData<KV>> k, States<RingData<KV>> v, R* scratch) {
  const auto of_segment = [&](std::size_t s) {
    const auto [position, row, n_rows] = chunk.segments[s];
    AttentionArgs<R, KV> a = args;
    a.qkv += row * a.qkv_stride, a.out += row * a.out_stride;
    if (a.log_sum) a.log_sum += row * a.n_kv_heads * a.group;
    a.ring_k = k[s].data, a.ring_v = v[s].data, a.n_slots = k[s].n_slots;
    a.position = position, a.n_rows = n_rows;
    return a;
  };
  for (std::size_t s = 0; s < chunk.segments.size(); ++s)
    attend(chunk.team, of_segment(s), scratch);
  chunk.team.barrier();  // the rings have been read
  for (std::size_t s = 0; s < chunk.segments.size(); ++s) {
    const auto a = of_segment(s);
    const std::int64_t skip = std::max<std::int64_t>(0, a.n_rows - a.n_slots);
    const Range rows = chunk.team.share(a.n_rows - skip);
    store_rows(a, skip + rows.begin, rows.end - rows.begin, k[s].data, v[s].data);
  }
  chunk.team.barrier();
}

template <class R, class KV>
[[gnu::noinline]] void attend_backward_segments(const Chunk& chunk,
                                                const AttentionBackwardArgs<R, KV>& args,
                                                States<RingData<KV>> k, States<RingData<KV>> v,
                                                States<RingData<R>> dk, States<RingData<R>> dv,
                                                R* scratch) {
  // Pairs of a sequence and a key/value head: what a pair adds up, one thread adds up.
  const int heads = args.forward.n_kv_heads;
  const Range tasks = chunk.team.share(std::ssize(chunk.segments) * heads);
  for (std::int64_t task = tasks.begin; task < tasks.end; ++task) {
    const auto s = static_cast<std::size_t>(task / heads);
    const auto [position, row, n_rows] = chunk.segments[s];
    AttentionBackwardArgs<R, KV> b = args;
    AttentionArgs<R, KV>& a = b.forward;
    a.qkv += row * a.qkv_stride, a.out += row * a.out_stride;
    a.log_sum += row * heads * a.group;
    a.ring_k = k[s].data, a.ring_v = v[s].data, a.n_slots = k[s].n_slots;
    a.position = position, a.n_rows = n_rows;
    b.dout += row * b.dout_stride, b.dqkv += row * b.dqkv_stride;
    b.dring_k = dk[s].data, b.dring_v = dv[s].data;
    if constexpr (std::is_same_v<R, float>)
      simd::attention_backward(b, task % heads, scratch);
    else
      reference::attention_backward(b, {task % heads, task % heads + 1});
  }
  chunk.team.barrier();
}

/// The arguments of a chunk's first row, without rings.
template <int Heads, int HeadDim, class KV, class R, int QkvWidth, int OutWidth>
AttentionArgs<R, KV> attention_args(std::int64_t window, Rows<R, QkvWidth> qkv,
                                    Rows<R, OutWidth> out, R* log_sum) {
  return {.qkv = qkv.data,
          .qkv_stride = qkv.stride,
          .ring_k = nullptr,
          .ring_v = nullptr,
          .n_slots = 0,
          .window = window,
          .position = 0,
          .n_rows = 0,
          .n_kv_heads = Heads,
          .group = OutWidth / (Heads * HeadDim),
          .head_dim = HeadDim,
          .out = out.data,
          .out_stride = out.stride,
          .log_sum = log_sum};
}

}  // namespace detail

/// Grouped-query attention of every sequence of the chunk, causal, over the last `window` keys with
/// the query's own. qkv: (rows, n_kv_heads * (group + 2) * HeadDim), keys already rotated; k, v:
/// each sequence's rings of earlier keys and values, (n_kv_heads, slots, HeadDim), which then take
/// the chunk's last ones, slot = position % slots; out: (rows, n_kv_heads * group * HeadDim). Where
/// KV is bf16, all factors are rounded to it: queries, the chunk's own keys and values, softmax
/// weights. log_sum: (rows, query heads), log(sum(exp(scores))) for the backward pass. Threads take
/// key/value heads and blocks of rows.
template <int HeadDim, class R, class KV, int Heads, int Slots, int QkvWidth, int OutWidth>
void attention(const Chunk& chunk, std::int64_t window, Rows<R, QkvWidth> qkv,
               States<Ring<KV, Heads, Slots, HeadDim>> k, States<Ring<KV, Heads, Slots, HeadDim>> v,
               AttentionScratch<HeadDim, R> scratch, Rows<R, OutWidth> out,
               std::type_identity_t<Rows<R, OutWidth / HeadDim>> log_sum = {}) {
  static_assert(OutWidth / (Heads * HeadDim) <= attention_rows,
                "attention: more query heads per key/value head than a block of rows");
  detail::attend_segments(
      chunk, detail::attention_args<Heads, HeadDim, KV>(window, qkv, out, log_sum.data),
      k.template part<RingData<KV>>(), v.template part<RingData<KV>>(),
      scratch.of(chunk.team.rank));
}

/// The gradients of attention for dout that of out; out, log_sum: as it wrote them. k, v: each
/// sequence's rings as the forward pass found them; dk, dv: the gradients of the rings as they were
/// left, then as they were found; dqkv is written. Threads take pairs of a sequence and a key/value
/// head.
template <int HeadDim, class R, class KV, int Heads, int Slots, int QkvWidth, int OutWidth>
void attention_backward(const Chunk& chunk, std::int64_t window, Rows<R, QkvWidth> qkv,
                        States<Ring<KV, Heads, Slots, HeadDim>> k,
                        States<Ring<KV, Heads, Slots, HeadDim>> v, Rows<R, OutWidth> out,
                        std::type_identity_t<Rows<R, OutWidth / HeadDim>> log_sum,
                        std::type_identity_t<In<R, OutWidth>> dout, Rows<R, QkvWidth> dqkv,
                        States<Ring<R, Heads, Slots, HeadDim>> dk,
                        States<Ring<R, Heads, Slots, HeadDim>> dv,
                        AttentionBackwardScratch<HeadDim, R> scratch) {
  detail::attend_backward_segments(
      chunk,
      AttentionBackwardArgs<R, KV>{
          .forward = detail::attention_args<Heads, HeadDim, KV>(window, qkv, out, log_sum.data),
          .dout = dout.data,
          .dout_stride = dout.stride,
          .dqkv = dqkv.data,
          .dqkv_stride = dqkv.stride,
          .dring_k = nullptr,
          .dring_v = nullptr},
      k.template part<RingData<KV>>(), v.template part<RingData<KV>>(),
      dk.template part<RingData<R>>(), dv.template part<RingData<R>>(),
      scratch.of(chunk.team.rank));
}

}  // namespace samba::inline SAMBA_TARGET::kernels
