#pragma once
#include <samba/kernels/attention.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace samba::inline SAMBA_TARGET::kernels {

namespace reference {

/// The score of a query and a key with product qk, and its derivative.
template <class R>
R attention_score(R qk, R divisor, R cap) {
  const R score = qk / divisor;
  return cap > 0 ? cap * std::tanh(score / cap) : score;
}
template <class R>
R attention_score_slope(R score, R divisor, R cap) {
  const R t = cap > 0 ? score / cap : R{0};
  return (R{1} - t * t) / divisor;
}

/// softmax(q k^T / divisor) v over the keys j with position - window < j <= position, for the query
/// rows of the range and all query heads of some key/value heads, with cap and sinks as
/// AttentionArgs says. One pass with a running
/// maximum (Milakov & Gimelshein 2018); no scores are stored. All operands are rounded to KV: queries,
/// new keys and values, and weights; their sum is of the weights before rounding.
template <class R, class KV>
void attention(const AttentionArgs<R, KV>& a, Range heads, Range rows) {
  const int D = a.head_dim;
  const auto rounded = [](R x) { return static_cast<R>(static_cast<KV>(x)); };
  for (std::int64_t i = rows.begin; i < rows.end; ++i)
    for (std::int64_t head = heads.begin * a.group; head < heads.end * a.group; ++head) {
      const std::int64_t g = head / a.group;
      const R* const q = a.q.at(i, g) + head % a.group * D;
      R* out = a.out + i * a.out_stride + head * D;
      const bool sink = a.sinks != nullptr;
      R maximum = sink ? a.sinks[head] : R{0}, total = sink;
      for (int d = 0; d < D; ++d) out[d] = 0;

      const std::int64_t begin = first_visible(a.position + i, a.window);
      for (std::int64_t j = begin; j <= a.position + i; ++j) {
        const R *const own_k = a.k.at(j - a.position, g), *const own_v = a.v.at(j - a.position, g);
        const std::int64_t at = (g * a.n_slots + j % a.n_slots) * D;
        const bool old = j < a.position;
        const auto key = [&](int d) {
          return old ? static_cast<R>(a.ring_k[at + d]) : rounded(own_k[d]);
        };
        const auto value = [&](int d) {
          return old ? static_cast<R>(a.ring_v[at + d]) : rounded(own_v[d]);
        };

        R score = 0;
        for (int d = 0; d < D; ++d) score += rounded(q[d]) * key(d);
        score = attention_score(score, a.divisor, a.cap);
        const R new_maximum = total == 0 || score > maximum ? score : maximum;
        const R keep = total == 0 ? R{0} : std::exp(maximum - new_maximum);
        const R weight = std::exp(score - new_maximum);
        for (int d = 0; d < D; ++d) out[d] = keep * out[d] + rounded(weight) * value(d);
        total = keep * total + weight;
        maximum = new_maximum;
      }
      for (int d = 0; d < D; ++d) out[d] /= total;
      if (a.log_sum) a.log_sum[i * a.n_kv_heads * a.group + head] = maximum + std::log(total);
    }
}

/// For some rows of one key/value head: the rings take the keys and values.
template <class R, class KV>
void update_rings(const AttentionArgs<R, KV>& a, std::int64_t head, Range rows, KV* ring_k,
                  KV* ring_v) {
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    if (i < a.rows - a.n_slots) continue;  // a later row has its slot
    const R *const key = a.k.at(i, head), *const value = a.v.at(i, head);
    const std::int64_t at = (head * a.n_slots + (a.position + i) % a.n_slots) * a.head_dim;
    for (int d = 0; d < a.head_dim; ++d) {
      ring_k[at + d] = static_cast<KV>(key[d]);
      ring_v[at + d] = static_cast<KV>(value[d]);
    }
  }
}

/// The gradients of the slots that update_rings wrote are added to those of the rows; the slots' values
/// before it have none.
template <class R, class KV>
void update_rings_backward(const AttentionBackwardArgs<R, KV>& b, std::int64_t head, Range rows) {
  const AttentionArgs<R, KV>& a = b.forward;
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    if (i < a.rows - a.n_slots) continue;
    R *const dkey = b.dk.at(i, head), *const dvalue = b.dv.at(i, head);
    const std::int64_t at = (head * a.n_slots + (a.position + i) % a.n_slots) * a.head_dim;
    for (int d = 0; d < a.head_dim; ++d) {
      dkey[d] += std::exchange(b.dring_k[at + d], R{0});
      dvalue[d] += std::exchange(b.dring_v[at + d], R{0});
    }
  }
}

