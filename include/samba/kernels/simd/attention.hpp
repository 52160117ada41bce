#pragma once
#include <samba/kernels/reference/attention.hpp>
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// Keys are taken in tiles [64 t, 64 t + 64) of absolute positions, whatever chunk they came in:
/// every query adds them up in the same order for any split of its sequence.
inline constexpr int attention_tile = 64;

/// Query rows (tokens times heads of a group) that share the keys of a tile.
inline constexpr int attention_rows = 64;

/// Floats of scratch per thread: running outputs and sums of the rows, and a tile of widened keys
/// and values.
template <int HeadDim>
inline constexpr int attention_scratch =
    attention_rows * (static_cast<int>(round_up(HeadDim, lanes)) + lanes + 1) +
    2 * attention_tile * HeadDim;

namespace detail {

/// Lane l of the result is the sum of rows[l]: quarters of a row are added up, then four rows
/// interleaved. (In four lanes: xsimd 8.1 interleaves vectors of sixteen in another order.)
inline vec sum_each(const float (*rows)[lanes]) {
  using quad = xsimd::make_sized_batch_t<float, 4>;
  alignas(alignment) float sums[lanes];
  for (int l = 0; l < lanes; l += 4) {
    quad q[4];
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      q[i] = quad::load_unaligned(rows[l + i]);
      for (int j = 4; j < lanes; j += 4) q[i] += quad::load_unaligned(rows[l + i] + j);
    });
    const quad even = xsimd::zip_lo(q[0], q[2]) + xsimd::zip_hi(q[0], q[2]);
    const quad odd = xsimd::zip_lo(q[1], q[3]) + xsimd::zip_hi(q[1], q[3]);
    (xsimd::zip_lo(even, odd) + xsimd::zip_hi(even, odd)).store_unaligned(sums + l);
  }
  return load(sums);
}

/// Vector d of a head.
template <int HeadDim>
inline vec load_head(const float* head, int d) {
  return HeadDim % lanes == 0 ? load(head + d * lanes)
                              : load_part(head + d * lanes, std::min(lanes, HeadDim - d * lanes));
}

/// One query row against one tile: scores, running maximum and sum, and output.
/// keys, values: addresses of the tile's rows; those outside [begin, end) are never read.
template <int HeadDim>
inline void attend_tile(const float* q, const float* const* keys, const float* const* values,
                        int begin, int end, float& maximum, float* total, float* out) {
  constexpr int width = (HeadDim + lanes - 1) / lanes;
  alignas(alignment) float weight[attention_tile];
  vec query[width];
  for (int d = 0; d < width; ++d) query[d] = load_head<HeadDim>(q, d);

  const int first = begin / lanes * lanes, last = (end + lanes - 1) / lanes * lanes;
  alignas(alignment) float index[lanes];
  for (int l = 0; l < lanes; ++l) index[l] = static_cast<float>(l);
  const vec lane = load(index), lowest(-3.0e38f);
  vec highest = lowest;
  for (int j = first; j < last; j += lanes) {
    alignas(alignment) float products[lanes][lanes];
    for (int l = 0; l < lanes; l += 4) {
      const float* key[4];
      vec dot[4];
      unroll<4>([&](auto i) __attribute__((always_inline)) {
        key[i] = keys[std::min(std::max(j + l + i, begin), end - 1)];
        dot[i] = vec(0.f);
      });
      for (int d = 0; d < width; ++d)
        unroll<4>([&](auto i) __attribute__((always_inline)) {
          dot[i] = fma(query[d], load_head<HeadDim>(key[i], d), dot[i]);
        });
      unroll<4>([&](auto i) __attribute__((always_inline)) { store(products[l + i], dot[i]); });
    }
    const vec scale(1.f / std::sqrt(static_cast<float>(HeadDim)));
    const auto seen =
        lane >= vec(static_cast<float>(begin - j)) && lane < vec(static_cast<float>(end - j));
    const vec score = xsimd::select(seen, sum_each(products) * scale, lowest);
    highest = xsimd::max(highest, score);
    store(weight + j, score);
  }

  const float new_maximum = std::max(maximum, max(highest));
  const vec keep = exp(vec(maximum - new_maximum));  // 0 before the first tile, up to e^-87
  vec sum = load(total) * keep;
  for (int j = first; j < last; j += lanes) {
    const vec score = load(weight + j);
    const vec w = xsimd::select(score > lowest, exp(score - vec(new_maximum)), vec(0.f));
    sum += w;
    store(weight + j, w);
  }
  store(total, sum);
  maximum = new_maximum;

  // Up to 8 vectors of the output stay in registers over the tile.
  constexpr int block = width < 8 ? width : 8;
  const auto weigh = [&]<int d0, int n>() {
    vec acc[n];
    unroll<n>([&](auto d)
                  __attribute__((always_inline)) { acc[d] = load(out + (d0 + d) * lanes) * keep; });
    for (int j = begin; j < end; ++j) {
      const vec w(weight[j]);
      unroll<n>([&](auto d) __attribute__((always_inline)) {
        acc[d] = fma(w, load_head<HeadDim>(values[j], d0 + d), acc[d]);
      });
    }
    unroll<n>([&](auto d)
                  __attribute__((always_inline)) { store(out + (d0 + d) * lanes, acc[d]); });
  };
  unroll<width / block>([&](auto i) { weigh.template operator()<i * block, block>(); });
  if constexpr (width % block > 0)
    weigh.template operator()<width / block * block, width % block>();
}

}  // namespace detail

