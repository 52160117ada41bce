#pragma once
#include <samba/core/chunk.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/attention.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/kernels/rope.hpp>

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
};

/// Causal attention with grouped queries on d_model channels; Window = 0: over all earlier tokens.
///
///   [q k v] = W_qkv u      q, k turned by their position
///   out = W_o softmax(q k^T / sqrt(head_dim)) v
///
/// The query at position i sees the keys j with i - Window < j <= i. The rows of W_qkv are grouped
/// by key/value head: its query heads, its key head, its value head. State per sequence: two rings
/// of Window (or capacity) rows, slot = position % slots, keys already turned.
template <int D, int Window, AttentionOptions O>
struct AttentionLayer {
  static constexpr const char* name = Window ? "swa" : "attention";
  static constexpr int d_model = D, window = Window;
  static constexpr int head_dim = O.head_dim ? O.head_dim : O.n_heads ? D / O.n_heads : 128;
  static constexpr int n_heads = O.n_heads ? O.n_heads : D / head_dim;
  static constexpr int n_kv_heads = O.n_kv_heads ? O.n_kv_heads : n_heads;
  static constexpr int group = n_heads / n_kv_heads, kv_width = n_kv_heads * head_dim;
  static constexpr int qkv_width = (n_heads + 2 * n_kv_heads) * head_dim;
  static constexpr int rotary =
      O.rope ? static_cast<int>(O.rotary_fraction * static_cast<float>(head_dim)) : 0;
  static constexpr bool bias = O.bias, unbounded = Window == 0;
  // Constants of their own: clang 14 reads an option at run time from the wrong place in O.
  static constexpr float rope_theta = O.rope_theta;
  static constexpr RopeTable rope_table = O.rope_table;
  static_assert(O.head_dim || O.n_heads == 0 || D % O.n_heads == 0,
                "SWA, Attention: n_heads must divide d_model, or give head_dim");
  static_assert(O.n_heads || D % head_dim == 0,
                "SWA, Attention: head_dim (128 unless given) must divide d_model, or give n_heads");
  static_assert(n_heads > 0 && n_kv_heads > 0 && head_dim > 0,
                "SWA, Attention: n_heads, n_kv_heads and head_dim must be positive");
  static_assert(n_heads % n_kv_heads == 0,
                "SWA, Attention: n_heads must be a multiple of n_kv_heads");
  static_assert(
      O.rotary_fraction >= 0 && O.rotary_fraction <= 1 && rotary % 2 == 0,
      "SWA, Attention: rotary_fraction must lie in [0, 1] and make an even number of channels");

  template <class T>
  struct Weights {
    Matrix<T, qkv_width, d_model> qkv;
    Matrix<T, d_model, n_heads * head_dim> proj;
    Vector<Real<T>, qkv_width> qkv_bias;
    Vector<Real<T>, d_model> proj_bias;

    static constexpr void visit(auto& w, auto&& f) {
      f("attn.weight", w.qkv);
      if constexpr (bias) f("attn.bias", w.qkv_bias);
      f("proj.weight", w.proj);
      if constexpr (bias) f("proj.bias", w.proj_bias);
    }
  };

  template <class T, class KV>
  struct State {
    static_assert(
        std::is_same_v<KV, float> || std::is_same_v<KV, bf16> ||
            (std::is_same_v<KV, double> && std::is_same_v<Real<T>, double>),
        "SWA, Attention: KV, the type of keys and values, must be float or bf16, or double "
        "beside weights in double");
    Ring<KV, n_kv_heads, Window, head_dim> k, v;
    /// One slot will do where nothing is read from before a chunk: see LanguageModel::place_state.
    static constexpr bool any_slots = true;

    static constexpr void visit(auto& s, auto&& f) {
      f("k", s.k);
      f("v", s.v);
    }
  };

  template <class T>
  struct Scratch {
    Rows<Real<T>, qkv_width> qkv;
    Rows<Real<T>, n_heads * head_dim> y;
    Rows<Real<T>, n_heads> log_sum;
    kernels::AttentionScratch<head_dim, Real<T>> tile;

    static void visit(auto& t, auto&& f) { f(t.qkv), f(t.y), f(t.log_sum), f(t.tile); }
  };

  template <class T>
  struct Backward {
    Rows<Real<T>, qkv_width> qkv;
    Rows<Real<T>, n_heads * head_dim> y;
    kernels::AttentionBackwardScratch<head_dim, Real<T>> tile;

