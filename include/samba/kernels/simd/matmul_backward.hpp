#pragma once
#include <samba/kernels/simd/matmul.hpp>
#include <samba/kernels/simd/transpose.hpp>

#include <array>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// Rows that share packed panels, panels that share rows, and terms of a sum per pass: the rows and one
/// panel fit the first-level cache.
inline constexpr std::int64_t backward_rows = 48, backward_panels = 16;
template <class T>
inline constexpr std::int64_t backward_terms = 512 / sizeof(T);

/// The columns of a group of rows of x, interleaved and converted to T: to (columns, group). Only `rows`
/// rows exist; missing ones are zeros.
template <class T>
void join_rows(const float* x, std::int64_t x_stride, std::int64_t rows, std::int64_t columns,
               T* to) {
  constexpr std::int64_t group = Packing<T>::group;
  std::int64_t c = 0;
  if constexpr (group == 1) {
    std::memcpy(to, x, static_cast<std::size_t>(columns) * sizeof(float));
    c = columns;
  }
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, bf16>) {
    constexpr auto in_turn = [] {  // halves 0, 16, 1, 17, ...
      std::array<std::uint32_t, lanes> halves{};
      for (std::uint32_t i = 0; i < lanes; ++i) halves[i] = i | (i + lanes) << 16;
      return halves;
    }();
    const __m512i order = _mm512_loadu_si512(in_turn.data());
    for (; c + lanes <= columns; c += lanes) {
      const vec second = rows > 1 ? load(x + x_stride + c) : vec(0.f);
      const __m512bh both = _mm512_cvtne2ps_pbh(second, load(x + c));
      _mm512_storeu_si512(to + 2 * c,
                          _mm512_permutexvar_epi16(order, std::bit_cast<__m512i>(both)));
    }
  }
#else
  if constexpr (std::is_same_v<T, bf16>)
    for (; c + lanes <= columns; c += lanes) {
      const ints first = std::bit_cast<ints>(rounded_to_bf16(load(x + c)));
      const ints second =
          rows > 1 ? std::bit_cast<ints>(rounded_to_bf16(load(x + x_stride + c))) : ints(0);
      const ints both = ((first >> 16) & ints(0xffff)) | second;
      both.store_unaligned(reinterpret_cast<std::int32_t*>(to + 2 * c));
    }
#endif
  for (; c < columns; ++c)
    for (std::int64_t i = 0; i < group; ++i)
      to[c * group + i] = i < rows ? T(x[i * x_stride + c]) : T(0.f);
}

/// x transposed into operands: its columns become rows, its rows the terms of the sum; group g of column
/// c goes to to[g * backward_rows + c].
template <class T>
void turn_rows(const float* x, std::int64_t x_stride, std::int64_t terms, std::int64_t columns,
               typename Operand<T>::Element* to) {
  constexpr std::int64_t group = Packing<T>::group;
  for (std::int64_t t = 0; t < terms; t += group, to += backward_rows) {
    for (std::int64_t i = 0; i < group; ++i) prefetch_row(x, t + i + 4, terms, x_stride, columns);
    const float* const from = x + t * x_stride;
    if constexpr (sizeof(*to) == 4) {
      join_rows(from, x_stride, terms - t, columns, reinterpret_cast<T*>(to));
    } else {
      T joined[backward_rows * group];
      join_rows(from, x_stride, terms - t, columns, joined);
      for (std::int64_t c = 0; c < columns; ++c)
        for (int i = 0; i < group; ++i) to[c].x[i] = static_cast<float>(joined[c * group + i]);
    }
  }
}

/// An operand packed for the micro-kernel of matmul: panels of 32 outputs, terms in the groups of T.
template <class T>
struct BackwardPanels {
  static constexpr std::int64_t group = Packing<T>::group, size = backward_terms<T> * panel_width;
  alignas(alignment) T values[backward_panels * size];

