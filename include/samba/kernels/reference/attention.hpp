#pragma once
#include <samba/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace samba::inline SAMBA_TARGET::kernels {

/// One sequence's queries, its new keys and values (both in the fused rows of qkv) and its rings of
/// earlier ones. A row of qkv holds, for each key/value head, `group` query heads, the key head,
/// the value head.
template <class R, class KV>
struct AttentionArgs {
  const R* qkv;  ///< (n_rows, n_kv_heads * (group + 2) * head_dim)
  std::int64_t qkv_stride;
  const KV* ring_k;  ///< (n_kv_heads, slots, head_dim), slot = position % slots
  const KV* ring_v;
  std::int64_t n_slots;
  std::int64_t window;    ///< keys a query sees, itself included
  std::int64_t position;  ///< of row 0
  std::int64_t n_rows;
  int n_kv_heads, group, head_dim;
  R* out;  ///< (n_rows, n_kv_heads * group * head_dim)
  std::int64_t out_stride;
  R* log_sum;  ///< (n_rows, n_kv_heads * group), of the exponentials of scores; or null
};

/// Keys are taken in tiles [64 t, 64 t + 64) of absolute positions, whatever chunk they came in:
/// every query adds them up in the same order for any split of its sequence.
inline constexpr int attention_tile = 64;

/// Query rows (tokens times heads of a group) that share the keys of a tile.
inline constexpr int attention_rows = 96;

/// Of these, rows whose scores are turned into weights together.
inline constexpr int attention_tile_rows = 12;

/// Bytes of scratch that a thread needs to attend at most, for any KV and instruction set.
constexpr std::int64_t most_attention_scratch_bytes(std::int64_t head_dim) {
  constexpr std::int64_t buffers = 8, vector = 16;
  const std::int64_t width = round_up(head_dim, panel_width);
  const std::int64_t floats = attention_rows * (width + vector + 1 + head_dim + 1) +
                              (2 * attention_tile + 1) * head_dim +
                              attention_tile * (2 * attention_tile_rows + head_dim + 1 + width);
  return 4 * floats + buffers * alignment;
}

/// Earliest position that the query at `position` sees.
constexpr std::int64_t first_visible(std::int64_t position, std::int64_t window) {
  return position < window ? 0 : position - window + 1;
}

/// The gradients of attention of one sequence, dout being that of out. Those of queries and of the
/// chunk's own keys and values go to dqkv; dring: on entry the gradient of the rings as the forward
/// pass left them, then that of the rings as it found them.
template <class R, class KV>
struct AttentionBackwardArgs {
  AttentionArgs<R, KV> forward;  ///< rings as they were before; out as it was written
  const R* dout;                 ///< (n_rows, n_kv_heads * group * head_dim)
  std::int64_t dout_stride;
  R* dqkv;  ///< (n_rows, n_kv_heads * (group + 2) * head_dim)
  std::int64_t dqkv_stride;
  R* dring_k;  ///< (n_kv_heads, slots, head_dim)
  R* dring_v;
};

