#pragma once
#include <samba/kernels/reference/matmul.hpp>
#include <samba/kernels/simd/operand_bf16.hpp>
#include <samba/kernels/simd/operand_int8.hpp>
#include <samba/kernels/simd/operand_q4.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

namespace detail {

/// Rows that pass over the weights together, the panels they pass over before the next rows, and
/// the bytes of a piece of the rows, which stay in the L1 cache.
inline constexpr std::int64_t matmul_rows = 48, matmul_piece_bytes = 48 * 1024;
template <class T>
inline constexpr std::int64_t matmul_panels = std::min<std::int64_t>(16, 32 / sizeof(T));

}  // namespace detail

/// For the outputs in a range of panels. The loops, outermost first: blocks of panels, blocks of
/// rows, pieces of K (in which the rows are converted to the type of the weights), panels, tiles of
/// rows. Sums carry over from piece to piece.
template <class T>
[[gnu::noinline]] void matmul(const MatmulArgs<T>& a, Range panels) {
  using Element = typename Operand<T>::Element;
  constexpr std::int64_t group = Packing<T>::group, most_rows = detail::matmul_rows;
  constexpr bool is_float = std::is_same_v<T, float>;
  constexpr std::int64_t capacity = detail::matmul_piece_bytes / sizeof(Element);
  alignas(alignment) Element elements[is_float ? 1 : capacity + most_rows + 1];
  alignas(alignment) float sums[detail::matmul_panels<T> * most_rows * panel_width];

  if (a.rows == 0) return;
  const std::int64_t groups = Packing<T>::groups(a.K), tile = (std::min)(a.rows, most_rows);
  const std::int64_t pieces = is_float ? 1 : groups * tile / (capacity + 1) + 1;
  const std::int64_t piece = (groups + pieces - 1) / pieces;
  const std::int64_t panel_block = detail::matmul_panels<T> * most_rows / tile;
  for (std::int64_t panel = panels.begin; panel < panels.end; panel += panel_block)
    for (std::int64_t row = 0; row < a.rows; row += tile) {
      const std::int64_t n = (std::min)(tile, a.rows - row),
                         end = (std::min)(panel + panel_block, panels.end);
      const auto each_panel = [&](auto f) {
        for (std::int64_t p = panel; p < end; ++p) {
          const std::int64_t outputs = std::min<std::int64_t>(a.N - p * panel_width, panel_width);
          f(p, sums + (p - panel) * tile * panel_width, static_cast<std::size_t>(outputs) * 4);
        }
      };
      each_panel([&](std::int64_t p, float* sum, std::size_t bytes) {
        alignas(alignment) float start[panel_width] = {};
        if (a.bias) std::memcpy(start, a.bias + p * panel_width, bytes);
        for (std::int64_t i = 0; i < n; ++i)
          std::memcpy(sum + i * panel_width, start, sizeof(start));
      });

      for (std::int64_t g = 0; g < groups; g += piece) {
        const std::int64_t count = (std::min)(piece, groups - g);
        const std::int64_t values = (std::min)(count * group, a.K - g * group);
        const Element* x = elements;
        std::int64_t x_stride = count;
        if constexpr (is_float) {
          x = a.x + row * a.x_stride;
          x_stride = a.x_stride;
        }
        if constexpr (!is_float)
          for (std::int64_t i = 0; i < n; ++i)
            Operand<T>::prepare(a.x + (row + i) * a.x_stride + g * group, values,
                                elements + i * count);
        const std::int64_t w_panel = groups * Operand<T>::group_bytes;
        const auto* const w = reinterpret_cast<const std::byte*>(a.w);
        accumulate<T>({.x = x,
                       .x_stride = x_stride,
                       .w = w + panel * w_panel + g * Operand<T>::group_bytes,
                       .w_panel = w_panel,
                       .groups = count,
                       .out = sums,
                       .out_panel = tile * panel_width,
                       .out_stride = panel_width},
                      end - panel, n);
      }

      each_panel([&](std::int64_t p, float* sum, std::size_t bytes) {
        for (std::int64_t i = 0; i < n; ++i, sum += panel_width) {
          float* const to = a.out + (row + i) * a.out_stride + p * panel_width;
          if (bytes == panel_width * sizeof(float))
            std::memcpy(to, sum, panel_width * sizeof(float));  // without a call
          else
            std::memcpy(to, sum, bytes);
        }
      });
    }
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
