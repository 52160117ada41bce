#pragma once
#include <samba/kernels/simd/attention.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// A thread's buffers for a tile of keys and some query rows; rows are padded with zeros from head_dim
/// to a whole panel.
struct AttentionBackwardBuffers {
  float *key = nullptr, *value = nullptr, *dkey = nullptr, *dvalue = nullptr;  ///< (tile, width)
  std::int32_t *keys = nullptr, *values = nullptr;                             ///< the tile, packed
  float *q = nullptr, *dout = nullptr, *dq = nullptr;                          ///< (rows, width)
  float *p = nullptr, *ds = nullptr;                                           ///< (rows, tile)

  /// Places the buffers from `scratch` on, or only counts; returns their floats.
  constexpr std::int64_t place(float* scratch, std::int64_t head_dim) {
    constexpr std::int64_t tile = attention_tile, rows = attention_backward_rows;
    const std::int64_t width = round_up(head_dim, panel_width);
    std::int64_t at = alignment / 4;
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      if (scratch) x = reinterpret_cast<X*>(scratch + at);
      at += n;
    };
    take(key, tile * width);
    take(value, tile * width);
    take(dkey, tile * width);
    take(dvalue, tile * width);
    take(keys, tile * head_dim);
    take(values, tile * head_dim);
    take(q, rows * width);
    take(dout, rows * width);
    take(dq, rows * width);
    take(p, rows * tile);
    take(ds, rows * tile);
    return at;
  }
};

/// to = from rounded to KV: n values, then zeros up to width.
template <class KV, class From>
void load_row(const From* from, std::int64_t n, std::int64_t width, float* to) {
  if constexpr (std::is_same_v<KV, bf16> && std::is_same_v<From, float>)
    for_each_vec({0, n}, [&](std::int64_t d, std::int64_t m) {
      store_part(to + d, rounded_to_bf16(load_part(from + d, m)), m);
    });
  else
    for (std::int64_t d = 0; d < n; ++d) to[d] = static_cast<float>(from[d]);
  std::fill(to + n, to + width, 0.f);
}

inline void add_row(const float* from, std::int64_t n, float* to) {
  for (std::int64_t d = 0; d < n; ++d) to[d] += from[d];
}

}  // namespace detail

static_assert(detail::AttentionBackwardBuffers{}.place(nullptr, 80) ==
              attention_backward_scratch(80));

