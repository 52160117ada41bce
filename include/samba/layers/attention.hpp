#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/kernels/rope.hpp>
#include <samba/layers/key_value_channel.hpp>

#include <limits>

namespace samba::inline SAMBA_TARGET {

/// In n_heads, n_kv_heads and head_dim 0 means derived: head_dim is d_model / n_heads if n_heads is
/// given, else 128; n_heads is d_model / head_dim; n_kv_heads is n_heads.
struct AttentionOptions {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  bool rope = true;             ///< rotary position embedding of queries and keys
  float rope_theta = 10000.f;   ///< base of the rotary frequencies
  float rotary_fraction = 1.f;  ///< share of each head's channels that turn, from the first on
  RopeTable rope_table = RopeTable::exact;
  bool bias = false;  ///< biases of the qkv and output projections
  /// Positions of the first training, for the scaled frequencies of Llama 3.1; 0: they are not scaled.
  int rope_original_positions = 0;
  float rope_factor = 8.f;            ///< that low frequencies are divided by
  float rope_low_freq_factor = 1.f;   ///< frequencies with fewer turns in those positions are low
  float rope_high_freq_factor = 4.f;  ///< and with more turns they stay
};

namespace detail {

/// The sizes of a layer of attention, and what is said of them.
template <int D, int Window, AttentionOptions O>
struct AttentionSizes {
  static constexpr int d_model = D, window = Window;
  static constexpr int head_dim = O.head_dim ? O.head_dim : O.n_heads ? D / O.n_heads : 128;
  static constexpr int n_heads = O.n_heads ? O.n_heads : D / head_dim;
  static constexpr int n_kv_heads = O.n_kv_heads ? O.n_kv_heads : n_heads;
  static constexpr int group = n_heads / n_kv_heads;
  static constexpr int rotary =
      O.rope ? static_cast<int>(O.rotary_fraction * static_cast<float>(head_dim)) : 0;
  static constexpr bool bias = O.bias, unbounded = Window == 0;
  // Constants of their own: clang 14 reads an option at run time from the wrong place in O.
  static constexpr float rope_theta = O.rope_theta;
  static constexpr RopeTable rope_table = O.rope_table;
  static constexpr kernels::RopeScaling rope_scaling{
      O.rope_original_positions, O.rope_factor, O.rope_low_freq_factor, O.rope_high_freq_factor};
  static_assert(O.head_dim || O.n_heads == 0 || D % O.n_heads == 0,
                "SWA, Attention: n_heads must divide d_model, or give head_dim");
  static_assert(O.n_heads || D % head_dim == 0,
                "SWA, Attention: head_dim (128 unless given) must divide d_model, or give n_heads");
  static_assert(n_heads > 0 && n_kv_heads > 0 && head_dim > 0,
                "SWA, Attention: n_heads, n_kv_heads and head_dim must be positive");
  static_assert(n_heads % n_kv_heads == 0,
                "SWA, Attention: n_heads must be a multiple of n_kv_heads");
  static_assert(O.rope_original_positions >= 0 &&
                    (O.rope_original_positions == 0 ||
                     (O.rope_factor > 0 && O.rope_low_freq_factor > 0 &&
                      O.rope_low_freq_factor < O.rope_high_freq_factor)),
                "SWA, Attention: rope_original_positions and rope_factor must be positive, and "
                "rope_low_freq_factor below rope_high_freq_factor");
  static_assert(
      O.rotary_fraction >= 0 && O.rotary_fraction <= 1 && rotary % 2 == 0,
      "SWA, Attention: rotary_fraction must lie in [0, 1] and make an even number of channels");

  static constexpr void visit_options(auto&& f) {
    f("n_heads", n_heads);
    f("n_kv_heads", n_kv_heads);
    f("head_dim", head_dim);
    if constexpr (!unbounded) f("window", window);
    f("rotary", rotary);
    if constexpr (rotary > 0) {
      f("rope_theta", rope_theta);
      f("rope_table", rope_table == RopeTable::exact ? "exact" : "bfloat16");
      if constexpr (rope_scaling.original > 0) {
        f("rope_original_positions", rope_scaling.original);
        f("rope_factor", rope_scaling.factor);
        f("rope_low_freq_factor", rope_scaling.low);
        f("rope_high_freq_factor", rope_scaling.high);
      }
    }
    f("bias", bias);
  }

  /// FLOPs of the token at `position` besides the matrices: scores and weighted values of its keys.
  static constexpr std::int64_t other_flops(std::int64_t position) {
    const std::int64_t keys = unbounded || position < window ? position + 1 : window;
    return keys * (4 * n_heads * head_dim);
  }

 protected:
  static constexpr std::int64_t keys_in_sight =
      unbounded ? (std::numeric_limits<std::int64_t>::max)() : window;

