#pragma once
#include <samba/core/parallel.hpp>
#include <samba/model/weights.hpp>

#include <algorithm>
#include <vector>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Packs the rows of a matrix in a range that starts at a panel. The rows of a panel share cache
/// lines, so a piece of each row is written in turn.
template <class T>
void assign_panels(const Real<T>* from, std::int64_t K, Range rows, T* to) {
  constexpr std::int64_t piece = 128;
  for (std::int64_t panel = rows.begin; panel < rows.end; panel += panel_width) {
    const std::int64_t end = std::min<std::int64_t>(panel + panel_width, rows.end);
    for (std::int64_t k = 0; k < K; k += piece)
      for (std::int64_t r = panel; r < end; ++r)
        Packing<T>::set_part(to, r, K, {k, (std::min)(k + piece, K)}, from + r * K + k);
  }
}

}  // namespace detail

/// Copies master weights, converted to T, into the weights of a session or a Gradient.
template <class Model, class T>
void assign(Weights<Model, T>& weights, const Weights<Model, Master<Real<T>>>& master,
            int threads = 0) {
  const auto to = weights.tensors(), from = master.tensors();
  threads = (std::max)(1, usable_threads(threads));
  std::int64_t longest = 0;
  for (const auto& tensor : to) longest = (std::max)(longest, tensor.row_size);
  std::vector<Real<T>> rows_of_threads(static_cast<std::size_t>(threads * longest));
  parallel(threads, [&](const Team& team) {
    Real<T>* const row = rows_of_threads.data() + team.rank * longest;
    for (std::size_t t = 0; t < to.size(); ++t) {
      const std::int64_t K = to[t].row_size;
      const bool blocks = to[t].layout == Layout::blocks;
      const Range rows = team.share(to[t].rows, blocks ? 1 : panel_width);
      if constexpr (!std::is_same_v<T, Master<Real<T>>>)
        if (T* const elements = to[t].template elements<T>();
            elements && to[t].layout == Layout::packed) {
          detail::assign_panels(static_cast<const Real<T>*>(from[t].data), K, rows, elements);
          continue;
        }
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        from[t].get_row(r, row);
        to[t].set_row(r, row);
      }
    }
  });
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
