#pragma once
/// \file
/// Views with shapes. A view is a pointer whose extents are in its type; the memory belongs to an
/// arena, a memory map or a device. There are three kinds: activations (Rows), weights (Matrix,
/// BlockDiagonal, Table, Vector, Transposed, Filter) and states (Array, Ring). Operations take them
/// as RowsArgument, Read, Added or Optional; all but the last have no default, so that no argument
/// can be forgotten.
#include <samba/core/arena.hpp>
#include <samba/core/packing_q4.hpp>
#include <samba/core/shape.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace samba::inline SAMBA_TARGET {

/// Activations, (rows, C): one row per token, `stride` elements from row to row.
template <class R, int C>
struct Rows {
  static constexpr int cols = C;

  R* data = nullptr;
  std::int64_t rows = 0, stride = C;

  R* row(std::int64_t i) const { return data + i * stride; }
};

/// Rows as an argument. It has no default, and mutable rows convert to const ones.
template <class R, int C>
struct RowsArgument : Rows<R, C> {
  constexpr RowsArgument(R* first, std::int64_t n, std::int64_t to_next = C)
      : Rows<R, C>{first, n, to_next} {}
  template <class E>
    requires std::is_convertible_v<E*, R*>
  constexpr RowsArgument(Rows<E, C> x) : Rows<R, C>{x.data, x.rows, x.stride} {}
};

/// An argument that may be left out, or given as `none`.
struct None {};
inline constexpr None none{};
template <class X>
struct Optional;
template <class R, int C>
struct Optional<RowsArgument<R, C>> : Rows<R, C> {
  constexpr Optional(None = none) : Rows<R, C>{nullptr, 0, C} {}
  template <class E>
    requires std::is_convertible_v<E*, R*>
  constexpr Optional(Rows<E, C> x) : Rows<R, C>{x.data, x.rows, x.stride} {}
};

/// Columns [First, First + Width) of every row.
template <int First, int Width, class R, int C>
constexpr Rows<R, Width> slice(Rows<R, C> x) {
  static_assert(First >= 0 && Width > 0 && First + Width <= C, "slice: columns outside the rows");
  // A view of no rows may be null, and offsetting a null pointer is undefined.
  return {x.data ? x.data + First : nullptr, x.rows, x.stride};
}
template <int Width, class R, int C>
constexpr Rows<R, Width> first(Rows<R, C> x) {
  return slice<0, Width>(x);
}
template <int Width, class R, int C>
constexpr Rows<R, Width> last(Rows<R, C> x) {
  return slice<C - Width, Width>(x);
}

/// How a weight tensor of (N, K) in a file is laid out in memory.
enum class Layout {
  packed,   ///< in panels of outputs, see Packing
  rows,     ///< as in the file, row major
  columns,  ///< (K, N): kernels that run over N channels read it contiguously
  blocks    ///< N square blocks, in a file (inputs, outputs): each packed by its outputs
};

/// The width of a square block of this size.
constexpr std::int64_t block_width(std::int64_t size) {
  std::int64_t width = 0;
  while (width * width < size) ++width;
  return width;
}
/// Elements of T from one block to the next: packed ones, or, for RowMajor, as in a file.
template <class T>
constexpr std::int64_t block_stride(std::int64_t width) {
  if constexpr (!std::is_same_v<Element<T>, T>)
    return width * width;
  else
    return Packing<T>::bytes(width, width) / std::int64_t{sizeof(T)};
}

/// Writes values, (inputs, outputs), to a packed square block; get_block reads them back.
template <class T>
void set_block(T* block, std::int64_t width, const Real<T>* values) {
  constexpr std::int64_t most = 256;  // inputs at a time, a multiple of every Packing::group
  Real<T> part[most];
  for (std::int64_t n = 0; n < width; ++n)
    for (std::int64_t k = 0; k < width; k += most) {
      const std::int64_t end = (std::min)(k + most, width);
      for (std::int64_t i = k; i < end; ++i) part[i - k] = values[i * width + n];
      Packing<T>::set_part(block, n, width, {k, end}, part);
    }
}
template <class T>
void get_block(const T* block, std::int64_t width, Real<T>* values) {
  for (std::int64_t n = 0; n < width; ++n) {
    Packing<T>::get_row(block, n, width, values + n * width);
    for (std::int64_t k = 0; k < n; ++k) std::swap(values[n * width + k], values[k * width + n]);
  }
}