/// As reference::attention_backward for one key/value head, by tiles of keys and blocks of query
/// rows (Dao et al. 2022): weights come from the forward pass's log_sum, and sum(p dp) = dout out.
/// Operands are rounded to KV as in the forward pass, products are of floats. For the tiles of one
/// thread of a team, after attention_backward_start.
template <class KV>
[[gnu::noinline]] void attention_backward(const AttentionBackwardArgs<float, KV>& b,
                                          std::int64_t head, const TileTeam& team, float* scratch) {
  constexpr std::int64_t tile = attention_tile, most = attention_backward_rows;
  constexpr float log2e = 1.44269504f;
  const AttentionArgs<float, KV>& a = b.forward;
  const int D = a.head_dim;
  const std::int64_t width = round_up(D, panel_width);
  const float scale = 1.f / a.divisor, cap = a.cap * a.divisor;
  detail::AttentionBackwardBuffers t;
  t.place(scratch, D);

  // out += x w for w of (terms, panels) or, packed, of panels of terms; x: element of row i and term
  // g at x[i * x_row + g * x_term].
  const auto add_product = [](const float* x, std::int64_t x_row, std::int64_t x_term,
                              std::int64_t rows, std::int64_t terms, const void* w,
                              std::int64_t w_panel, std::int64_t w_term, float* out,
                              std::int64_t out_width) {
    accumulate<float>({.x = x,
                       .x_stride = x_row,
                       .w = static_cast<const std::byte*>(w),
                       .w_panel = 4 * w_panel,
                       .groups = terms,
                       .out = out,
                       .out_panel = panel_width,
                       .out_stride = out_width,
                       .w_group = 4 * w_term,
                       .x_group = x_term,
                       .cached = true},
                      out_width / panel_width, rows);
  };

  const std::int64_t end = a.position + a.rows, begin = first_visible(a.position, a.window);
  const std::int64_t all = a.rows * a.group;  // query rows
  std::int64_t number = team.rank;            // of the tile
  for (std::int64_t start = (begin / tile + number) * tile; start < end;
       start += team.size * tile, number += team.size) {
    const Range in_sight{(std::max)(begin, start), (std::min)(end, start + tile)};
    const auto slot = [&](std::int64_t j) { return (head * a.n_slots + j % a.n_slots) * D; };
    const float *key_rows[tile], *value_rows[tile];
    for (std::int64_t at = 0; at < tile; ++at) {
      const std::int64_t j = start + at;
      float *const key = t.key + at * width, *const value = t.value + at * width;
      key_rows[at] = key;
      value_rows[at] = value;
      if (j < in_sight.begin || j >= in_sight.end) {
        std::fill_n(key, width, 0.f), std::fill_n(value, width, 0.f);
      } else if (j < a.position) {
        detail::load_row<KV>(a.ring_k + slot(j), D, width, key);
        detail::load_row<KV>(a.ring_v + slot(j), D, width, value);
      } else {
        detail::load_row<KV>(a.k.at(j - a.position, head), D, width, key);
        detail::load_row<KV>(a.v.at(j - a.position, head), D, width, value);
      }
    }
    detail::pack_keys(key_rows, D, 0, t.keys);
    detail::pack_keys(value_rows, D, 0, t.values);
    std::fill_n(t.dkey, tile * width, 0.f), std::fill_n(t.dvalue, tile * width, 0.f);

    // The tokens that see the tile; row r: token r / group, its head r % group.
    const std::int64_t first = std::max<std::int64_t>(0, start - a.position),
                       last = a.window < end - start - tile
                                  ? start + tile + a.window - 1 - a.position
                                  : a.rows;
    for (std::int64_t r = first * a.group, n; r < last * a.group; r += n) {
      n = (std::min)(most, last * a.group - r);
      const auto dq_at = [&](std::int64_t i) {
        return b.dq.at((r + i) / a.group, head) + (r + i) % a.group * D;
      };
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t token = (r + i) / a.group, h = (r + i) % a.group;
        detail::load_row<KV>(a.q.at(token, head) + h * D, D, width, t.q + i * width);
        detail::load_row<float>(b.dout + token * b.dout_stride + (head * a.group + h) * D, D, width,
                                t.dout + i * width);
      }
      std::fill_n(t.p, n * tile, 0.f), std::fill_n(t.ds, n * tile, 0.f);
      std::fill_n(t.dq, n * width, 0.f);
      // Scores and dp, which become weights and ds.
      const std::int64_t packed = std::int64_t{D} * panel_width;
      add_product(t.q, width, 1, n, D, t.keys, packed, panel_width, t.p, tile);
      add_product(t.dout, width, 1, n, D, t.values, packed, panel_width, t.ds, tile);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t token = (r + i) / a.group, h = head * a.group + (r + i) % a.group,
                           position = a.position + token;
        const float* const out = a.out + token * a.out_stride + h * D;
        vec products(0.f);
        for_each_vec({0, D}, [&](std::int64_t d, std::int64_t m) {
          products = fma(load_part(out + d, m), load_part(t.dout + i * width + d, m), products);
        });
        const vec mean(sum(products)),
            log_sum(-log2e * a.log_sum[token * a.n_kv_heads * a.group + h]);
        float *const p = t.p + i * tile, *const ds = t.ds + i * tile;
        if (cap > 0) detail::cap_scores(cap, p);
        for (int j = 0; j < tile; j += lanes) {
          const vec tanh = cap > 0 ? load(p + j) / vec(cap) : vec(0.f);  // of score / cap
          // At most 1, even where scores are so large that log_sum has no digits left for the rest.
          const vec weight =
              exp2_below((xsimd::min)(vec(0.f), fma(load(p + j), vec(scale * log2e), log_sum)));
          store(p + j, weight);
          store(ds + j, weight * (load(ds + j) - mean) * vec(scale) * (vec(1.f) - tanh * tanh));
        }
        const auto hide = [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t j = std::max<std::int64_t>(from, 0); j < (std::min)(to, tile); ++j)
            p[j] = ds[j] = 0;
        };
        hide(0, first_visible(position, a.window) - start);
        hide(position + 1 - start, tile);
      }
      add_product(t.p, 1, tile, tile, n, t.dout, panel_width, width, t.dvalue, width);
      add_product(t.ds, 1, tile, tile, n, t.q, panel_width, width, t.dkey, width);
      add_product(t.ds, tile, 1, n, tile, t.key, panel_width, width, t.dq, width);
      if (team.before) team.before->wait_for((number - 1) * all + r + n);
      for (std::int64_t i = 0; i < n; ++i) detail::add_row(t.dq + i * width, D, dq_at(i));
      if (team.mine) team.mine->reach(number * all + r + n);
    }
    if (team.mine) team.mine->reach((number + 1) * all);

    for (std::int64_t j = in_sight.begin; j < in_sight.end; ++j) {
      const bool old = j < a.position;
      detail::add_row(t.dkey + (j - start) * width, D,
                      old ? b.dring_k + slot(j) : b.dk.at(j - a.position, head));
      detail::add_row(t.dvalue + (j - start) * width, D,
                      old ? b.dring_v + slot(j) : b.dv.at(j - a.position, head));
    }
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