  T& at(std::int64_t panel, std::int64_t term, std::int64_t output) {
    return values[panel * size + (term / group * panel_width + output) * group + term % group];
  }
  /// Terms up to a whole group are zeros.
  void fill_group(std::int64_t panel, std::int64_t terms) {
    for (std::int64_t t = terms; t < round_up(terms, group); ++t)
      for (int c = 0; c < panel_width; ++c) at(panel, t, c) = T(0.f);
  }
  /// Sets the terms t, ... of a group from one row of outputs for each.
  void set_group(std::int64_t panel, std::int64_t t, const T (&rows)[group][panel_width]) {
    T* const to = &at(panel, t, 0);
    if constexpr (group == 1) {
      std::memcpy(to, rows, sizeof(rows));
    } else {
      std::uint32_t both[panel_width];
      for (int i = 0; i < panel_width; ++i)
        both[i] = rows[0][i].bits | std::uint32_t{rows[1][i].bits} << 16;
      std::memcpy(static_cast<void*>(to), both, sizeof(both));
    }
  }

  /// Outputs are the inputs [first, first + width) of the weights, terms their outputs from n on, a
  /// multiple of panel_width.
  void pack_weights(std::int64_t panel, const MatmulBackwardArgs<T>& a, std::int64_t n,
                    std::int64_t terms, std::int64_t first, std::int64_t width) {
    std::int64_t t = 0;
    if constexpr (transpose_size > 0)
      for (; width == panel_width && t < terms;
           t += panel_width) {  // outputs are padded with zeros
        alignas(alignment) T rows[panel_width / group][group][panel_width];
        for (int unit = 0; unit < panel_width / group; unit += transpose_size) {
          const T* from[transpose_size + 1];
          for (int u = 0; u < transpose_size; ++u)
            from[u] = a.w + Packing<T>::index(n + t, first + (unit + u) * group, a.K);
          auto* const to = reinterpret_cast<std::int32_t*>(rows) + unit;
          for (int r = 0; r < panel_width; r += transpose_size)
            transpose_units(from, r * group, 0, to + r * panel_width / group, panel_width / group);
        }
        for (int r = 0; r < panel_width; r += group) set_group(panel, t + r, rows[r / group]);
      }
    for (; t < terms; ++t)
      for (std::int64_t c = 0; c < panel_width; ++c)
        at(panel, t, c) = c < width ? a.w[Packing<T>::index(n + t, first + c, a.K)] : T(0.f);
    fill_group(panel, terms);
  }

  /// Outputs are columns of x, terms its rows.
  void pack_rows(const float* x, std::int64_t x_stride, std::int64_t terms, std::int64_t width) {
    for (std::int64_t t = 0; t < terms; t += group) {
      for (std::int64_t i = 0; i < group; ++i) prefetch_row(x, t + i, terms, x_stride, width);
      for (std::int64_t c = 0; c < width; c += panel_width) {
        T* const to = &at(c / panel_width, t, 0);
        const std::int64_t columns = std::min<std::int64_t>(width - c, panel_width);
        join_rows(x + t * x_stride + c, x_stride, terms - t, columns, to);
        std::fill(to + columns * group, to + panel_width * group, T(0.f));
      }
    }
  }
};

/// out[r, 0 .. width) += sum over groups g of x[r * x_row + g * x_group] panels, for some rows r.
template <class T>
void add_products(const typename Operand<T>::Element* x, std::int64_t x_row, std::int64_t x_group,
                  std::int64_t groups, std::int64_t rows, const BackwardPanels<T>& panels,
                  std::int64_t width, float* out, std::int64_t out_stride) {
  const auto add = [&](std::int64_t first, std::int64_t n, float* to, std::int64_t stride) {
    accumulate<T>({.x = x,
                   .x_stride = x_row,
                   .w = reinterpret_cast<const std::byte*>(panels.values + first * panels.size),
                   .w_panel = panels.size * static_cast<std::int64_t>(sizeof(T)),
                   .groups = groups,
                   .out = to,
                   .out_panel = panel_width,
                   .out_stride = stride,
                   .x_group = x_group,
                   .cached = true},
                  n, rows);
  };
  const std::int64_t whole = width / panel_width, rest = width % panel_width;
  add(0, whole, out, out_stride);
  if (rest == 0) return;
  alignas(alignment) float sums[backward_rows * panel_width];
  float* const last = out + whole * panel_width;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::fill_n(sums + r * panel_width, panel_width, 0.f);
    std::copy_n(last + r * out_stride, rest, sums + r * panel_width);
  }
  add(whole, 1, sums, panel_width);
  for (std::int64_t r = 0; r < rows; ++r)
    std::copy_n(sums + r * panel_width, rest, last + r * out_stride);
}

