#pragma once
#include <samba/kernels/heads.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's queries, its new keys and values, and its rings of earlier ones. KV: the type to which
/// the operands of all products are rounded.
template <class R, class KV>
struct AttentionArgs {
  HeadRows<const R> q;     ///< (rows, n_kv_heads, group, head_dim)
  HeadRows<const R> k, v;  ///< (rows, n_kv_heads, head_dim)
  const KV* ring_k;        ///< (n_kv_heads, slots, head_dim), slot = position % slots
  const KV* ring_v;
  std::int64_t n_slots;
  std::int64_t window;    ///< keys a query sees, itself included
  std::int64_t position;  ///< of row 0
  std::int64_t rows;
  int n_kv_heads, group, head_dim;
  Real<R> divisor;       ///< of the scores
  Real<R> cap;           ///< scores s become cap * tanh(s / cap); 0: they stay
  const Real<R>* sinks;  ///< (n_kv_heads, group), scores of a key without a value; or null
  R* out;                ///< (rows, n_kv_heads * group * head_dim)
  std::int64_t out_stride;
  R* log_sum;  ///< (rows, n_kv_heads * group), of the exponentials of scores; or null
};

/// The gradients of attention for one sequence, given dout, the gradient of out. The gradients of queries
/// and of the chunk's own keys and values are written. dring: on entry the gradient of the rings as the
/// forward pass left them, on return that of the rings as it found them.
template <class R, class KV>
struct AttentionBackwardArgs {
  AttentionArgs<R, KV> forward;  ///< rings as they were before; out as it was written
  const R* dout;                 ///< (rows, n_kv_heads * group * head_dim)
  std::int64_t dout_stride;
  HeadRows<R> dq;      ///< (rows, n_kv_heads, group, head_dim)
  HeadRows<R> dk, dv;  ///< (rows, n_kv_heads, head_dim)
  R* dring_k;          ///< (n_kv_heads, slots, head_dim)
  R* dring_v;
  R* dsinks;  ///< (n_kv_heads, group), added to; null without sinks
  /// attention also updated the rings. Otherwise dk and dv are added to, and so is dring, the gradient
  /// of the rings as the chunk found them.
  bool update_rings;
};

/// Keys are taken in tiles [64 t, 64 t + 64) of absolute positions, whatever chunk they came in, so that
/// every query sums over them in the same order for any split of its sequence.
inline constexpr int attention_tile = 64;

/// Query rows (tokens times heads of a group) that share the keys of a tile.
inline constexpr int attention_rows = 96;

/// Of these, the rows whose scores become weights together.
inline constexpr int attention_tile_rows = 12;

/// Query rows that the backward pass multiplies with a tile together.
inline constexpr std::int64_t attention_backward_rows = 48;

/// The most bytes of scratch that a thread needs for attention, for any KV and instruction set.
constexpr std::int64_t attention_scratch_bytes(std::int64_t head_dim) {
  constexpr std::int64_t buffers = 8, vector = 16;
  const std::int64_t width = round_up(head_dim, panel_width);
  const std::int64_t floats = attention_rows * (width + vector + 1 + head_dim + 1) +
                              (2 * attention_tile + 1) * head_dim +
                              attention_tile * (2 * attention_tile_rows + head_dim + 1 + width);
  return 4 * floats + buffers * alignment;
}

/// The threads that share one key/value head in the backward pass: thread `rank` of `size` takes every
/// size-th tile of keys. A tile's part of dq is added to a row after those of all earlier tiles: a
/// thread follows the one that has the tile before.
struct TileTeam {
  int rank = 0, size = 1;
  const ThreadProgress* before = nullptr;  ///< of the thread with the tile before; null alone
  ThreadProgress* mine = nullptr;
};

/// Floats of scratch that a thread needs for the gradients; the first line holds its ThreadProgress.
constexpr std::int64_t attention_backward_scratch(std::int64_t head_dim) {
  const std::int64_t width = round_up(head_dim, panel_width);
  return alignment / 4 + attention_tile * (4 * width + 2 * head_dim) +
         attention_backward_rows * (3 * width + 2 * attention_tile);
}

/// Scratch of one thread for attention with heads of HeadDim values.
template <int HeadDim, class R>
using AttentionScratch = PerThread<R, static_cast<int>(attention_scratch_bytes(HeadDim) / 4)>;
template <int HeadDim, class R>
using AttentionBackwardScratch =
    PerThread<R, static_cast<int>(attention_backward_scratch(HeadDim))>;

