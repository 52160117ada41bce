#pragma once
/// \file
/// Views with shapes. A view is a pointer whose extents are in its type; the memory belongs to an
/// arena or a memory map. Three kinds: activations (Rows), weights (Matrix, Table, Vector,
/// Transposed, Filter) and states (Array, Ring).
#include <samba/core/arena.hpp>
#include <samba/core/scalar.hpp>
#include <samba/core/shape.hpp>

#include <cstdint>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// Activations, (count, C): one row per token, `stride` elements from row to row.
template <class R, int C>
struct Rows {
  static constexpr int cols = C;

  R* data = nullptr;
  std::int64_t count = 0, stride = C;

  R* row(std::int64_t i) const { return data + i * stride; }
  operator Rows<const R, C>() const
    requires(!std::is_const_v<R>)
  {
    return {data, count, stride};
  }
};

/// Activations a function reads.
template <class R, int C>
using In = Rows<const R, C>;
/// Activations a function writes; never overlap its inputs unless it says so.
template <class R, int C>
using Out = Rows<R, C>;

/// Columns [First, First + Width) of every row.
template <int First, int Width, class R, int C>
constexpr Rows<R, Width> slice(Rows<R, C> x) {
  static_assert(First >= 0 && Width > 0 && First + Width <= C, "slice: columns outside the rows");
  return {x.data + First, x.count, x.stride};
}
template <int Width, class R, int C>
constexpr Rows<R, Width> first(Rows<R, C> x) {
  return slice<0, Width>(x);
}
template <int Width, class R, int C>
constexpr Rows<R, Width> last(Rows<R, C> x) {
  return slice<C - Width, Width>(x);
}

/// How a weight tensor of (N, K) in a file stands in memory.
enum class Layout {
  packed,   ///< in panels of outputs, see packed_index
  rows,     ///< as in the file, row major
  columns,  ///< (K, N): kernels that run over N channels read it contiguously
};

/// Place of element (row, col) of an (N, K) matrix in its packed form: panels of `panel_width`
/// rows, within a panel k by k, the rows of the panel side by side. A one-token step and a long
/// chunk both add up over k in this order.
constexpr std::int64_t packed_index(std::int64_t row, std::int64_t col, std::int64_t K) {
  return (row / panel_width * K + col) * panel_width + row % panel_width;
}

/// The elements of one row of a weight tensor in memory: from `first`, `step` apart.
struct RowPlace {
  std::int64_t first = 0, step = 1;
};
constexpr RowPlace row_place(Layout layout, std::int64_t row, std::int64_t N, std::int64_t K) {
  switch (layout) {
    case Layout::packed: return {packed_index(row, 0, K), panel_width};
    case Layout::columns: return {row, N};
    case Layout::rows: break;
  }
  return {row * K, 1};
}

/// data[place of element k] = values[k] for the `size` elements of a row, and the other way round.
template <class T>
void set_row(T* data, RowPlace place, std::int64_t size, const Real<T>* values) {
  for (std::int64_t k = 0; k < size; ++k)
    data[place.first + k * place.step] = static_cast<T>(values[k]);
}
template <class T>
void get_row(const T* data, RowPlace place, std::int64_t size, Real<T>* values) {
  for (std::int64_t k = 0; k < size; ++k)
    values[k] = static_cast<Real<T>>(data[place.first + k * place.step]);
}

namespace detail {

/// A weight tensor: a pointer, and the shape it has in a file. `rows` rows of `row_size` elements
/// stand under the indices of its first extent; a vector is one row.
template <class T, Layout L, std::int64_t Rows, std::int64_t RowSize>
struct Stored {
  using value_type = T;
  static constexpr Layout layout = L;
  static constexpr std::int64_t rows = Rows, row_size = RowSize;
  static constexpr std::int64_t bytes = (L == Layout::packed ? round_up(Rows, panel_width) : Rows) *
                                        RowSize * static_cast<std::int64_t>(sizeof(T));

