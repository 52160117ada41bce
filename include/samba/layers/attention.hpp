#pragma once
#include <samba/core/initial.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/layers/key_value_channel.hpp>
#include <samba/layers/query_key_norms.hpp>

namespace samba::inline SAMBA_TARGET {

/// Causal attention with grouped queries on d_model channels; Window = 0: over all earlier tokens.
///
///   [q k v] = W_qkv u      q, k normalised if there is a qk_norm, and turned by their position
///   out = W_o (softmax(q k^T / sqrt(head_dim)) v [* sigmoid(W_g u)])
///
/// The query at position i sees the keys j with i - Window < j <= i. The rows of W_qkv are grouped
/// by key/value head: its query heads, its key head, its value head. State per sequence: two rings
/// of Window (or capacity) rows, slot = position % slots, keys already turned.
/// Lends: a KeyValueChannel that keys and values are written to, for later layers; or void.
template <int D, int Window, AttentionOptions O, class Lends = void>
struct AttentionLayer : detail::AttentionSizes<D, Window, O> {
  using Sizes = detail::AttentionSizes<D, Window, O>;
  static constexpr const char* name = Window ? "swa" : "attention";
  using Sizes::n_heads, Sizes::n_kv_heads, Sizes::head_dim, Sizes::group, Sizes::rotary,
      Sizes::sinks, Sizes::gate;
  static constexpr int d_model = D, kv_width = n_kv_heads * head_dim, y_width = n_heads * head_dim;
  static constexpr int qkv_width = (n_heads + 2 * n_kv_heads) * head_dim;
  static constexpr bool lends = !std::is_void_v<Lends>;
  using Writes = Channels<Lends>;
  using Norms = detail::QueryKeyNorms<Sizes>;
  using Rings = std::conditional_t<lends, Lends, KeyValueChannel<n_kv_heads, head_dim, Window>>;
  static_assert(Rings::n_kv_heads == n_kv_heads && Rings::head_dim == head_dim &&
                    Rings::n_slots == Window,
                "SWA, Attention: the KeyValueChannel that it lends must have its n_kv_heads, "
                "head_dim and window");

  template <class T>
  struct Weights {
    Matrix<T, qkv_width, d_model> qkv;
    Matrix<T, d_model, y_width> proj;
    Vector<Real<T>, qkv_width> qkv_bias;
    Vector<Real<T>, d_model> proj_bias;
    Matrix<T, y_width, d_model> gate_proj;
    Vector<Real<T>, n_heads> sink;
    typename Norms::template Weights<T> norms;

    static constexpr void visit(auto& w, auto&& f) {
      f("attn.weight", w.qkv);
      if constexpr (Sizes::qkv_bias) f("attn.bias", w.qkv_bias);
      f("proj.weight", w.proj, init::output);
      if constexpr (Sizes::proj_bias) f("proj.bias", w.proj_bias);
      if constexpr (gate) f("gate_proj.weight", w.gate_proj);
      if constexpr (sinks) f("sinks", w.sink);
      Norms::template Weights<T>::visit(w.norms, f);
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      Norms::template Weights<T>::visit_derived(w.norms, f);
    }
    void derive() { norms.derive(); }
    void derive_backward(Weights<Master<Real<T>>>& g) const { norms.derive_backward(g.norms); }
  };

  template <class P>
  using State = typename Rings::template State<P>;