/// What attention_backward adds to, for some rows: the gradients of queries are 0; where attention
/// updated the rings, those of keys and values come from there.
template <class R, class KV>
void attention_backward_start(const AttentionBackwardArgs<R, KV>& b, std::int64_t head,
                              Range rows) {
  const AttentionArgs<R, KV>& a = b.forward;
  for (std::int64_t i = rows.begin; i < rows.end; ++i) {
    std::fill_n(b.dq.at(i, head), a.group * a.head_dim, R{0});
    if (!b.update_rings) continue;
    std::fill_n(b.dk.at(i, head), a.head_dim, R{0});
    std::fill_n(b.dv.at(i, head), a.head_dim, R{0});
  }
  if (b.update_rings) update_rings_backward(b, head, rows);
}

/// The gradients of the sinks of one key/value head: each is a key with a value of 0, so that its
/// score's gradient is -p sum(p dp), and sum(p dp) = dout out.
template <class R, class KV>
void attention_backward_sinks(const AttentionBackwardArgs<R, KV>& b, std::int64_t g) {
  const AttentionArgs<R, KV>& a = b.forward;
  for (std::int64_t i = 0; i < a.rows; ++i)
    for (std::int64_t head = g * a.group; head < (g + 1) * a.group; ++head) {
      const R* const out = a.out + i * a.out_stride + head * a.head_dim;
      const R* const dout = b.dout + i * b.dout_stride + head * a.head_dim;
      R mean = 0;
      for (int d = 0; d < a.head_dim; ++d) mean += out[d] * dout[d];
      const R p = std::exp(a.sinks[head] - a.log_sum[i * a.n_kv_heads * a.group + head]);
      b.dsinks[head] -= p * mean;
    }
}

/// The gradients for the query heads of some key/value heads. With p the softmax weights of a query,
/// dp = dout v and ds = p (dp - sum(p dp)) score'(qk), score' = 1 / divisor without a cap:
///   dv += p dout    dq += ds k    dk += ds q
/// Scores are recomputed; none is stored. Rounding to KV counts as the identity.
template <class R, class KV>
void attention_backward(const AttentionBackwardArgs<R, KV>& b, Range heads) {
  const AttentionArgs<R, KV>& a = b.forward;
  const int D = a.head_dim;
  const auto rounded = [](R x) { return static_cast<R>(static_cast<KV>(x)); };
  for (std::int64_t g = heads.begin; g < heads.end; ++g) {
    attention_backward_start(b, g, {0, a.rows});
    for (std::int64_t i = 0; i < a.rows; ++i)
      for (int head = 0; head < a.group; ++head) {
        const R* const q = a.q.at(i, g) + head * D;
        R* const dq = b.dq.at(i, g) + head * D;
        const R* const dout = b.dout + i * b.dout_stride + (g * a.group + head) * D;

        // Calls f(score, dp, key(d), dkey, dvalue) for every key in sight.
        const auto each_key = [&](auto f) {
          for (std::int64_t j = first_visible(a.position + i, a.window); j <= a.position + i; ++j) {
            const std::int64_t at = (g * a.n_slots + j % a.n_slots) * D;
            const R *const own_k = a.k.at(j - a.position, g), *const own_v =
                                                                  a.v.at(j - a.position, g);
            const bool old = j < a.position;
            const auto key = [&](int d) {
              return old ? static_cast<R>(a.ring_k[at + d]) : rounded(own_k[d]);
            };
            R score = 0, dp = 0;
            for (int d = 0; d < D; ++d) {
              score += rounded(q[d]) * key(d);
              dp += dout[d] * (old ? static_cast<R>(a.ring_v[at + d]) : rounded(own_v[d]));
            }
            f(attention_score(score, a.divisor, a.cap), dp, key,
              old ? b.dring_k + at : b.dk.at(j - a.position, g),
              old ? b.dring_v + at : b.dv.at(j - a.position, g));
          }
        };
        const bool sink = a.sinks != nullptr;
        R maximum = sink ? a.sinks[g * a.group + head] : R{0};  // of the scores
        R total = sink, mean = 0;                               // of the weights; of dp
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
          const R p = std::exp(score - maximum) / total,
                  ds = p * (dp - mean) * attention_score_slope(score, a.divisor, a.cap);
          for (int d = 0; d < D; ++d) {
            dvalue[d] += p * dout[d];
            dq[d] += ds * key(d);
            dkey[d] += ds * rounded(q[d]);
          }
        });
      }
  }
}

}  // namespace reference
}  // namespace samba::inline SAMBA_TARGET::kernels
