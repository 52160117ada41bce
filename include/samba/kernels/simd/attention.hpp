#pragma once
#include <samba/kernels/reference/attention.hpp>
#include <samba/kernels/simd/operand_bf16.hpp>
#include <samba/kernels/simd/transpose.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// A thread's buffers for attention, in its scratch memory.
template <class KV>
struct AttentionBuffers {
  float *out = nullptr, *total = nullptr,
        *maximum = nullptr;  ///< per row: (rows, width), (rows, lanes), (rows)
  typename Operand<KV>::Element *query = nullptr,
                                *weight = nullptr;  ///< queries and some rows' weights, as operands
  KV* rows = nullptr;  ///< keys and values converted to KV, and a row of zeros
  std::int32_t *keys = nullptr, *values = nullptr;  ///< a tile, packed

  /// Places the buffers in `scratch`, or only counts if it is null; returns their bytes.
  constexpr std::int64_t place(std::byte* scratch, std::int64_t head_dim) {
    const std::int64_t width = round_up(head_dim, panel_width),
                       units = Packing<KV>::groups(head_dim);
    std::int64_t at = 0;
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      if (scratch) x = reinterpret_cast<X*>(scratch + at);
      at += round_up(n * static_cast<std::int64_t>(sizeof(X)), alignment);
    };
    take(out, attention_rows * width);
    take(total, attention_rows * lanes);
    take(maximum, attention_rows);
    take(query, attention_rows * units);
    take(weight, attention_tile_rows * attention_tile);
    take(rows, (2 * attention_tile + 1) * head_dim);
    take(keys, attention_tile * units);
    take(values, attention_tile * width);
    return at;
  }
};

static_assert([] {
  for (const std::int64_t head_dim : {1, 7, 8, 64, 80, 128, 256, 1000})
    if (AttentionBuffers<float>{}.place(nullptr, head_dim) > attention_scratch_bytes(head_dim) ||
        AttentionBuffers<bf16>{}.place(nullptr, head_dim) > attention_scratch_bytes(head_dim))
      return false;
  return true;
}());

namespace detail {

/// Packs a tile's keys as a matrix (64 outputs, head_dim inputs). Prefetches the data `ahead`
/// elements past each row, which is packed next.
template <class KV>
[[gnu::noinline]] void pack_keys(const KV* const* keys, int head_dim,
                                 [[maybe_unused]] std::int64_t ahead, std::int32_t* packed) {
  constexpr int group = static_cast<int>(Packing<KV>::group);
  const int units = head_dim / group;  // complete ones
  const std::int64_t all = Packing<KV>::groups(head_dim);
  for (int panel = 0; panel < attention_tile; panel += panel_width, packed += all * panel_width) {
    int u = 0;
    if constexpr (transpose_size > 0)
      for (; u + transpose_size <= units; u += transpose_size)
        for (int r = 0; r < panel_width; r += transpose_size)
          transpose_units(keys + panel + r, u * group, ahead, packed + u * panel_width + r,
                          panel_width);
    for (; u < units; ++u)
      for (int r = 0; r < panel_width; ++r)
        packed[u * panel_width + r] = unit(keys[panel + r] + u * group);
    if constexpr (group > 1)
      if (u < all)  // an odd last bf16
        for (int r = 0; r < panel_width; ++r)
          packed[u * panel_width + r] = keys[panel + r][u * group].bits;
  }
}

/// Packs a tile's values as a matrix (head_dim outputs, 64 inputs).
template <class KV>
[[gnu::noinline]] void pack_values(const KV* const* values, int head_dim, std::int64_t ahead,
                                   std::int32_t* packed) {
  constexpr int group = static_cast<int>(Packing<KV>::group);
  for (int panel = 0; panel < head_dim; panel += panel_width) {
    const auto n = static_cast<std::size_t>((std::min)(head_dim - panel, panel_width));
    KV row[group][panel_width] = {};
    for (int j = 0; j < attention_tile; j += group, packed += panel_width) {
      for (int i = 0; i < group; ++i) {
        __builtin_prefetch(values[j + i] + panel + ahead, 0, 2);
        if constexpr (group == 1) __builtin_prefetch(values[j + i] + panel + ahead + 16, 0, 2);
        if (n == panel_width)
          std::memcpy(row[i], values[j + i] + panel, sizeof(row[i]));
        else
          std::memcpy(row[i], values[j + i] + panel, n * sizeof(KV));
      }
      if constexpr (group == 1)
        std::memcpy(packed, row, sizeof(row));
      else
        for (int d = 0; d < panel_width; ++d)
          packed[d] =
              static_cast<std::int32_t>(row[0][d].bits | std::uint32_t{row[1][d].bits} << 16);
    }
  }
}

/// A row's scores become cap * tanh(score / cap).
[[gnu::noinline]] inline void cap_scores(float cap, float* score) {
  for (int j = 0; j < attention_tile; j += lanes)
    store(score + j, vec(cap) * tanh(load(score + j) / vec(cap)));
}

/// Turns a row's scores into weights, 0 outside `visible`, and updates the running maximum and
/// total (a vector). Returns the factor by which to rescale earlier tiles' weights. scale: that of
/// the scores, times log2(e).
inline float attention_weights(Range visible, float scale, float* score, float& maximum,
                               float* total) {
  const vec lowest(-3.0e38f);
  for (std::int64_t j = 0; j < std::min<std::int64_t>(visible.begin, attention_tile); ++j)
    score[j] = -3.0e38f;
  for (std::int64_t j = std::max<std::int64_t>(visible.end, 0); j < attention_tile; ++j)
    score[j] = -3.0e38f;
  vec highest = lowest;
  for (int j = 0; j < attention_tile; j += lanes) highest = (xsimd::max)(highest, load(score + j));
  const float new_maximum = (std::max)(maximum, greatest(highest));
  const float rescale =
      maximum == new_maximum ? 1.f : exp2_below(vec(scale * (maximum - new_maximum))).get(0);
  vec sum(0.f);
  for (int j = 0; j < attention_tile; j += lanes) {
    const vec s = load(score + j);
    const vec w = exp2_below((s - vec(new_maximum)) * vec(scale));
    const vec visible_weight = xsimd::select(s > lowest, w, vec(0.f));
    sum += visible_weight;
    store(score + j, visible_weight);
  }
  store(total, fma(load(total), vec(rescale), sum));
  maximum = new_maximum;
  return rescale;
}

}  // namespace detail

