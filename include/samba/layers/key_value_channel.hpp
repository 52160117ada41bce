#pragma once
#include <samba/kernels/attention.hpp>

namespace samba::inline SAMBA_TARGET {

/// The keys and values that one attention layer computes for later layers without their own
/// (cross-layer sharing: YOCO, arXiv 2405.05254; SambaY, arXiv 2507.06607; Gemma 3n):
///
///   struct Cache : KeyValueChannel<n_kv_heads, head_dim, window> {};
///   HybridStack<..., SWA<window, AttentionOptions{...}, Cache>, ..., CrossAttention<Cache>, ...>
///
/// A row of the channel holds a token's keys, already rotated, and then its values. The channel
/// also lends the writing layer's state, its rings of earlier tokens; Slots = 0: as many slots as
/// the session's capacity. The rings do not change while a chunk passes through the branches;
/// afterwards they take the chunk's last rows.
template <int KvHeads, int HeadDim, int Slots>
struct KeyValueChannel : Channel<2 * KvHeads * HeadDim> {
  static_assert(KvHeads > 0 && HeadDim > 0 && Slots >= 0,
                "KeyValueChannel<n_kv_heads, head_dim, window>: expected positive heads and width, "
                "and a window of 0 (all tokens) or more");
  static constexpr bool lends_state = true;
  static constexpr int n_kv_heads = KvHeads, head_dim = HeadDim, n_slots = Slots;

  template <class P>
  struct State {
    using KV = KeyValue<P>;
    static_assert(
        std::is_same_v<KV, float> || std::is_same_v<KV, bf16> ||
            (std::is_same_v<KV, double> && std::is_same_v<Real<P>, double>),
        "SWA, Attention: KV, the type of keys and values, must be float or bf16, or double "
        "with weights in double");
    Ring<KV, KvHeads, Slots, HeadDim> k, v;
    /// One slot is enough if nothing from before a chunk is read: see LanguageModel::place_states.
    static constexpr bool any_slots = true;

    static constexpr void visit(auto& s, auto&& f) {
      f("k", s.k);
      f("v", s.v);
    }
  };

  /// Keys and values in the rows of the channel: (rows, n_kv_heads, head_dim) each.
  template <class R>
  struct Views {
    kernels::Heads<R, KvHeads, 1, HeadDim> k, v;

    explicit Views(Rows<R, 2 * KvHeads * HeadDim> x)
        : k(first<KvHeads * HeadDim>(x)), v(last<KvHeads * HeadDim>(x)) {}
  };

  /// Stores the last rows of a chunk in s, at the end of the chunk.
  template <class P>
  static void update(const Context<P>& c, Rows<const Act<P>, 2 * KvHeads * HeadDim> rows,
                     const State<P>& s) {
    const Views<const Act<P>> x(rows);
    kernels::update_rings<KvHeads, HeadDim>(c, {.k = x.k, .v = x.v, .ring_k = s.k, .ring_v = s.v});
  }
  /// The gradients of update: drows is added to; ds: on entry the gradients of the state after the
  /// chunk, on return those of the state before it.
  template <class P>
  static void update_backward(const Context<P>& c, Rows<Act<P>, 2 * KvHeads * HeadDim> drows,
                              const State<Gradients<P>>& ds) {
    const Views<Act<P>> d(drows);
    kernels::update_rings_backward<KvHeads, HeadDim>(
        c, {.dk = d.k, .dv = d.v, .dring_k = ds.k, .dring_v = ds.v});
  }
};

}  // namespace samba::inline SAMBA_TARGET