  template <class P>
  struct Scratch {
    Rows<Act<P>, qkv_width> qkv;
    Rows<Act<P>, y_width> y, g, gated;
    Rows<Act<P>, n_heads> log_sum;
    typename Norms::template Scratch<P> norms;
    kernels::AttentionScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.qkv);
      f(t.y);
      if constexpr (gate) {
        f(t.g);
        f(t.gated);
      }
      f(t.log_sum);
      Norms::template Scratch<P>::visit(t.norms, f);
      f(t.tile);
    }
    /// What the output projection reads.
    const auto& projected() const { return gate ? gated : y; }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, qkv_width> qkv;
    Rows<Act<P>, y_width> y, g;  // g first holds the gradient of gated
    typename Norms::template Backward<P> norms;
    kernels::AttentionBackwardScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.qkv);
      f(t.y);
      if constexpr (gate) f(t.g);
      Norms::template Backward<P>::visit(t.norms, f);
      f(t.tile);
    }
  };

  /// out = attention(u) for the rows of the chunk; advances the states. u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    const Fused<Act<P>> fused(t.qkv);
    const auto v = fused.v;

    matmul(c, w.qkv, w.qkv_bias, u, t.qkv);
    const auto [q, k] = Norms::forward(c, w.norms, t.norms, {fused.q, fused.k});
    if constexpr (rotary > 0)
      rope<rotary, n_kv_heads, group, head_dim>(c, {.angles = Sizes::angles(), .q = q, .k = k});
    if constexpr (lends) {
      const auto shared = typename Lends::template Views<Act<P>>(c.template write<Lends>());
      copy_heads<n_kv_heads, 1, head_dim>(c, {.from = k, .to = shared.k});
      copy_heads<n_kv_heads, 1, head_dim>(c, {.from = v, .to = shared.v});
    }
    attention<n_kv_heads, group, head_dim>(c, {.q = q,
                                               .k = k,
                                               .v = v,
                                               .ring_k = s.k,
                                               .ring_v = s.v,
                                               .window = Sizes::keys_in_sight,
                                               .scores = scores(w),
                                               .out = t.y,
                                               .log_sum = t.log_sum,
                                               .update_rings = !lends,
                                               .scratch = t.tile});
    if constexpr (gate) {
      matmul(c, w.gate_proj, u, t.g);
      sigmoid_mul<y_width>(c, {.gate = t.g, .up = t.y, .out = t.gated});
    }
    matmul(c, w.proj, w.proj_bias, t.projected(), out);
  }

  /// Gradients given dout, the gradient of out, after forward: du is written, g added to. s: the states as
  /// forward found them; ds: the gradients of those it left, then of those it found.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       In<P, D> u, In<P, D> dout, Out<P, D> du) {
    using namespace kernels;
    const Fused<Act<P>> fused(t.qkv), dfused(d.qkv);
    const auto v = fused.v, dv = dfused.v;
    const auto [q, k] =
        Norms::results(t.norms, typename Norms::template Pair<Act<P>>{fused.q, fused.k});
    const auto [dq, dk] =
        Norms::results(d.norms, typename Norms::template Pair<Act<P>>{dfused.q, dfused.k});

    matmul_backward(c, w.proj,
                    {.x = t.projected(),
                     .dout = dout,
                     .dw = g.proj,
                     .dbias = g.proj_bias.data(),
                     .dx = gate ? d.g : d.y});
    if constexpr (gate)
      sigmoid_mul_backward<y_width>(
          c, {.gate = t.g, .up = t.y, .dout = d.g, .dgate = d.g, .dup = d.y});
    if constexpr (lends) {  // their gradients from readers and rings
      const auto shared = typename Lends::template Views<Act<P>>(c.template gradient<Lends>());
      copy_heads<n_kv_heads, 1, head_dim>(c, {.from = shared.k, .to = dk});
      copy_heads<n_kv_heads, 1, head_dim>(c, {.from = shared.v, .to = dv});
    }
    attention_backward<n_kv_heads, group, head_dim>(c, {.q = q,
                                                        .k = k,
                                                        .v = v,
                                                        .ring_k = s.k,
                                                        .ring_v = s.v,
                                                        .window = Sizes::keys_in_sight,
                                                        .scores = scores(w),
                                                        .out = t.y,
                                                        .log_sum = t.log_sum,
                                                        .dout = d.y,
                                                        .dq = dq,
                                                        .dk = dk,
                                                        .dv = dv,
                                                        .dring_k = ds.k,
                                                        .dring_v = ds.v,
                                                        .update_rings = !lends,
                                                        .dsinks = g.sink.data(),
                                                        .scratch = d.tile});
    if constexpr (rotary > 0)
      rope_backward<rotary, n_kv_heads, group, head_dim>(
          c, {.angles = Sizes::angles(), .q = dq, .k = dk});
    Norms::backward(c, w.norms, g.norms, t.norms, d.norms, {fused.q, fused.k},
                    {dfused.q, dfused.k});
    matmul_backward(c, w.qkv,
                    {.x = u, .dout = d.qkv, .dw = g.qkv, .dbias = g.qkv_bias.data(), .dx = du});
    if constexpr (gate)
      matmul_backward(c, w.gate_proj, {.x = u, .dout = d.g, .dw = g.gate_proj, .dx = add_to(du)});
  }

 private:
  template <class R>
  using Fused = kernels::FusedHeads<R, n_kv_heads, group, head_dim>;
  template <class T>
  static kernels::AttentionScores<Real<T>> scores(const Weights<T>& w) {
    return {.scale_dim = Sizes::scale_dim,
            .cap = Sizes::score_cap,
            .sinks = sinks ? w.sink.data() : nullptr};
  }
};

/// Sliding-window attention over the last Window tokens, the token's own included (Beltagy et al.
/// 2020). d_model comes from the stack. Lends: see KeyValueChannel.
template <int Window, auto Options = AttentionOptions{}, class Lends = void>
struct SWA {
  static_assert(detail::are_options<AttentionOptions, Options>,
                "SWA<Window, Options>: write options as AttentionOptions{.n_heads = 8}; d_model is "
                "that of the stack");
  static_assert(Window > 0, "SWA<Window>: the window counts the token itself and must be positive");
  template <int D>
  using with_d_model =
      AttentionLayer<D, Window, detail::options_of<AttentionOptions, Options>, Lends>;
};

/// Full causal attention; keeps as many positions as the session has capacity.
template <auto Options = AttentionOptions{}, class Lends = void>
struct Attention {
  static_assert(detail::are_options<AttentionOptions, Options>,
                "Attention<Options>: write options as AttentionOptions{.n_heads = 8}; d_model is "
                "that of the stack");
  template <int D>
  using with_d_model = AttentionLayer<D, 0, detail::options_of<AttentionOptions, Options>, Lends>;
};

}  // namespace samba::inline SAMBA_TARGET