namespace reference {

/// softmax(q k^T / sqrt(head_dim)) v over the keys j with position - window < j <= position, for the
/// query rows of the range and all query heads of some key/value heads. One pass with a running
/// maximum (Milakov & Gimelshein 2018); no scores are stored. All factors are rounded to KV: queries,
/// new keys and values, and weights, which are added up as they were before.
template <class R, class KV>
void attention(const AttentionArgs<R, KV>& a, Range heads, Range rows) {
  const int D = a.head_dim;
  const auto as_factor = [](R x) { return static_cast<R>(static_cast<KV>(x)); };
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (std::int64_t head = heads.begin * a.group; head < heads.end * a.group; ++head) {
      const std::int64_t g = head / a.group, group_at = g * (a.group + 2) * D;
      const R* q = a.qkv + i * a.qkv_stride + group_at + head % a.group * D;
      R* out = a.out + i * a.out_stride + head * D;
      R maximum = 0, total = 0;
      for (int d = 0; d < D; ++d) out[d] = 0;

      const std::int64_t begin = first_visible(a.position + i, a.window);
      for (std::int64_t j = begin; j <= a.position + i; ++j) {
        const R* row = a.qkv + (j - a.position) * a.qkv_stride + group_at + a.group * D;
        const std::int64_t at = (g * a.n_slots + j % a.n_slots) * D;
        const bool old = j < a.position;
        const auto key = [&](int d) {
          return old ? static_cast<R>(a.ring_k[at + d]) : as_factor(row[d]);
        };
        const auto value = [&](int d) {
          return old ? static_cast<R>(a.ring_v[at + d]) : as_factor(row[D + d]);
        };

        R score = 0;
        for (int d = 0; d < D; ++d) score += as_factor(q[d]) * key(d);
        score /= std::sqrt(static_cast<R>(D));
        const R new_maximum = j == begin || score > maximum ? score : maximum;
        const R keep = j == begin ? R{0} : std::exp(maximum - new_maximum);
        const R weight = std::exp(score - new_maximum);
        for (int d = 0; d < D; ++d) out[d] = keep * out[d] + as_factor(weight) * value(d);
        total = keep * total + weight;
        maximum = new_maximum;
      }
      for (int d = 0; d < D; ++d) out[d] /= total;
      if (a.log_sum) a.log_sum[i * a.n_kv_heads * a.group + head] = maximum + std::log(total);
    }
}

/// The gradients of a sequence's own keys and values begin with those of the ring's slots that it
/// overwrote, which have none before it; those of queries begin with 0.
template <class R, class KV>
void attention_backward_start(const AttentionBackwardArgs<R, KV>& b, std::int64_t head) {
  const AttentionArgs<R, KV>& a = b.forward;
  const int D = a.head_dim;
  for (std::int64_t i = 0; i < a.n_rows; ++i) {
    R* const dq = b.dqkv + i * b.dqkv_stride + head * (a.group + 2) * D;
    R *const dkey = dq + a.group * D, *const dvalue = dkey + D;
    const bool kept = i >= a.n_rows - a.n_slots;
    const std::int64_t at = (head * a.n_slots + (a.position + i) % a.n_slots) * D;
    std::fill(dq, dkey, R{0});
    for (int d = 0; d < D; ++d) {
      dkey[d] = kept ? std::exchange(b.dring_k[at + d], R{0}) : R{0};
      dvalue[d] = kept ? std::exchange(b.dring_v[at + d], R{0}) : R{0};
    }
  }
}

/// The gradients for the query heads of some key/value heads. With p the softmax weights of a query,
/// dp = dout v and ds = p (dp - sum(p dp)) / sqrt(head_dim):
///   dv += p dout    dq += ds k    dk += ds q
/// Scores are computed anew, and none is stored. Roundings to KV have the derivative 1.
template <class R, class KV>
void attention_backward(const AttentionBackwardArgs<R, KV>& b, Range heads) {
  const AttentionArgs<R, KV>& a = b.forward;
  const int D = a.head_dim;
  const R scale = R{1} / std::sqrt(static_cast<R>(D));
  const auto as_factor = [](R x) { return static_cast<R>(static_cast<KV>(x)); };
  for (std::int64_t g = heads.begin; g < heads.end; ++g) {
    const std::int64_t group_at = g * (a.group + 2) * D, own = group_at + a.group * D;
    attention_backward_start(b, g);
    for (std::int64_t i = 0; i < a.n_rows; ++i)
      for (int head = 0; head < a.group; ++head) {
        const R* const q = a.qkv + i * a.qkv_stride + group_at + head * D;
        R* const dq = b.dqkv + i * b.dqkv_stride + group_at + head * D;
        const R* const dout = b.dout + i * b.dout_stride + (g * a.group + head) * D;

        // Calls f(score, dp, key(d), dkey, dvalue) for every key in sight.
        const auto each_key = [&](auto f) {
          for (std::int64_t j = first_visible(a.position + i, a.window); j <= a.position + i; ++j) {
            const std::int64_t at = (g * a.n_slots + j % a.n_slots) * D;
            const R* const row = a.qkv + (j - a.position) * a.qkv_stride + own;
            R* const drow = b.dqkv + (j - a.position) * b.dqkv_stride + own;
            const bool old = j < a.position;
            const auto key = [&](int d) {
              return old ? static_cast<R>(a.ring_k[at + d]) : as_factor(row[d]);
            };
            R score = 0, dp = 0;
            for (int d = 0; d < D; ++d) {
              score += as_factor(q[d]) * key(d);
              dp += dout[d] * (old ? static_cast<R>(a.ring_v[at + d]) : as_factor(row[D + d]));
            }
            f(score * scale, dp, key, old ? b.dring_k + at : drow, old ? b.dring_v + at : drow + D);
          }
        };
        R maximum = 0, total = 0, mean = 0;  // of the scores; of the weights; of dp
        each_key([&](R score, R dp, auto, R*, R*) {
          const R new_maximum = total == 0 || score > maximum ? score : maximum;
          const R keep = total == 0 ? R{0} : std::exp(maximum - new_maximum);
          const R weight = std::exp(score - new_maximum);
          mean = keep * mean + weight * dp;
          total = keep * total + weight;
          maximum = new_maximum;
        });
        mean /= total;
        each_key([&](R score, R dp, auto key, R* dkey, R* dvalue) {
          const R p = std::exp(score - maximum) / total, ds = p * (dp - mean) * scale;
          for (int d = 0; d < D; ++d) {
            dvalue[d] += p * dout[d];
            dq[d] += ds * key(d);
            dkey[d] += ds * as_factor(q[d]);
          }
        });
      }
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