/// Earliest position that the query at `position` sees.
constexpr std::int64_t first_visible(std::int64_t position, std::int64_t window) {
  return position < window ? 0 : position - window + 1;
}

/// What a launcher takes: the arguments as of the chunk's first row, without rings, the rings, and
/// scratch: `scratch_size` values of each thread.
template <class R, class KV>
struct AttentionChunk {
  AttentionArgs<R, KV> args;
  RingData<KV> ring_k, ring_v;
  bool update_rings;
  Real<R>* scratch;
  std::int64_t scratch_size;
};
template <class R, class KV>
struct AttentionBackwardChunk {
  AttentionBackwardArgs<R, KV> args;
  RingData<KV> ring_k, ring_v;
  RingData<R> dring_k, dring_v;
  R* scratch;
  std::int64_t scratch_size;
};
template <class R, class KV>
struct UpdateRingsChunk {
  AttentionArgs<R, KV> args;  ///< k and v are used
  RingData<KV> ring_k, ring_v;
};
template <class R>
struct UpdateRingsBackwardChunk {
  AttentionBackwardArgs<R, R> args;  ///< dk and dv are used
  RingData<R> dring_k, dring_v;
};

/// How scores become weights, besides the softmax.
template <class R>
struct AttentionScores {
  float scale_dim = 0;  ///< q k^T is divided by its square root; 0: head_dim
  float cap = 0;  ///< scores s become cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118); 0: none
  /// (n_heads) or null: for each query head the score of a key without a value, which every query
  /// sees (gpt-oss, arXiv 2508.10925), so that the weights of the others add up to less than 1.
  const R* sinks = nullptr;
};

/// The arguments of attention.
template <class P, int KvHeads, int Group, int HeadDim>
struct GroupedAttention {
  Heads<const Act<P>, KvHeads, Group, HeadDim> q;  ///< turned already
  Heads<const Act<P>, KvHeads, 1, HeadDim> k, v;   ///< k turned already
  /// Each sequence's rings of earlier keys and values.
  const RingData<KeyValue<P>>&ring_k, &ring_v;
  std::int64_t window;  ///< keys a query sees, its own included
  AttentionScores<Real<P>> scores = {};
  Out<P, KvHeads * Group * HeadDim> out;
  Optional<Out<P, KvHeads * Group>> log_sum = {};  ///< log(sum(exp(scores))), for the backward pass
  bool update_rings = true;  ///< false: the rings stay as they are; see update_rings
  const AttentionScratch<HeadDim, Real<P>>& scratch;
};

/// The arguments of attention_backward.
template <class P, int KvHeads, int Group, int HeadDim>
struct GroupedAttentionBackward {
  Heads<const Act<P>, KvHeads, Group, HeadDim> q;
  Heads<const Act<P>, KvHeads, 1, HeadDim> k, v;
  const RingData<KeyValue<P>>&ring_k, &ring_v;  ///< as the forward pass found them
  std::int64_t window;
  AttentionScores<Real<P>> scores = {};
  In<P, KvHeads * Group * HeadDim> out;           ///< as attention wrote it
  RowsArgument<Act<P>, KvHeads * Group> log_sum;  ///< as attention wrote it
  In<P, KvHeads * Group * HeadDim> dout;          ///< the gradient of out
  Heads<Act<P>, KvHeads, Group, HeadDim> dq;      ///< written
  Heads<Act<P>, KvHeads, 1, HeadDim> dk, dv;      ///< written; added to without update_rings
  /// The gradients of the rings as they were left, then as they were found; without update_rings added
  /// to.
  const RingData<Real<P>>&dring_k, &dring_v;
  bool update_rings = true;   ///< as attention had it
  Real<P>* dsinks = nullptr;  ///< (n_heads), added to, with sinks
  const AttentionBackwardScratch<HeadDim, Real<P>>& scratch;
};

/// The arguments of update_rings.
template <class P, int KvHeads, int HeadDim>
struct UpdateRings {
  Heads<const Act<P>, KvHeads, 1, HeadDim> k, v;  ///< k turned already
  const RingData<KeyValue<P>>&ring_k, &ring_v;
};
/// The arguments of update_rings_backward.
template <class P, int KvHeads, int HeadDim>
struct UpdateRingsBackward {
  Heads<Act<P>, KvHeads, 1, HeadDim> dk, dv;  ///< added to
  const RingData<Real<P>>&dring_k, &dring_v;  ///< as the rings were left, then as they were found
};