/// As reference::attention, for a range of heads, in tiles of keys; at most attention_rows rows,
/// counting tokens x group x heads. A tile's keys and values are packed like weights, and the
/// scores and outputs are products with them. scratch: this thread's attention_scratch_bytes.
template <class KV>
[[gnu::noinline]] void attention(const AttentionArgs<float, KV>& a, Range heads, Range rows,
                                 std::byte* scratch) {
  constexpr std::int64_t tile = attention_tile, most_rows = attention_tile_rows,
                         tile_units = tile / Packing<KV>::group;
  const int head_dim = a.head_dim;
  const std::int64_t width = round_up(head_dim, panel_width), units = Packing<KV>::groups(head_dim);
  const std::int64_t per_head = (rows.end - rows.begin) * a.group;
  const std::int64_t all_rows = per_head * (heads.end - heads.begin);
  const float scale = 1.44269504f / a.divisor, cap = a.cap * a.divisor;
  AttentionBuffers<KV> t;
  t.place(scratch, head_dim);
  std::fill_n(t.out, all_rows * width, 0.f);
  std::fill_n(t.total, all_rows * lanes, 0.f);
  std::fill_n(t.maximum, all_rows, -3.0e38f);
  if (a.sinks != nullptr)
    for (std::int64_t r = 0; r < all_rows; ++r) {
      t.maximum[r] = a.divisor * a.sinks[(heads.begin + r / per_head) * a.group + r % a.group];
      t.total[r * lanes] = 1;
    }
  KV* const zeros = t.rows + 2 * tile * head_dim;
  std::fill_n(zeros, head_dim, KV(0.f));
  // Row r of a key/value head is query head r % group of token r / group.
  const auto place = [&](std::int64_t g, std::int64_t r) {
    return (g - heads.begin) * per_head + r;
  };
  for (std::int64_t g = heads.begin; g < heads.end; ++g)
    for (std::int64_t r = 0; r < per_head; ++r)
      Operand<KV>::prepare(a.q.at(rows.begin + r / a.group, g) + r % a.group * head_dim, head_dim,
                           t.query + place(g, r) * units);

  const std::int64_t end = a.position + rows.end;
  const std::int64_t begin = first_visible(a.position + rows.begin, a.window);
  for (std::int64_t g = heads.begin; g < heads.end; ++g)
    for (std::int64_t start = begin / tile * tile; start < end; start += tile) {
      const KV *keys[tile], *values[tile];
      std::int64_t next = start % a.n_slots;
      for (std::int64_t at = 0; at < tile; ++at) {
        const std::int64_t j = start + at, slot = (g * a.n_slots + next) * head_dim;
        if (++next == a.n_slots) next = 0;
        if (j < begin || j >= end) {  // not visible
          keys[at] = values[at] = zeros;
        } else if (j < a.position) {
          keys[at] = a.ring_k + slot;
          values[at] = a.ring_v + slot;
        } else {
          const float* const key = a.k.at(j - a.position, g);
          const float* const value = a.v.at(j - a.position, g);
          if constexpr (std::is_same_v<KV, float>) {
            keys[at] = key;
            values[at] = value;
          } else {
            KV* const copy = t.rows + 2 * at * head_dim;
            round_to_bf16(key, head_dim, copy);
            round_to_bf16(value, head_dim, copy + head_dim);
            keys[at] = copy;
            values[at] = copy + head_dim;
          }
        }
      }
      const std::int64_t ahead = tile * head_dim;
      detail::pack_keys(keys, head_dim, ahead, t.keys);
      // Contiguous rows of floats already have the packed layout.
      const bool in_place = std::is_same_v<KV, float> && head_dim % panel_width == 0 &&
                            start >= begin && start + tile <= a.position &&
                            start % a.n_slots + tile <= a.n_slots;
      if (!in_place) detail::pack_values(values, head_dim, ahead, t.values);
      const auto* const value_panels = in_place ? reinterpret_cast<const std::byte*>(values[0])
                                                : reinterpret_cast<const std::byte*>(t.values);

      for (std::int64_t r = 0, n; r < per_head; r += n) {
        n = (std::min)(most_rows, per_head - r);
        const auto visible = [&](std::int64_t i) {
          const std::int64_t position = a.position + rows.begin + (r + i) / a.group;
          return Range{first_visible(position, a.window) - start, position + 1 - start};
        };
        if (visible(n - 1).end <= 0 || visible(0).begin >= tile) continue;
        alignas(alignment) float score[most_rows * tile];
        std::fill_n(score, n * tile, 0.f);
        accumulate<KV>({.x = t.query + place(g, r) * units,
                        .x_stride = units,
                        .w = reinterpret_cast<const std::byte*>(t.keys),
                        .w_panel = units * Operand<KV>::group_bytes,
                        .groups = units,
                        .out = score,
                        .out_panel = panel_width,
                        .out_stride = tile,
                        .cached = true},
                       tile / panel_width, n);
        for (std::int64_t i = 0; i < n; ++i) {
          const std::int64_t row = place(g, r + i);
          if (cap > 0) detail::cap_scores(cap, score + i * tile);
          const float rescale = detail::attention_weights(visible(i), scale, score + i * tile,
                                                          t.maximum[row], t.total + row * lanes);
          if (rescale != 1.f)
            for (float* o = t.out + row * width; o < t.out + (row + 1) * width; o += lanes)
              store(o, load(o) * vec(rescale));
          Operand<KV>::prepare(score + i * tile, tile, t.weight + i * tile_units);
        }
        accumulate<KV>(
            {.x = t.weight,
             .x_stride = tile_units,
             .w = value_panels,
             .w_panel = in_place ? 4 * panel_width : tile_units * Operand<KV>::group_bytes,
             .groups = tile_units,
             .out = t.out + place(g, r) * width,
             .out_panel = panel_width,
             .out_stride = width,
             .w_group = in_place ? 4 * head_dim : Operand<KV>::group_bytes,
             .cached = true},
            width / panel_width, n);
      }
    }

  for (std::int64_t g = heads.begin; g < heads.end; ++g)
    for (std::int64_t r = 0; r < per_head; ++r) {
      const float* const from = t.out + place(g, r) * width;
      float* const to = a.out + (rows.begin + r / a.group) * a.out_stride +
                        (g * a.group + r % a.group) * head_dim;
      const float total = sum(load(t.total + place(g, r) * lanes));
      const vec scale_out(1.f / total);
      if (a.log_sum)
        a.log_sum[(rows.begin + r / a.group) * a.n_kv_heads * a.group + g * a.group + r % a.group] =
            t.maximum[place(g, r)] / a.divisor + std::log(total);
      for_each_vec({0, head_dim}, [&](std::int64_t d, std::int64_t m) {
        store_part(to + d, load(from + d) * scale_out, m);
      });
    }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
