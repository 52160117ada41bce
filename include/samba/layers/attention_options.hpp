#pragma once
#include <samba/core/options.hpp>
#include <samba/kernels/attention.hpp>
#include <samba/kernels/rope.hpp>
#include <samba/layers/norm.hpp>

#include <limits>

namespace samba::inline SAMBA_TARGET {

/// What RMSNorm normalises in queries and keys.
enum class QkNorm {
  off,
  head,  ///< each head, all with the same weights (Gemma 3, Qwen 3)
  token  ///< all heads of a token together, each with its own weights (OLMo 2 and 3)
};

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
  bool bias = false;                         ///< biases of the qkv and output projections
  bool qkv_bias = false, proj_bias = false;  ///< or of one of them
  /// Positions of the first training, for the scaled frequencies of Llama 3.1; 0: they are not scaled.
  int rope_original_positions = 0;
  float rope_factor = 8.f;            ///< that low frequencies are divided by
  float rope_low_freq_factor = 1.f;   ///< frequencies with fewer turns in those positions are low
  float rope_high_freq_factor = 4.f;  ///< and with more turns they stay
  float rope_linear_factor = 1.f;     ///< or positions are divided by this (linear scaling)
  QkNorm qk_norm = QkNorm::off;       ///< RMSNorm of queries and keys, before the rotation
  bool qk_norm_plus_one = false;      ///< its stored weights are the scale minus 1
  float scale_dim = 0;                ///< q k^T is divided by its square root; 0: head_dim
  float score_cap = 0;  ///< scores s become cap * tanh(s / cap) (arXiv 2408.00118); 0: they stay
  bool sinks =
      false;  ///< a learned score per query head of a key without a value (arXiv 2508.10925)
  bool gate = false;  ///< outputs are multiplied by sigmoid(W_g u) (arXiv 2505.06708)

  friend constexpr bool operator==(const AttentionOptions&, const AttentionOptions&) = default;
};

namespace detail {

/// The channels of a head that turn.
constexpr int rotary_channels(bool rope, float fraction, int head_dim) {
  return rope ? static_cast<int>(fraction * static_cast<float>(head_dim)) : 0;
}

/// Calls f(name, value) for the options of a layer of attention, none of which is left to be derived,
/// that its structure line has. window: 0 without one.
[[gnu::cold]] constexpr void visit_attention_options(int window, const AttentionOptions& o,
                                                     auto&& f) {
  f("n_heads", o.n_heads);
  f("n_kv_heads", o.n_kv_heads);
  f("head_dim", o.head_dim);
  if (window > 0) f("window", window);
  const int rotary = rotary_channels(o.rope, o.rotary_fraction, o.head_dim);
  f("rotary", rotary);
  if (rotary > 0) {
    f("rope_theta", o.rope_theta);
    f("rope_table", o.rope_table == RopeTable::exact ? "exact" : "bfloat16");
    if (o.rope_original_positions > 0) {
      f("rope_original_positions", o.rope_original_positions);
      f("rope_factor", o.rope_factor);
      f("rope_low_freq_factor", o.rope_low_freq_factor);
      f("rope_high_freq_factor", o.rope_high_freq_factor);
    }
    if (o.rope_linear_factor != 1) f("rope_linear_factor", o.rope_linear_factor);
  }
  const bool qkv_bias = o.bias || o.qkv_bias, proj_bias = o.bias || o.proj_bias;
  f("bias", qkv_bias && proj_bias);
  if (qkv_bias != proj_bias) f(qkv_bias ? "qkv_bias" : "proj_bias", true);
  if (o.qk_norm != QkNorm::off) {
    f("qk_norm", o.qk_norm == QkNorm::head ? "head" : "token");
    if (o.qk_norm_plus_one) f("qk_norm_plus_one", true);
  }
  if (o.scale_dim > 0) f("scale_dim", o.scale_dim);
  if (o.score_cap > 0) f("score_cap", o.score_cap);
  if (o.sinks) f("sinks", true);
  if (o.gate) f("gate", true);
}

/// The sizes of a layer of attention, and what is said of them.
template <int D, int Window, AttentionOptions O>
struct AttentionSizes {
  static constexpr int d_model = D, window = Window;
  static constexpr int head_dim = O.head_dim ? O.head_dim : O.n_heads ? D / O.n_heads : 128;
  static constexpr int n_heads = O.n_heads ? O.n_heads : D / head_dim;
  static constexpr int n_kv_heads = O.n_kv_heads ? O.n_kv_heads : n_heads;
  static constexpr int group = n_heads / n_kv_heads;
  static constexpr int rotary = rotary_channels(O.rope, O.rotary_fraction, head_dim);
  static constexpr bool qkv_bias = O.bias || O.qkv_bias, proj_bias = O.bias || O.proj_bias;
  static constexpr bool unbounded = Window == 0, sinks = O.sinks, gate = O.gate;
  // Constants of their own: clang 14 reads an option at run time from the wrong place in O.
  static constexpr float rope_theta = O.rope_theta, rotary_fraction = O.rotary_fraction;
  static constexpr RopeTable rope_table = O.rope_table;
  static constexpr kernels::RopeScaling rope_scaling{O.rope_original_positions, O.rope_factor,
                                                     O.rope_low_freq_factor,
                                                     O.rope_high_freq_factor, O.rope_linear_factor};
  static constexpr QkNorm qk_norm = O.qk_norm;
  static constexpr NormOptions qk_norm_options{.plus_one = O.qk_norm_plus_one};
  static constexpr float scale_dim = O.scale_dim, score_cap = O.score_cap;
  static_assert(scale_dim >= 0 && score_cap >= 0,
                "SWA, Attention: scale_dim and score_cap must not be negative");
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
  static_assert(O.rope_linear_factor > 0 &&
                    (O.rope_linear_factor == 1 || O.rope_original_positions == 0),
                "SWA, Attention: rope_linear_factor must be positive, and 1 with "
                "rope_original_positions");
  static_assert(
      O.rotary_fraction >= 0 && O.rotary_fraction <= 1 && rotary % 2 == 0,
      "SWA, Attention: rotary_fraction must lie in [0, 1] and make an even number of channels");

  static constexpr void visit_options(auto&& f) {
    visit_attention_options(window,
                            {.n_heads = n_heads,
                             .n_kv_heads = n_kv_heads,
                             .head_dim = head_dim,
                             .rope = rotary > 0,
                             .rope_theta = rope_theta,
                             .rotary_fraction = rotary_fraction,
                             .rope_table = rope_table,
                             .bias = qkv_bias && proj_bias,
                             .qkv_bias = qkv_bias,
                             .proj_bias = proj_bias,
                             .rope_original_positions = rope_scaling.original,
                             .rope_factor = rope_scaling.factor,
                             .rope_low_freq_factor = rope_scaling.low,
                             .rope_high_freq_factor = rope_scaling.high,
                             .rope_linear_factor = rope_scaling.linear,
                             .qk_norm = qk_norm,
                             .qk_norm_plus_one = qk_norm_options.plus_one,
                             .scale_dim = scale_dim,
                             .score_cap = score_cap,
                             .sinks = sinks,
                             .gate = gate},
                            f);
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

}  // namespace samba::inline SAMBA_TARGET