namespace detail {

/// The arguments of a chunk's first row, without rings and what is written.
template <class P, int KvHeads, int Group, int HeadDim>
AttentionArgs<Act<P>, KeyValue<P>> attention_args(const auto& a) {
  return {.q = a.q,
          .k = a.k,
          .v = a.v,
          .ring_k = nullptr,
          .ring_v = nullptr,
          .n_slots = a.ring_k.n_slots,
          .window = a.window,
          .position = 0,
          .rows = a.q.rows,
          .n_kv_heads = KvHeads,
          .group = Group,
          .head_dim = HeadDim,
          .divisor = std::sqrt(a.scores.scale_dim > 0 ? static_cast<Real<P>>(a.scores.scale_dim)
                                                      : static_cast<Real<P>>(HeadDim)),
          .cap = static_cast<Real<P>>(a.scores.cap),
          .sinks = a.scores.sinks,
          .out = const_cast<Act<P>*>(a.out.data),
          .out_stride = a.out.stride,
          .log_sum = a.log_sum.data};
}

}  // namespace detail

/// Grouped-query attention of every sequence of the chunk, causal, over the last `window` keys with
/// including the query's own: softmax(q k^T / sqrt(HeadDim)) v, or as AttentionScores says. If KV is bf16, all operands are rounded to it:
/// queries, the chunk's own keys and values, softmax weights.
template <int KvHeads, int Group, int HeadDim, class P>
void attention(const Context<P>& c,
               const std::type_identity_t<GroupedAttention<P, KvHeads, Group, HeadDim>>& a) {
  static_assert(Group <= attention_rows,
                "attention: more query heads per key/value head than a block of rows");
  samba::detail::launch_on(c, AttentionChunk<Act<P>, KeyValue<P>>{
                                  .args = detail::attention_args<P, KvHeads, Group, HeadDim>(a),
                                  .ring_k = a.ring_k,
                                  .ring_v = a.ring_v,
                                  .update_rings = a.update_rings,
                                  .scratch = a.scratch.data,
                                  .scratch_size = std::remove_cvref_t<decltype(a.scratch)>::size});
}

/// The gradients of attention.
template <int KvHeads, int Group, int HeadDim, class P>
void attention_backward(
    const Context<P>& c,
    const std::type_identity_t<GroupedAttentionBackward<P, KvHeads, Group, HeadDim>>& a) {
  samba::detail::launch_on(
      c, AttentionBackwardChunk<Act<P>, KeyValue<P>>{
             .args = {.forward = detail::attention_args<P, KvHeads, Group, HeadDim>(a),
                      .dout = a.dout.data,
                      .dout_stride = a.dout.stride,
                      .dq = a.dq,
                      .dk = a.dk,
                      .dv = a.dv,
                      .dring_k = nullptr,
                      .dring_v = nullptr,
                      .dsinks = a.scores.sinks ? a.dsinks : nullptr,
                      .update_rings = a.update_rings},
             .ring_k = a.ring_k,
             .ring_v = a.ring_v,
             .dring_k = a.dring_k,
             .dring_v = a.dring_v,
             .scratch = a.scratch.data,
             .scratch_size = std::remove_cvref_t<decltype(a.scratch)>::size});
}

/// The rings take the last keys and values of each sequence of the chunk: what attention does at its
/// end, unless others are to see the rings as they were.
template <int KvHeads, int HeadDim, class P>
void update_rings(const Context<P>& c,
                  const std::type_identity_t<UpdateRings<P, KvHeads, HeadDim>>& a) {
  AttentionArgs<Act<P>, KeyValue<P>> args{};
  args.k = a.k;
  args.v = a.v;
  args.n_slots = a.ring_k.n_slots;
  args.n_kv_heads = KvHeads;
  args.head_dim = HeadDim;
  samba::detail::launch_on(c, UpdateRingsChunk<Act<P>, KeyValue<P>>{
                                  .args = args, .ring_k = a.ring_k, .ring_v = a.ring_v});
}

/// The gradients of update_rings: those of slots that it wrote move to the rows it wrote there.
template <int KvHeads, int HeadDim, class P>
void update_rings_backward(
    const Context<P>& c, const std::type_identity_t<UpdateRingsBackward<P, KvHeads, HeadDim>>& a) {
  AttentionBackwardArgs<Act<P>, Act<P>> args{};
  args.dk = a.dk;
  args.dv = a.dv;
  args.forward.n_slots = a.dring_k.n_slots;
  args.forward.n_kv_heads = KvHeads;
  args.forward.head_dim = HeadDim;
  samba::detail::launch_on(c, UpdateRingsBackwardChunk<Act<P>>{
                                  .args = args, .dring_k = a.dring_k, .dring_v = a.dring_v});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
