#pragma once
#include <samba/layers/attention.hpp>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// The options for queries that attend to the keys and values of a channel.
template <class Keys, int D>
constexpr AttentionOptions cross_attention_options(AttentionOptions o) {
  o.n_kv_heads = Keys::n_kv_heads;
  o.head_dim = Keys::head_dim;
  if (o.n_heads == 0) o.n_heads = D / Keys::head_dim;
  return o;
}

}  // namespace detail

/// Attention with its own queries and the keys and values of an earlier layer (YOCO, arXiv
/// 2405.05254, section 2.1; SambaY, arXiv 2507.06607):
///
///   q = W_q u, rotated by its position      out = W_o softmax(q k^T / sqrt(head_dim)) v
///
/// Keys: the KeyValueChannel that the earlier layer lends; its window is also this layer's. Heads
/// are as in AttentionOptions, with the channel's n_kv_heads and head_dim. No state.
template <int D, class Keys, AttentionOptions O>
struct CrossAttentionLayer : detail::AttentionSizes<D, Keys::n_slots, O> {
  using Sizes = detail::AttentionSizes<D, Keys::n_slots, O>;
  static constexpr const char* name = "cross_attention";
  using Sizes::n_heads, Sizes::n_kv_heads, Sizes::head_dim, Sizes::group, Sizes::rotary;
  static constexpr int d_model = D, q_width = n_heads * head_dim;
  using Reads = Channels<Keys>;
  static_assert(Sizes::qk_norm == QkNorm::off && !Sizes::sinks && !Sizes::gate,
                "CrossAttention: qk_norm, sinks and gate are options of SWA and Attention only");

  template <class T>
  struct Weights {
    Matrix<T, q_width, d_model> q;
    Matrix<T, d_model, q_width> proj;
    Vector<Real<T>, q_width> q_bias;
    Vector<Real<T>, d_model> proj_bias;

    static constexpr void visit(auto& w, auto&& f) {
      f("q.weight", w.q);
      if constexpr (Sizes::qkv_bias) f("q.bias", w.q_bias);
      f("proj.weight", w.proj, init::output);
      if constexpr (Sizes::proj_bias) f("proj.bias", w.proj_bias);
    }
  };

  template <class P>
  using State = Stateless;

  template <class P>
  struct Scratch {
    Rows<Act<P>, q_width> q, y;
    Rows<Act<P>, n_heads> log_sum;
    kernels::AttentionScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.q);
      f(t.y);
      f(t.log_sum);
      f(t.tile);
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, q_width> q, y;
    kernels::AttentionBackwardScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.q);
      f(t.y);
      f(t.tile);
    }
  };

  /// out = attention(u) for the rows of the chunk. u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const Stateless&,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    const auto keys = typename Keys::template Views<const Act<P>>(c.template read<Keys>());
    const auto& rings = c.template lent<Keys>();
    const AttentionScores<Real<P>> scores{.scale_dim = Sizes::scale_dim, .cap = Sizes::score_cap};

    matmul(c, w.q, w.q_bias, u, t.q);
    if constexpr (rotary > 0)
      rope<rotary, n_kv_heads, group, head_dim>(c, {.angles = Sizes::angles(), .q = t.q});
    attention<n_kv_heads, group, head_dim>(c, {.q = t.q,
                                               .k = keys.k,
                                               .v = keys.v,
                                               .ring_k = rings.k,
                                               .ring_v = rings.v,
                                               .window = Sizes::keys_in_sight,
                                               .scores = scores,
                                               .out = t.y,
                                               .log_sum = t.log_sum,
                                               .update_rings = false,
                                               .scratch = t.tile});
    matmul(c, w.proj, w.proj_bias, t.y, out);
  }

  /// Gradients, after forward, given dout, the gradient of out: du is written; g and the gradients
  /// of the channel and of the rings are added to.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const Stateless&, const Stateless&,
                       const Scratch<P>& t, const Backward<P>& d, In<P, D> u, In<P, D> dout,
                       Out<P, D> du) {
    using namespace kernels;
    const auto keys = typename Keys::template Views<const Act<P>>(c.template read<Keys>());
    const auto dkeys = typename Keys::template Views<Act<P>>(c.template gradient<Keys>());
    const auto& rings = c.template lent<Keys>();
    const auto& drings = c.template lent_gradient<Keys>();
    const AttentionScores<Real<P>> scores{.scale_dim = Sizes::scale_dim, .cap = Sizes::score_cap};

    matmul_backward(c, w.proj,
                    {.x = t.y, .dout = dout, .dw = g.proj, .dbias = g.proj_bias.data(), .dx = d.y});
    attention_backward<n_kv_heads, group, head_dim>(c, {.q = t.q,
                                                        .k = keys.k,
                                                        .v = keys.v,
                                                        .ring_k = rings.k,
                                                        .ring_v = rings.v,
                                                        .window = Sizes::keys_in_sight,
                                                        .scores = scores,
                                                        .out = t.y,
                                                        .log_sum = t.log_sum,
                                                        .dout = d.y,
                                                        .dq = d.q,
                                                        .dk = dkeys.k,
                                                        .dv = dkeys.v,
                                                        .dring_k = drings.k,
                                                        .dring_v = drings.v,
                                                        .update_rings = false,
                                                        .scratch = d.tile});
    if constexpr (rotary > 0)
      rope_backward<rotary, n_kv_heads, group, head_dim>(c, {.angles = Sizes::angles(), .q = d.q});
    matmul_backward(c, w.q, {.x = u, .dout = d.q, .dw = g.q, .dbias = g.q_bias.data(), .dx = du});
  }
};

/// CrossAttentionLayer with the d_model of the stack.
template <class Keys, auto Options = AttentionOptions{}>
struct CrossAttention {
  static_assert(detail::are_options<AttentionOptions, Options>,
                "CrossAttention<Keys, Options>: write options as AttentionOptions{.n_heads = 8}; "
                "d_model is that of the stack");
  template <int D>
  using with_d_model = CrossAttentionLayer<D, Keys,
                                           detail::cross_attention_options<Keys, D>(
                                               detail::options_of<AttentionOptions, Options>)>;
};

}  // namespace samba::inline SAMBA_TARGET