  void bind(std::byte* place) { data_ = reinterpret_cast<T*>(place); }
  constexpr const T* data() const { return data_; }
  constexpr T* data() { return data_; }

  void set_row(std::int64_t r, const Real<T>* values) {
    samba::set_row(data_, row_place(L, r, Rows, RowSize), RowSize, values);
  }
  void get_row(std::int64_t r, Real<T>* values) const {
    samba::get_row(data_, row_place(L, r, Rows, RowSize), RowSize, values);
  }

 private:
  T* data_ = nullptr;
};

}  // namespace detail

/// Weights of a linear map, (N outputs, K inputs), packed in panels; outputs padded with zeros.
template <class T, int N, int K>
struct Matrix : detail::Stored<T, Layout::packed, N, K> {
  static constexpr bool is_matrix = true;
  static constexpr Shape shape{N, K};
};

/// Row-major (N, K): an embedding that no product uses, or a derived tensor.
template <class T, int N, int K>
struct Table : detail::Stored<T, Layout::rows, N, K> {
  static constexpr Shape shape{N, K};
};

/// (N): a norm's weight, a bias, the skip of a scan.
template <class R, int N>
struct Vector : detail::Stored<R, Layout::rows, 1, N> {
  static constexpr Shape shape{N};
};

/// (N, K) in a file, (K, N) in memory.
template <class R, int N, int K>
struct Transposed : detail::Stored<R, Layout::columns, N, K> {
  static constexpr Shape shape{N, K};
};

/// Taps of a depthwise convolution: (channels, 1, taps) in a file, (taps, channels) in memory.
template <class R, int Channels, int Taps>
struct Filter : detail::Stored<R, Layout::columns, Channels, Taps> {
  static constexpr Shape shape{Channels, 1, Taps};
};

/// State of fixed shape, row major.
template <class R, int... Extents>
struct Array {
  static constexpr Shape shape{Extents...};

  static constexpr std::int64_t bytes(std::int64_t /*capacity*/) {
    return (std::int64_t{Extents} * ... * static_cast<std::int64_t>(sizeof(R)));
  }
  void bind(std::byte* place, std::int64_t /*capacity*/) { data = reinterpret_cast<R*>(place); }

  R* data = nullptr;
};

/// State that holds one row of Width values per position, in slot `position % slots`.
/// Slots = 0: as many slots as the session has capacity.
template <class KV, int Slots, int Width>
struct Ring {
  static constexpr Shape shape{Slots, Width};

  static constexpr std::int64_t bytes(std::int64_t capacity) {
    return (Slots ? Slots : capacity) * Width * static_cast<std::int64_t>(sizeof(KV));
  }
  void bind(std::byte* place, std::int64_t capacity) {
    data = reinterpret_cast<KV*>(place);
    slots = Slots ? Slots : capacity;
  }

  KV* data = nullptr;
  std::int64_t slots = Slots;
};

/// The state of a layer that keeps nothing from token to token.
struct Stateless {
  static constexpr void visit(auto&, auto&&) {}
};

/// Scratch that each thread has for itself: N values.
template <class R, int N>
struct PerThread {
  R* data = nullptr;

  R* of(int rank) const { return data + rank * round_up(N, alignment); }
};

/// Gives scratch its place: Rows for `count` tokens, PerThread for `threads` threads.
struct ScratchPlacer {
  Placer placer;
  std::int64_t count = 0, threads = 1;

  template <class R, int C>
  void operator()(Rows<R, C>& x) {
    const std::int64_t bytes = count * C * static_cast<std::int64_t>(sizeof(R));
    x = {reinterpret_cast<R*>(placer.take(bytes)), count, C};
  }
  template <class R, int N>
  void operator()(PerThread<R, N>& x) {
    const std::int64_t bytes =
        threads * round_up(N, alignment) * static_cast<std::int64_t>(sizeof(R));
    x = {reinterpret_cast<R*>(placer.take(bytes))};
  }
};

}  // namespace samba::inline SAMBA_TARGET