/// As reference::attention, by tiles of keys; at most attention_rows / group rows at a time.
/// scratch: attention_scratch<HeadDim> floats of this thread.
template <int HeadDim, class KV>
void attention(const AttentionArgs<float, KV>& a, int g, Range rows, float* scratch) {
  constexpr int width = static_cast<int>(round_up(HeadDim, lanes));
  constexpr bool widen = !std::is_same_v<KV, float>;
  const std::int64_t kv_width = std::int64_t{a.n_kv_heads} * HeadDim;
  const std::int64_t group_at = std::int64_t{g} * (a.group + 2) * HeadDim;
  const int n = static_cast<int>(rows.end - rows.begin) * a.group;
  float* out = scratch;                             // (n, width)
  float* total = out + attention_rows * width;      // (n, lanes)
  float* maximum = total + attention_rows * lanes;  // (n)
  float* wide = maximum + attention_rows;           // (2, tile, HeadDim)
  std::fill(out, maximum, 0.f);
  std::fill(maximum, wide, -3.0e38f);

  const std::int64_t end = a.position + rows.end;
  const std::int64_t begin = first_visible(a.position + rows.begin, a.window);
  for (std::int64_t tile = begin / attention_tile * attention_tile; tile < end;
       tile += attention_tile) {
    const float *keys[attention_tile], *values[attention_tile];
    const std::int64_t from = std::max(begin, tile), to = std::min(end, tile + attention_tile);
    for (std::int64_t j = from; j < to; ++j) {
      const std::int64_t at = j - tile;
      if (j >= a.position) {
        keys[at] = a.qkv + (j - a.position) * a.qkv_stride + group_at + a.group * HeadDim;
        values[at] = keys[at] + HeadDim;
      } else {
        const std::int64_t slot = j % a.slots * kv_width + g * HeadDim;
        if constexpr (widen) {
          float* k = wide + at * HeadDim;
          float* v = k + attention_tile * HeadDim;
          for (int d = 0; d < HeadDim; ++d) {
            k[d] = static_cast<float>(a.ring_k[slot + d]);
            v[d] = static_cast<float>(a.ring_v[slot + d]);
          }
          keys[at] = k, values[at] = v;
        } else {
          keys[at] = a.ring_k + slot, values[at] = a.ring_v + slot;
        }
      }
    }
    for (int r = 0; r < n; ++r) {
      const std::int64_t row = rows.begin + r / a.group, position = a.position + row;
      const std::int64_t low = std::max(first_visible(position, a.window), tile);
      const std::int64_t high = std::min(position + 1, tile + attention_tile);
      if (low >= high) continue;
      detail::attend_tile<HeadDim>(a.qkv + row * a.qkv_stride + group_at + r % a.group * HeadDim,
                                   keys, values, static_cast<int>(low - tile),
                                   static_cast<int>(high - tile), maximum[r], total + r * lanes,
                                   out + r * width);
    }
  }
  for (int r = 0; r < n; ++r) {
    float* to = a.out + (rows.begin + r / a.group) * a.out_stride +
                (std::int64_t{g} * a.group + r % a.group) * HeadDim;
    const vec scale(1.f / sum(load(total + r * lanes)));
    for_each_vec({0, HeadDim}, [&](std::int64_t d, std::int64_t m) {
      store_part(to + d, load(out + r * width + d) * scale, m);
    });
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
