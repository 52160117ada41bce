#pragma once
#include <samba/kernels/simd/matmul.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// Terms of a sum that are taken together, and rows that share what was packed for them.
inline constexpr std::int64_t backward_piece = 256, backward_rows = 48;

/// One panel of a matrix whose groups are made of terms: 32 outputs side by side.
template <class T>
struct BackwardPanel {
  static constexpr std::int64_t group = Packing<T>::group;
  alignas(alignment) T values[backward_piece * panel_width];

  T& at(std::int64_t term, std::int64_t output) {
    return values[(term / group * panel_width + output) * group + term % group];
  }
  /// Terms up to a whole group are zeros.
  void fill_group(std::int64_t terms) {
    for (std::int64_t t = terms; t < round_up(terms, group); ++t)
      for (int c = 0; c < panel_width; ++c) at(t, c) = T(0.f);
  }
};

/// out[r, 0 .. width) += sum over the terms of rows[r] panel; `rows` rows of elements.
template <class T>
void add_products(const typename Operand<T>::Element* x, std::int64_t x_stride,
                  const BackwardPanel<T>& panel, std::int64_t groups, std::int64_t rows,
                  std::int64_t width, float* out, std::int64_t out_stride) {
  alignas(alignment) float sums[backward_rows * panel_width];
  const bool whole = width == panel_width;
  for (std::int64_t r = 0; r < (whole ? 0 : rows); ++r) {
    std::fill_n(sums + r * panel_width, panel_width, 0.f);
    std::copy_n(out + r * out_stride, width, sums + r * panel_width);
  }
  accumulate<T>({.x = x,
                 .x_stride = x_stride,
                 .w = reinterpret_cast<const std::byte*>(panel.values),
                 .w_panel = 0,
                 .groups = groups,
                 .out = whole ? out : sums,
                 .out_panel = 0,
                 .out_stride = whole ? out_stride : panel_width},
                1, rows);
  for (std::int64_t r = 0; r < (whole ? 0 : rows); ++r)
    std::copy_n(sums + r * panel_width, width, out + r * out_stride);
}

}  // namespace detail

/// As reference::matmul_backward_input, by the micro-kernel of matmul: a piece of the outputs of a
/// panel of inputs is packed anew, with the outputs in the place of the inputs.
template <class T>
[[gnu::noinline]] void matmul_backward_input(const MatmulBackwardArgs<T>& a, Range panels) {
  using namespace detail;
  using Element = typename Operand<T>::Element;
  constexpr std::int64_t group = Packing<T>::group;
  alignas(alignment) Element elements[backward_rows * (backward_piece / group)];
  BackwardPanel<T> panel;
  for (std::int64_t p = panels.begin; p < panels.end; ++p) {
    const std::int64_t first = p * panel_width,
                       width = std::min<std::int64_t>(a.K - first, panel_width);
    for (std::int64_t i = 0; i < (a.add ? 0 : a.rows); ++i)
      std::fill_n(a.dx + i * a.dx_stride + first, width, 0.f);
    for (std::int64_t n = 0; n < a.N; n += backward_piece) {
      const std::int64_t terms = std::min(backward_piece, a.N - n),
                         groups = (terms + group - 1) / group;
      for (std::int64_t c = 0; c < panel_width; ++c)
        for (std::int64_t t = 0; t < terms; ++t)
          panel.at(t, c) = c < width ? a.w[Packing<T>::index(n + t, first + c, a.K)] : T(0.f);
      panel.fill_group(terms);
      for (std::int64_t row = 0; row < a.rows; row += backward_rows) {
        const std::int64_t rows = std::min(backward_rows, a.rows - row);
        for (std::int64_t r = 0; r < rows; ++r)
          Operand<T>::prepare(a.dout + (row + r) * a.dout_stride + n, terms, elements + r * groups);
        add_products(elements, groups, panel, groups, rows, width, a.dx + row * a.dx_stride + first,
                     a.dx_stride);
      }
    }
  }
}

/// As reference::matmul_backward_weight: rows are outputs, terms are tokens.
template <class T>
[[gnu::noinline]] void matmul_backward_weight(const MatmulBackwardArgs<T>& a, Range outputs) {
  using namespace detail;
  using Element = typename Operand<T>::Element;
  constexpr std::int64_t group = Packing<T>::group;
  alignas(alignment) Element elements[backward_rows * (backward_piece / group)];
  BackwardPanel<T> panel;
  for (std::int64_t i = 0; i < a.rows; i += backward_piece) {
    const std::int64_t terms = std::min(backward_piece, a.rows - i),
                       groups = (terms + group - 1) / group;
    for (std::int64_t n = outputs.begin; n < outputs.end; n += backward_rows) {
      const std::int64_t rows = std::min(backward_rows, outputs.end - n);
      for (std::int64_t r = 0; r < rows; ++r) {
        alignas(alignment) float column[backward_piece];
        for (std::int64_t t = 0; t < terms; ++t)
          column[t] = a.dout[(i + t) * a.dout_stride + n + r];
        Operand<T>::prepare(column, terms, elements + r * groups);
      }
      for (std::int64_t first = 0; first < a.K; first += panel_width) {
        const std::int64_t width = std::min<std::int64_t>(a.K - first, panel_width);
        for (std::int64_t t = 0; t < terms; ++t)
          for (std::int64_t c = 0; c < panel_width; ++c)
            panel.at(t, c) = c < width ? T(a.x[(i + t) * a.x_stride + first + c]) : T(0.f);
        panel.fill_group(terms);
        add_products(elements, groups, panel, groups, rows, width, a.dw + n * a.K + first, a.K);
      }
    }
  }
  for (std::int64_t i = 0; i < (a.dbias ? a.rows : 0); ++i)
    for (std::int64_t n = outputs.begin; n < outputs.end; ++n)
      a.dbias[n] += a.dout[i * a.dout_stride + n];
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