/// Writes values, (K), to row r of an (N, K) tensor in a layout; get_row reads them back.
template <class T>
void set_row(T* data, Layout layout, std::int64_t r, std::int64_t N, std::int64_t K,
             const Real<T>* values) {
  if (layout == Layout::packed) return Packing<T>::set_row(data, r, K, values);
  if (layout == Layout::blocks) {
    const std::int64_t width = block_width(K);
    return set_block(data + r * block_stride<T>(width), width, values);
  }
  const bool rows = layout == Layout::rows;
  T* to = data + (rows ? r * K : r);
  for (std::int64_t k = 0; k < K; ++k) to[rows ? k : k * N] = static_cast<T>(values[k]);
}
template <class T>
void get_row(const T* data, Layout layout, std::int64_t r, std::int64_t N, std::int64_t K,
             Real<T>* values) {
  if (layout == Layout::packed) return Packing<T>::get_row(data, r, K, values);
  if (layout == Layout::blocks) {
    const std::int64_t width = block_width(K);
    return get_block(data + r * block_stride<T>(width), width, values);
  }
  const bool rows = layout == Layout::rows;
  const T* from = data + (rows ? r * K : r);
  for (std::int64_t k = 0; k < K; ++k) values[k] = static_cast<Real<T>>(from[rows ? k : k * N]);
}

namespace detail {

/// What weight tensors of all shapes have in common. (Apart, so that it is compiled once.)
template <class T>
class StoredData {
 public:
  using value_type = T;

  void bind(std::byte* place) { data_ = reinterpret_cast<T*>(place); }
  constexpr const T* data() const { return data_; }
  constexpr T* data() { return data_; }

 private:
  T* data_ = nullptr;
};

/// A weight tensor: a pointer, and its shape in a file: `rows` rows of `row_size` elements, one row
/// for each index of its first extent. A vector is one row.
template <class T, Layout L, std::int64_t Rows, std::int64_t RowSize>
struct Stored : StoredData<T> {
  static constexpr Layout layout = L;
  static constexpr std::int64_t rows = Rows, row_size = RowSize;
  static constexpr std::int64_t bytes = [] {
    constexpr std::int64_t element = sizeof(T);
    if constexpr (L == Layout::packed)
      return Packing<T>::bytes(Rows, RowSize);
    else if constexpr (L == Layout::blocks)
      return Rows * block_stride<T>(block_width(RowSize)) * element;
    else
      return Rows * RowSize * element;
  }();

  void set_row(std::int64_t r, const Real<T>* values) {
    samba::set_row(this->data(), L, r, Rows, RowSize, values);
  }
  void get_row(std::int64_t r, Real<T>* values) const {
    samba::get_row(this->data(), L, r, Rows, RowSize, values);
  }
};

}  // namespace detail

/// Weights of a linear map, (N outputs, K inputs), packed in panels; outputs are padded with zeros.
template <class T, int N, int K>
struct Matrix : detail::Stored<T, Layout::packed, N, K> {
  static constexpr bool is_matrix = true;
  static constexpr Shape shape{N, K};
};

template <class E, int N, int K>
struct Matrix<RowMajor<E>, N, K> : detail::Stored<E, Layout::rows, N, K> {
  static constexpr bool is_matrix = true;
  static constexpr Shape shape{N, K};
};

/// Weights of a block-diagonal linear map of Blocks * Width channels: each block's outputs depend on
/// its own channels. In a file (Blocks, Width inputs, Width outputs): a row times a block; in memory
/// every block is packed as a Matrix, by its outputs.
template <class T, int Blocks, int Width>
struct BlockDiagonal : detail::Stored<T, Layout::blocks, Blocks, std::int64_t{Width} * Width> {
  static constexpr bool is_matrix = true;
  static constexpr Shape shape{Blocks, Width, Width};
};

/// As in the file.
template <class E, int Blocks, int Width>
struct BlockDiagonal<RowMajor<E>, Blocks, Width>
    : detail::Stored<E, Layout::rows, Blocks, std::int64_t{Width} * Width> {
  static constexpr bool is_matrix = true;
  static constexpr Shape shape{Blocks, Width, Width};
};

/// Row-major (N, K): an embedding that is not also the head, or a derived tensor.
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

/// A weight tensor that an operation reads: a Vector, Table, Transposed or Filter of this shape.
/// One that may be missing is passed unbound, with null data.
template <class R, Layout L, std::int64_t N, std::int64_t RowSize>
struct Read {
  const R* data;
  constexpr Read(const detail::Stored<R, L, N, RowSize>& x) : data(x.data()) {}
};
/// A gradient that an operation adds to, under the same rules.
template <class R, Layout L, std::int64_t N, std::int64_t RowSize>
struct Added {
  R* data;
  constexpr Added(detail::Stored<R, L, N, RowSize>& x) : data(x.data()) {}
};
template <class R, std::int64_t N>
using ReadVector = Read<R, Layout::rows, 1, N>;
template <class R, std::int64_t N>
using AddedVector = Added<R, Layout::rows, 1, N>;
template <class R, std::int64_t N, std::int64_t K>
using ReadTable = Read<R, Layout::rows, N, K>;
template <class R, std::int64_t N, std::int64_t K>
using AddedTable = Added<R, Layout::rows, N, K>;
template <class R, std::int64_t Channels, std::int64_t Taps>
using ReadFilter = Read<R, Layout::columns, Channels, Taps>;
template <class R, std::int64_t Channels, std::int64_t Taps>
using AddedFilter = Added<R, Layout::columns, Channels, Taps>;