/// Calls f(first, width) for the columns of some panels at a time.
template <class F>
void for_each_columns(Range columns, F&& f) {
  constexpr std::int64_t most = backward_panels * panel_width;
  for (std::int64_t first = columns.begin; first < columns.end; first += most)
    f(first, (std::min)(columns.end - first, most));
}

}  // namespace detail

/// As reference::matmul_backward_input, with the micro-kernel of matmul: the weights of some outputs
/// are repacked transposed, outputs taking the place of inputs.
template <class T>
[[gnu::noinline]] void matmul_backward_input(const MatmulBackwardArgs<T>& a, Range panels) {
  using namespace detail;
  constexpr std::int64_t group = Packing<T>::group;
  alignas(alignment)
      typename Operand<T>::Element elements[backward_rows * backward_terms<T> / group];
  BackwardPanels<T> weights;
  const Range columns{panels.begin * panel_width, (std::min)(panels.end * panel_width, a.K)};
  for_each_columns(columns, [&](std::int64_t first, std::int64_t width) {
    for (std::int64_t n = 0; n < a.N; n += backward_terms<T>) {
      const std::int64_t terms = (std::min)(backward_terms<T>, a.N - n),
                         groups = (terms + group - 1) / group;
      for (std::int64_t c = 0; c < width; c += panel_width)
        weights.pack_weights(c / panel_width, a, n, terms, first + c,
                             std::min<std::int64_t>(width - c, panel_width));
      for (std::int64_t row = 0; row < a.rows; row += backward_rows) {
        const std::int64_t rows = (std::min)(backward_rows, a.rows - row);
        for (std::int64_t r = row; r < row + rows; ++r) {
          prefetch_row(a.dout + n, r, a.rows, a.dout_stride, terms);
          Operand<T>::prepare(a.dout + r * a.dout_stride + n, terms, elements + (r - row) * groups);
          if (n == 0 && !a.add) std::fill_n(a.dx + r * a.dx_stride + first, width, 0.f);
        }
        add_products(elements, groups, 1, groups, rows, weights, width,
                     a.dx + row * a.dx_stride + first, a.dx_stride);
      }
    }
  });
}

/// As reference::matmul_backward_weight: rows are outputs, terms are tokens.
template <class T>
[[gnu::noinline]] void matmul_backward_weight(const MatmulBackwardArgs<T>& a, Range outputs) {
  using namespace detail;
  constexpr std::int64_t group = Packing<T>::group;
  alignas(alignment)
      typename Operand<T>::Element elements[backward_rows * backward_terms<T> / group];
  BackwardPanels<T> inputs;
  for (std::int64_t i = 0; i < a.rows; i += backward_terms<T>) {
    const std::int64_t terms = (std::min)(backward_terms<T>, a.rows - i),
                       groups = (terms + group - 1) / group;
    for_each_columns({0, a.K}, [&](std::int64_t first, std::int64_t width) {
      inputs.pack_rows(a.x + i * a.x_stride + first, a.x_stride, terms, width);
      for (std::int64_t n = outputs.begin; n < outputs.end; n += backward_rows) {
        const std::int64_t rows = (std::min)(backward_rows, outputs.end - n);
        turn_rows<T>(a.dout + i * a.dout_stride + n, a.dout_stride, terms, rows, elements);
        add_products(elements, 1, backward_rows, groups, rows, inputs, width,
                     a.dw + n * a.K + first, a.K);
      }
    });
  }
  for (std::int64_t i = 0; i < (a.dbias ? a.rows : 0); ++i)
    for (std::int64_t n = outputs.begin; n < outputs.end; ++n)
      a.dbias[n] += a.dout[i * a.dout_stride + n];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