    static void visit(auto& t, auto&& f) { f(t.qkv), f(t.y), f(t.tile); }
  };

  static constexpr void visit_options(auto&& f) {
    f("n_heads", n_heads), f("n_kv_heads", n_kv_heads), f("head_dim", head_dim);
    if constexpr (!unbounded) f("window", window);
    f("rotary", rotary);
    if constexpr (rotary > 0) {
      f("rope_theta", rope_theta);
      f("rope_table", rope_table == RopeTable::exact ? "exact" : "bfloat16");
    }
    f("bias", bias);
  }

  /// FLOPs of the token at `position` beside the matrices: scores and weighted values of its keys.
  static constexpr std::int64_t other_flops(std::int64_t position) {
    const std::int64_t keys = unbounded || position < window ? position + 1 : window;
    return keys * (4 * n_heads * head_dim);
  }

  /// out = attention(u) for the rows of the chunk; advances the states. u, out: (rows, d_model).
  template <class T, class KV>
  static void forward(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s,
                      Scratch<T>& t, In<Real<T>, D> u, Out<Real<T>, D> out) {
    using namespace kernels;
    const auto k = s.tensor(&State<T, KV>::k), v = s.tensor(&State<T, KV>::v);

    matmul(chunk.team, w.qkv, w.qkv_bias.data(), u, t.qkv);
    if constexpr (rotary > 0) rope<head_dim>(chunk, group, angles(), t.qkv);
    attention<head_dim>(chunk, keys_in_sight, t.qkv, k, v, t.tile, t.y, t.log_sum);
    matmul(chunk.team, w.proj, w.proj_bias.data(), t.y, out);
  }

  /// Gradients for dout that of out, after forward: du is written, g added to. s: the states as
  /// forward found them; ds: the gradients of those it left, then of those it found.
  template <class T, class KV>
  static void backward(const Chunk& chunk, const Weights<T>& w, Weights<Master<Real<T>>>& g,
                       States<State<T, KV>> s, States<State<T, Real<T>>> ds, Scratch<T>& t,
                       Backward<T>& d, In<Real<T>, D> u, In<Real<T>, D> dout, Out<Real<T>, D> du) {
    using namespace kernels;
    using S = State<T, KV>;
    using DS = State<T, Real<T>>;
    matmul_backward(chunk.team, w.proj, t.y, dout, g.proj, g.proj_bias.data(), d.y);
    attention_backward<head_dim>(chunk, keys_in_sight, t.qkv, s.tensor(&S::k), s.tensor(&S::v), t.y,
                                 t.log_sum, d.y, d.qkv, ds.tensor(&DS::k), ds.tensor(&DS::v),
                                 d.tile);
    if constexpr (rotary > 0) rope_backward<head_dim>(chunk, group, angles(), d.qkv);
    matmul_backward(chunk.team, w.qkv, u, d.qkv, g.qkv, g.qkv_bias.data(), du);
  }

 private:
  static constexpr std::int64_t keys_in_sight =
      unbounded ? (std::numeric_limits<std::int64_t>::max)() : window;

  static const auto& angles() {
    static const kernels::RotaryTable<rotary> table(rope_theta, rope_table);
    return table;
  }
};

/// Sliding-window attention over the last Window tokens, the token's own included (Beltagy et al.
/// 2020). d_model comes from the stack it stands in.
template <int Window, auto Options = AttentionOptions{}>
struct SWA {
  static_assert(detail::are_options<AttentionOptions, Options>,
                "SWA<Window, Options>: write options as AttentionOptions{.n_heads = 8}; d_model is "
                "that of the stack");
  static_assert(Window > 0, "SWA<Window>: the window counts the token itself and must be positive");
  template <int D>
  using with_d_model = AttentionLayer<D, Window, detail::options_of<AttentionOptions, Options>>;
};

/// Full causal attention; keeps as many positions as the session has capacity.
template <auto Options = AttentionOptions{}>
struct Attention {
  static_assert(detail::are_options<AttentionOptions, Options>,
                "Attention<Options>: write options as AttentionOptions{.n_heads = 8}; d_model is "
                "that of the stack");
  template <int D>
  using with_d_model = AttentionLayer<D, 0, detail::options_of<AttentionOptions, Options>>;
};

}  // namespace samba::inline SAMBA_TARGET
