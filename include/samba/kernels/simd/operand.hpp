#pragma once
/// \file
/// The two factors of a matrix product in vectors: rows of numbers in the type of the weights, and
/// a panel of packed weights. Operand<T> has
///
///   Element           what stands in memory for one group of k of a row (see Packing<T>)
///   rows              rows that share one pass over a panel: as many as the registers hold sums for
///   prepare           fills the elements of a row
///   multiply          adds the products of one group to the sums of some rows and vectors of outputs
#include <samba/kernels/simd/vec.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

template <class T>
struct Operand;

/// Where vector v of the outputs from c on stands in a group, 32 bits each: panel by panel.
template <int v>
[[gnu::always_inline]] inline const std::byte* weights_at(const std::byte* w, std::int64_t w_panel,
                                                          int c) {
  constexpr int at = v * lanes;
  return w + at / panel_width * w_panel + 4 * (c + at % panel_width);
}

template <>
struct Operand<float> {
  using Element = float;
  static constexpr int rows = lanes == 16 ? 12 : 6;
  static constexpr std::int64_t group_bytes = panel_width * sizeof(float);

  static void prepare(const float* row, std::int64_t n, float* x) {
    std::memcpy(x, row, static_cast<std::size_t>(n) * sizeof(float));
  }

  /// sum[i][v] += x[i] w[v] for vectors v from output c on, which may reach into the next panels;
  /// x: one element per row, x_stride apart.
  template <int Rows, int vecs>
  [[gnu::always_inline]] static void multiply(const float* x, std::int64_t x_stride,
                                              const std::byte* w, std::int64_t w_panel, int c,
                                              vec (&sum)[Rows][vecs]) {
    vec weight[vecs];
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      weight[v] = load(reinterpret_cast<const float*>(weights_at<v>(w, w_panel, c)));
    });
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const vec xi(x[i * x_stride]);
      unroll<vecs>([&](auto v) __attribute__((always_inline)) {
        sum[i][v] = fma(xi, weight[v], sum[i][v]);
      });
    });
  }
};

/// A product that is added to `out`: of rows of factors and panels of packed weights.
template <class T>
struct Product {
  const typename Operand<T>::Element* x;  ///< (rows, groups)
  std::int64_t x_stride;
  const std::byte* w;    ///< (panels, groups), each group of panel_width outputs
  std::int64_t w_panel;  ///< bytes from panel to panel
  std::int64_t groups;
  float* out;  ///< (panels, rows, panel_width)
  std::int64_t out_panel, out_stride;
  std::int64_t w_group = Operand<T>::group_bytes;  ///< bytes from group to group
  std::int64_t x_group = 1;                        ///< elements from group to group
};

/// out[p, i] += sum_g x[i, g] w[p, g] for Rows rows from `row` on and some panels at once. Each output
/// has one sum, which runs over the groups in order whatever Rows and panels are, and wherever it
/// stops and goes on: hence the same bits for any number of rows and any pieces of K.
template <class T, int Rows, int panels>
[[gnu::noinline]] void accumulate(const Product<T>& a, std::int64_t panel, std::int64_t row) {
  constexpr int all = panels * panel_width / lanes;
  constexpr int vecs = Rows == 1 ? std::min(8, all) : 2;  // at a time
  const typename Operand<T>::Element* const x = a.x + row * a.x_stride;
  for (int first = 0; first < all; first += vecs) {
    const int c = first * lanes % panel_width;
    const std::int64_t p = panel + first * lanes / panel_width;
    const std::byte* w = a.w + p * a.w_panel;
    float* const out = a.out + p * a.out_panel + row * a.out_stride + c;
    // Vector v of row i; `vecs` vectors may reach over several panels.
    const auto at = [&](auto i) __attribute__((always_inline)) {
      constexpr int v = i % vecs * lanes;
      return out + v / panel_width * a.out_panel + v % panel_width + i / vecs * a.out_stride;
    };
    vec sum[Rows][vecs];
    unroll<Rows * vecs>(
        [&](auto i) __attribute__((always_inline)) { sum[i / vecs][i % vecs] = load(at(i)); });
    const typename Operand<T>::Element* x_at = x;
    for (std::int64_t g = 0; g < a.groups; ++g, w += a.w_group, x_at += a.x_group)
      Operand<T>::template multiply<Rows, vecs>(x_at, a.x_stride, w, a.w_panel, c, sum);
    unroll<Rows * vecs>(
        [&](auto i) __attribute__((always_inline)) { store(at(i), sum[i / vecs][i % vecs]); });
  }
}

namespace detail {

/// Asks for the sums of some rows of a panel that are added to next: rows that stand far apart, not
/// in a buffer that the caches hold.
template <int rows>
void prefetch_outputs(const float* out, std::int64_t stride) {
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < panel_width; c += 16) __builtin_prefetch(out + r * stride + c, 1);
}

}  // namespace detail

/// accumulate for any number of rows and panels.
template <class T>
void accumulate(const Product<T>& a, std::int64_t n_panels, std::int64_t n_rows) {
  constexpr int most = Operand<T>::rows, panels = std::max(1, 8 * lanes / panel_width);
  std::int64_t row = 0;
  const auto some = [&]<int rows>(std::integral_constant<int, rows>) {
    const std::int64_t first = row, n = (n_rows - row) / rows * rows;
    row += n;
    // A panel stays in the nearest cache for all rows.
    for (std::int64_t p = 0; p < (n > 0 ? n_panels : 0); ++p)
      for (std::int64_t r = first; r < first + n; r += rows) {
        const bool last = r + rows == first + n;
        if (a.out_stride > 4 * panel_width && (!last || p + 1 < n_panels))
          detail::prefetch_outputs<rows>(
              a.out + (p + last) * a.out_panel + (last ? first : r + rows) * a.out_stride,
              a.out_stride);
        accumulate<T, rows, 1>(a, p, r);
      }
  };
  some(std::integral_constant<int, most>{});
  if constexpr (most > 8) {
    some(std::integral_constant<int, 8>{});
    some(std::integral_constant<int, 4>{});
  }
  // One row alone takes several panels at once: as many sums as hide the latency of an instruction.
  for (; row < n_rows; ++row) {
    std::int64_t p = 0;
    for (; p + panels <= n_panels; p += panels) accumulate<T, 1, panels>(a, p, row);
    if constexpr (panels > 1)
      for (; p < n_panels; ++p) accumulate<T, 1, 1>(a, p, row);
  }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