/// What kernels see of a tensor in the sequences' states: the elements in the first state, whatever
/// their shape, and the number of bytes from one state to the next.
template <class R>
struct ArrayData {
  R* data = nullptr;
  std::int64_t stride = 0;

  R* of(std::int64_t state) const {
    if (!data) return nullptr;
    return reinterpret_cast<R*>(reinterpret_cast<std::uintptr_t>(data) +
                                static_cast<std::uintptr_t>(state * stride));
  }
};

/// A tensor of fixed shape in the sequences' states, row major.
template <class R, int... Extents>
struct Array : ArrayData<R> {
  static constexpr Shape shape{Extents...};

  static constexpr std::int64_t bytes(std::int64_t /*capacity*/) {
    return (std::int64_t{Extents} * ... * static_cast<std::int64_t>(sizeof(R)));
  }
  /// place: in the first state; to_next: bytes from one state to the next.
  void bind(std::byte* place, std::int64_t to_next, std::int64_t /*capacity*/) {
    this->data = reinterpret_cast<R*>(place);
    this->stride = to_next;
  }
  std::int64_t size_bytes() const { return bytes(0); }
};

/// What kernels see of a ring.
template <class KV>
struct RingData : ArrayData<KV> {
  std::int64_t n_slots = 0;
};

/// A tensor in the sequences' states that holds, for each head, one row of Width values per
/// position, in slot `position % slots`. Slots = 0: as many slots as the session's capacity.
template <class KV, int Heads, int Slots, int Width>
struct Ring : RingData<KV> {
  static constexpr Shape shape{Heads, Slots, Width};

  static constexpr std::int64_t bytes_of(std::int64_t n) {
    constexpr std::int64_t slot = std::int64_t{sizeof(KV)} * Heads * Width;
    return checked_product("capacity", n, slot);
  }
  static constexpr std::int64_t bytes(std::int64_t capacity) {
    return bytes_of(Slots ? Slots : capacity);
  }
  void bind(std::byte* place, std::int64_t to_next, std::int64_t capacity) {
    bind_slots(place, to_next, Slots ? Slots : capacity);
  }
  void bind_slots(std::byte* place, std::int64_t to_next, std::int64_t n) {
    this->data = reinterpret_cast<KV*>(place);
    this->stride = to_next;
    this->n_slots = n;
  }
  std::int64_t size_bytes() const { return bytes_of(this->n_slots); }
};

/// The state of a layer that keeps nothing from token to token.
struct Stateless {
  static constexpr void visit(auto&, auto&&) {}
};

/// Scratch of N values for each thread.
template <class R, int N>
struct PerThread {
  static constexpr int size = N;

  R* data = nullptr;

  R* of(int rank) const { return data + rank * round_up(N, alignment); }
};

/// Scratch of N values per token for each thread.
template <class R, int N>
struct PerThreadRows {
  R* data = nullptr;
  std::int64_t rows = 0;

  R* of(int rank) const { return data + rank * round_up(rows * N, alignment); }
};

/// Places scratch in memory: Rows for `rows` tokens, PerThread for `threads` threads.
struct ScratchPlacer {
  Placer placer;
  std::int64_t rows = 0, threads = 1;
  bool keep_all = false;  ///< keep everything that forward computes, for backward

  template <class R, int C>
  void operator()(Rows<R, C>& x) {
    x = {reinterpret_cast<R*>(placer.take_array(rows, std::int64_t{sizeof(R)} * C, what)), rows, C};
  }
  template <class R, int N>
  void operator()(PerThread<R, N>& x) {
    constexpr std::int64_t bytes = round_up(N, alignment) * std::int64_t{sizeof(R)};
    x = {reinterpret_cast<R*>(placer.take_array(threads, bytes, what))};
  }
  template <class R, int N>
  void operator()(PerThreadRows<R, N>& x) {
    x = {reinterpret_cast<R*>(take_rows(N, sizeof(R))), rows};
  }
  /// Lets x reuse the memory of `used`, which only a backward pass needs once x is written.
  template <class R, int C>
  void in_place_of(Rows<R, C>& x, Rows<R, C>& used) {
    if (keep_all)
      (*this)(x);
    else
      x = used;
  }

 private:
  static constexpr const char* what = "tokens that go through the model together";  // in messages

  /// `width` values per token for each thread. (Compiled once, not for each shape.)
  [[gnu::noinline]] std::byte* take_rows(std::int64_t width, std::int64_t size) {
    const auto values = checked_round_up(what, checked_product(what, rows, width), alignment);
    return placer.take_array(threads, checked_product(what, values, size), what);
  }
};

}  // namespace samba::inline SAMBA_TARGET