  static const auto& angles() {
    static const kernels::RotaryTable<rotary> table(rope_theta, rope_table, rope_scaling);
    return table;
  }
};

}  // namespace detail

/// Causal attention with grouped queries on d_model channels; Window = 0: over all earlier tokens.
///
///   [q k v] = W_qkv u      q, k turned by their position
///   out = W_o softmax(q k^T / sqrt(head_dim)) v
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
      Sizes::bias;
  static constexpr int d_model = D, kv_width = n_kv_heads * head_dim;
  static constexpr int qkv_width = (n_heads + 2 * n_kv_heads) * head_dim;
  static constexpr bool lends = !std::is_void_v<Lends>;
  using Writes = Channels<Lends>;
  using Rings = std::conditional_t<lends, Lends, KeyValueChannel<n_kv_heads, head_dim, Window>>;
  static_assert(Rings::n_kv_heads == n_kv_heads && Rings::head_dim == head_dim &&
                    Rings::n_slots == Window,
                "SWA, Attention: the KeyValueChannel that it lends must have its n_kv_heads, "
                "head_dim and window");

  template <class T>
  struct Weights {
    Matrix<T, qkv_width, d_model> qkv;
    Matrix<T, d_model, n_heads * head_dim> proj;
    Vector<Real<T>, qkv_width> qkv_bias;
    Vector<Real<T>, d_model> proj_bias;

    static constexpr void visit(auto& w, auto&& f) {
      f("attn.weight", w.qkv);
      if constexpr (bias) f("attn.bias", w.qkv_bias);
      f("proj.weight", w.proj, init::output);
      if constexpr (bias) f("proj.bias", w.proj_bias);
    }
  };

  template <class P>
  using State = typename Rings::template State<P>;

  template <class P>
  struct Scratch {
    Rows<Act<P>, qkv_width> qkv;
    Rows<Act<P>, n_heads * head_dim> y;
    Rows<Act<P>, n_heads> log_sum;
    kernels::AttentionScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.qkv);
      f(t.y);
      f(t.log_sum);
      f(t.tile);
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, qkv_width> qkv;
    Rows<Act<P>, n_heads * head_dim> y;
    kernels::AttentionBackwardScratch<head_dim, Real<P>> tile;

    static void visit(auto& t, auto&& f) {
      f(t.qkv);
      f(t.y);
      f(t.tile);
    }
  };

  /// out = attention(u) for the rows of the chunk; advances the states. u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    const auto [q, k, v] = Fused<Act<P>>(t.qkv);

    matmul(c, w.qkv, w.qkv_bias, u, t.qkv);
    if constexpr (rotary > 0)
      rope<rotary, n_kv_heads, group, head_dim>(c, {.angles = Sizes::angles(), .q = q, .k = k});
    if constexpr (lends) {
      const auto shared = typename Lends::template Views<Act<P>>(c.template write<Lends>());
      copy_heads<n_kv_heads, head_dim>(c, {.from = k, .to = shared.k});
      copy_heads<n_kv_heads, head_dim>(c, {.from = v, .to = shared.v});
    }
    attention<n_kv_heads, group, head_dim>(c, {.q = q,
                                               .k = k,
                                               .v = v,
                                               .ring_k = s.k,
                                               .ring_v = s.v,
                                               .window = Sizes::keys_in_sight,
                                               .out = t.y,
                                               .log_sum = t.log_sum,
                                               .update_rings = !lends,
                                               .scratch = t.tile});
    matmul(c, w.proj, w.proj_bias, t.y, out);
  }

  /// Gradients given dout, the gradient of out, after forward: du is written, g added to. s: the states as
  /// forward found them; ds: the gradients of those it left, then of those it found.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       In<P, D> u, In<P, D> dout, Out<P, D> du) {
    using namespace kernels;
    const auto [q, k, v] = Fused<Act<P>>(t.qkv);
    const auto [dq, dk, dv] = Fused<Act<P>>(d.qkv);

    matmul_backward(c, w.proj,
                    {.x = t.y, .dout = dout, .dw = g.proj, .dbias = g.proj_bias.data(), .dx = d.y});
    if constexpr (lends) {  // their gradients from readers and rings
      const auto shared = typename Lends::template Views<Act<P>>(c.template gradient<Lends>());
      copy_heads<n_kv_heads, head_dim>(c, {.from = shared.k, .to = dk});
      copy_heads<n_kv_heads, head_dim>(c, {.from = shared.v, .to = dv});
    }
    attention_backward<n_kv_heads, group, head_dim>(c, {.q = q,
                                                        .k = k,
                                                        .v = v,
                                                        .ring_k = s.k,
                                                        .ring_v = s.v,
                                                        .window = Sizes::keys_in_sight,
                                                        .out = t.y,
                                                        .log_sum = t.log_sum,
                                                        .dout = d.y,
                                                        .dq = dq,
                                                        .dk = dk,
                                                        .dv = dv,
                                                        .dring_k = ds.k,
                                                        .dring_v = ds.v,
                                                        .update_rings = !lends,
                                                        .scratch = d.tile});
    if constexpr (rotary > 0)
      rope_backward<rotary, n_kv_heads, group, head_dim>(
          c, {.angles = Sizes::angles(), .q = dq, .k = dk});
    matmul_backward(c, w.qkv,
                    {.x = u, .dout = d.qkv, .dw = g.qkv, .dbias = g.qkv_bias.data(), .dx = du});
  }

 private:
  template <class R>
  using Fused = kernels::FusedHeads<R, n_kv_heads, group, head_dim>;
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
