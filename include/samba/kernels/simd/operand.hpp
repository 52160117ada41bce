#pragma once
/// \file
/// The two operands of a vectorised matrix product: rows of numbers in the type of the weights, and
/// a panel of packed weights. Operand<T> has
///
///   Element           one group of k of a row in memory (see Packing<T>)
///   rows              rows of a tile: as many as the registers hold sums for
///   rows_from         the fewest rows for which that tile pays off when weights come from memory
///   piece             groups of a panel that stay in a near cache while all rows pass over them
///   single_ahead      bytes that a single row prefetches ahead of the panel it reads; or 0, if it
///                     reads several panels at once, which keeps enough loads in flight when few
///                     instructions separate them
///   prepare           fills the elements of a row
///   multiply          adds the products of one group to the sums of several rows and vectors of
///                     outputs
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

template <class T>
struct Operand;

/// The address of vector v of the outputs starting at c in a group, 32 bits each, panel by panel.
template <int v>
[[gnu::always_inline]] inline const std::byte* weights_at(const std::byte* w, std::int64_t w_panel,
                                                          int c) {
  constexpr int at = v * lanes;
  return w + at / panel_width * w_panel + 4 * (c + at % panel_width);
}

/// sum[i][v] += x(i) weight(v). x returns numbers and weight vectors; each is called once per
/// index. The sums fill most registers, so only the smaller of the two operands is kept in the
/// rest. (The inner loops are unrolled by a pragma, which compiles faster than templates.)
template <int Rows, int vecs>
[[gnu::always_inline]] inline void multiply_add(auto&& x, auto&& weight, vec (&sum)[Rows][vecs]) {
  if constexpr (Rows < vecs) {
    vec xs[Rows];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) xs[i] = vec(x(i));
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      const vec w = in_register(weight(v));
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) sum[i][v] = fma(xs[i], w, sum[i][v]);
    });
  } else {
    vec ws[vecs];
    unroll<vecs>([&](auto v) __attribute__((always_inline)) { ws[v] = in_register(weight(v)); });
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const vec xi(x(i));
#pragma GCC unroll 16
      for (int v = 0; v < vecs; ++v) sum[i][v] = fma(xi, ws[v], sum[i][v]);
    }
  }
}

template <>
struct Operand<float> {
  using Element = float;
  static constexpr int rows = lanes == 16 ? 12 : 3, rows_from = rows;
  static constexpr std::int64_t group_bytes = panel_width * sizeof(float);
  static constexpr std::int64_t piece = lanes == 16 ? 2048 : 96, single_ahead = 0;

  static void prepare(const float* row, std::int64_t n, float* x) {
    std::memcpy(x, row, static_cast<std::size_t>(n) * sizeof(float));
  }

  /// sum[i][v] += x[i] w[v] for vectors v starting at output c, which may extend into the next
  /// panels. x: one element per row, x_stride apart.
  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const float* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    multiply_add<Rows, vecs>(
        [&](int i) __attribute__((always_inline)) { return x[i * x_stride]; },
        [&](auto v) __attribute__((always_inline)) {
          return load(reinterpret_cast<const float*>(weights_at<v>(w, w_panel, c)));
        },
        sum);
  }
};

/// A product of rows and panels of packed weights, added to `out`.
template <class T>
struct Product {
  const typename Operand<T>::Element* x;  ///< (rows, groups)
  std::int64_t x_stride;
  const std::byte* w;    ///< (panels, groups), each group with panel_width outputs
  std::int64_t w_panel;  ///< bytes from panel to panel
  std::int64_t groups;
  float* out;  ///< (panels, rows, panel_width)
  std::int64_t out_panel, out_stride;
  std::int64_t w_group = Operand<T>::group_bytes;  ///< bytes from group to group
  std::int64_t x_group = 1;                        ///< elements from group to group
  bool cached = false;                             ///< the weights are in a near cache
  const std::byte* next = w;  ///< weights to prefetch meanwhile, `next_step` bytes per group
  std::int64_t next_step = 0;
};

/// Vectors of outputs that a tile of rows computes at a time: enough sums to hide the latency of an
/// instruction, and no more than fit in registers.
constexpr int tile_vecs(int rows) { return rows == 1 ? 8 : rows <= 3 ? 4 : 2; }

/// Passes of a tile of rows over a panel.
constexpr int tile_passes(int rows) { return (std::max)(1, panel_width / lanes / tile_vecs(rows)); }

/// Panels of a tile: one, or several if the tile takes more vectors of outputs than one panel has.
constexpr int tile_panels(int rows) { return (std::max)(1, tile_vecs(rows) * lanes / panel_width); }

/// out[p, i] += sum_g x[i, g] w[p, g] for Rows rows starting at `row` and several panels at once.
/// Each output is one sum over the groups in order, whatever Rows and panels are and wherever the
/// sum is interrupted: the bits are the same for any number of rows and any split of K.
template <class T, int Rows, int panels>
[[gnu::noinline]] void accumulate(const Product<T>& a, std::int64_t panel, std::int64_t row) {
  constexpr int all = panels * panel_width / lanes;
  constexpr int vecs = (std::min)(tile_vecs(Rows), all);  // at a time
  constexpr int prefetches =                              // cache lines
      (std::max)(1, static_cast<int>(Operand<T>::group_bytes / 64) / tile_passes(Rows));
  const typename Operand<T>::Element* const x = a.x + row * a.x_stride;
  const std::byte* next = a.next;
  for (int first = 0; first < all; first += vecs) {
    const int c = first * lanes % panel_width;
    const std::int64_t p = panel + first * lanes / panel_width;
    const std::byte* w = a.w + p * a.w_panel;
    float* const out = a.out + p * a.out_panel + row * a.out_stride + c;
    // Vector v of row i; `vecs` vectors may span several panels.
    const auto at = [&](int i, int v) __attribute__((always_inline)) {
      return out + v * lanes / panel_width * a.out_panel + v * lanes % panel_width +
             i * a.out_stride;
    };
    vec sum[Rows][vecs];
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < vecs; ++v) sum[i][v] = load(at(i, v));
    const typename Operand<T>::Element* x_at = x;
    for (std::int64_t g = 0; g < a.groups; ++g, w += a.w_group, x_at += a.x_group) {
#pragma GCC unroll 32
      for (int i = 0; i < prefetches; ++i)
        __builtin_prefetch(next + i * (a.next_step / prefetches));
      next += a.next_step;
      Operand<T>::template multiply<Rows, vecs>(x_at, a.x_stride, w, a.w_panel, c, sum);
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < vecs; ++v) store(at(i, v), sum[i][v]);
  }
}

namespace detail {

/// Prefetches the sums that are added to next, some rows of a panel. For rows that are far apart
/// and not in a cached buffer.
inline void prefetch_outputs(const float* out, std::int64_t stride, std::int64_t rows) {
  for (std::int64_t r = 0; r < rows; ++r)
    for (int c = 0; c < panel_width; c += 16) __builtin_prefetch(out + r * stride + c, 1);
}

}  // namespace detail

/// accumulate for any number of rows and panels. All rows pass over one piece of a panel before the
/// next piece. Meanwhile each tile of rows prefetches its share of that next piece, so that weights
/// from memory have arrived by the time they are needed.
template <class T>
void accumulate(const Product<T>& a, std::int64_t n_panels, std::int64_t all_rows) {
  using Op = Operand<T>;
  std::int64_t p = 0;
  if (all_rows == 1) {
    constexpr int panels = Op::single_ahead ? 1 : tile_panels(1);
    Product<T> row = a;
    for (; p + panels <= n_panels; p += panels) {
      const bool ahead = Op::single_ahead && !a.cached && p + 1 < n_panels;
      row.next_step = ahead ? Op::group_bytes : 0;
      row.next = a.w + p * a.w_panel + (ahead ? Op::single_ahead : 0);
      accumulate<T, 1, panels>(row, p, 0);
    }
  }
  const bool from_memory = !a.cached && a.w_group == Op::group_bytes;
  for (; p < n_panels; ++p)
    for (std::int64_t g = 0, n; g < a.groups; g += n) {
      n = (std::min)(Op::piece, a.groups - g);
      Product<T> piece = a;
      piece.groups = n;
      piece.w += g * a.w_group;
      piece.x += g * a.x_group;
      const std::byte* const next =
          g + n < a.groups ? piece.w + p * a.w_panel + n * a.w_group : a.w + (p + 1) * a.w_panel;
      const bool prefetch = from_memory && (g + n < a.groups || p + 1 < n_panels);
      std::int64_t row = 0;
      // Processes tiles of `rows` rows until fewer than `until` rows are left.
      const auto tiles = [&]<int rows>(std::integral_constant<int, rows>, int until = rows) {
        piece.next_step = prefetch ? Op::group_bytes * rows / tile_passes(rows) / all_rows : 0;
        for (; all_rows - row >= until; row += rows) {
          if (prefetch) piece.next = next + n * Op::group_bytes * row / all_rows;
          const bool last = row + rows == all_rows;
          if (a.out_stride > 4 * panel_width && (!last || p + 1 < n_panels))
            detail::prefetch_outputs(
                a.out + (p + last) * a.out_panel + (last ? 0 : row + rows) * a.out_stride,
                a.out_stride, (std::min<std::int64_t>)(rows, all_rows - (last ? 0 : row + rows)));
          accumulate<T, rows, 1>(piece, p, row);
        }
      };
      if (all_rows >= (from_memory ? Op::rows_from : Op::rows))
        tiles(std::integral_constant<int, Op::rows>{});
      if constexpr (Op::rows > 8) tiles(std::integral_constant<int, 8>{});
      if constexpr (lanes == 16) tiles(std::integral_constant<int, 4>{});
      if constexpr (lanes > 4) {  // with vectors of four floats, fewer kinds of tiles to compile
        tiles(std::integral_constant<int, 3>{}, 5);
        if (all_rows - row == 3) tiles(std::integral_constant<int, 3>{});
        tiles(std::integral_constant<int, 2>{});
      }
      tiles(std::integral_constant<int, 1>{});
    }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
