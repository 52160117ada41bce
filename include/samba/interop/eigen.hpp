#pragma once
/// \file
/// samba's data for Eigen. `as_eigen` makes maps: the data stay in place and must outlive the map,
/// which is read-only if they are const. Packed matrices and reduced-precision types cannot be
/// mapped: `to_eigen` copies them, and `from_eigen` replaces them by a matrix. A weight tensor has
/// the shape that it has in a file, (N, K); a vector is one row. Not part of samba.hpp; needs Eigen
/// 3.3 or newer.
#include <samba/io/tensor_names.hpp>
#include <samba/runtime/snapshot.hpp>
#include <samba/runtime/state_file.hpp>

#if !__has_include(<Eigen/Core>)
#error "samba/interop/eigen.hpp needs Eigen: apt-get install libeigen3-dev, in CMake Eigen3::Eigen"
#endif
#if defined(__GNUC__) && !defined(__clang__)
// As in kernels/simd/vec_type.hpp: g++ 12 warns about its own AVX-512 intrinsics.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <Eigen/Core>
#pragma GCC diagnostic pop
#else
#include <Eigen/Core>
#endif

#include <new>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// A matrix that owns its elements, row major like the files.
template <class R, int Order = Eigen::RowMajor>
using EigenMatrix = Eigen::Matrix<R, Eigen::Dynamic, Eigen::Dynamic, Order>;

namespace detail {

/// A map of elements, read-only if they are const.
template <class R, int Order = Eigen::RowMajor, class Stride = Eigen::Stride<0, 0>>
using EigenMap = Eigen::Map<
    std::conditional_t<std::is_const_v<R>, const EigenMatrix<std::remove_const_t<R>, Order>,
                       EigenMatrix<R, Order>>,
    Eigen::Unaligned, Stride>;

/// A weight tensor in a layer.
template <class X>
concept WeightTensor = requires {
  typename X::value_type;
  X::layout, X::rows, X::row_size;
};

/// The weight tensor whose name in files matches a pattern.
template <class Model, class T>
TensorRef<Real<T>> find_tensor(const char* who, const Weights<Model, T>& weights,
                               std::string_view pattern) {
  const auto found = matching_names(who, pattern, tensor_names(weights));
  if (found.size() > 1)
    fail({who, ": expected one tensor, found ", found.size(), " that match the pattern ",
          Quoted{pattern}});
  return weights.tensors()[found[0]];
}

/// A tensor of master weights, whatever its layout. Element: R or const R.
template <class Element, class R>
auto map_master(const TensorRef<R>& t) {
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  const Stride stride = t.layout == Layout::rows ? Stride(t.row_size, 1) : Stride(1, t.rows);
  return EigenMap<Element, Eigen::RowMajor, Stride>(static_cast<R*>(t.data), t.rows, t.row_size,
                                                    stride);
}

/// A tensor of one sequence's state: all extents but the last are rows.
template <class Element, class X>
auto map_state(const X& x, std::int64_t state = 0) {
  constexpr std::int64_t cols = X::shape[X::shape.size() - 1];
  const std::int64_t size = x.size_bytes() / std::int64_t{sizeof(Element)};
  return EigenMap<Element>(x.of(state), size / cols, cols);
}

template <class R>
EigenMatrix<R> copy_rows(const auto& tensor) {
  EigenMatrix<R> copy(tensor.rows, tensor.row_size);
  for (std::int64_t r = 0; r < tensor.rows; ++r) tensor.get_row(r, copy.row(r).data());
  return copy;
}
template <class R>
void set_rows(const auto& matrix, auto& tensor) {
  if (matrix.rows() != tensor.rows || matrix.cols() != tensor.row_size)
    fail({"from_eigen: expected a matrix of ", Shape{tensor.rows, tensor.row_size}, ", found ",
          Shape{matrix.rows(), matrix.cols()}});
  const EigenMatrix<R> values = matrix.template cast<R>();
  for (std::int64_t r = 0; r < tensor.rows; ++r) tensor.set_row(r, values.row(r).data());
}

}  // namespace detail

/// Maps rows, (count, C), with their stride.
template <class R, int C>
auto as_eigen(Rows<R, C> x) {
  using Stride = Eigen::OuterStride<>;
  return detail::EigenMap<R, Eigen::RowMajor, Stride>(x.data, x.rows, C, Stride(x.stride));
}

/// Maps values as one row, (1, values), for example the logits of a token.
template <class R>
auto as_eigen(std::span<R> x) {
  return detail::EigenMap<R>(x.data(), 1, std::ssize(x));
}

/// Maps values as rows of `cols`, (values / cols, cols), for example the logits of several tokens.
/// Throws Error if the last row is incomplete.
template <class R>
auto as_eigen(std::span<R> x, std::int64_t cols) {
  if (cols < 1 || std::ssize(x) % cols != 0)
    fail({"as_eigen: expected complete rows of ", cols, " values, found ", x.size(), " values"});
  return detail::EigenMap<R>(x.data(), std::ssize(x) / cols, cols);
}

/// Maps a weight tensor that is not packed, as (N, K) even if it is (K, N) in memory. After
/// changing A_log, call Weights::derive.
template <detail::WeightTensor X>
auto as_eigen(X& tensor) {
  static_assert(X::layout != Layout::packed && X::layout != Layout::blocks,
                "as_eigen: this matrix is packed in panels: to_eigen makes a copy, and the "
                "matrices of Weights<Model, Master<float>> are not packed");
  static_assert(std::is_floating_point_v<typename X::value_type>,
                "as_eigen: Eigen has no scalar of this type: to_eigen makes a copy in float");
  constexpr int order = X::layout == Layout::columns ? Eigen::ColMajor : Eigen::RowMajor;
  using Element = std::remove_pointer_t<decltype(tensor.data())>;
  return detail::EigenMap<Element, order>(tensor.data(), X::rows, X::row_size);
}

/// Maps a tensor of master weights, gradients or an optimiser's means, (N, K), whose name in files
/// matches a pattern (see glob_match). Throws Error unless exactly one does.
template <class Model, class R>
auto as_eigen(Weights<Model, Master<R>>& weights, std::string_view pattern) {
  return detail::map_master<R>(detail::find_tensor("as_eigen", weights, pattern));
}
template <class Model, class R>
auto as_eigen(const Weights<Model, Master<R>>& weights, std::string_view pattern) {
  return detail::map_master<const R>(detail::find_tensor("as_eigen", weights, pattern));
}

/// Maps a tensor in the state of a layer for one of the sequences (Segment::state). All extents but
/// the last are rows, for example (d_state, d_inner).
template <class R, int... Extents>
auto as_eigen(Array<R, Extents...>& x, std::int64_t state = 0) {
  return detail::map_state<R>(x, state);
}
template <class R, int... Extents>
auto as_eigen(const Array<R, Extents...>& x, std::int64_t state = 0) {
  return detail::map_state<const R>(x, state);
}

/// Maps a tensor of a snapshot by its name in state files: "0.ssm" is the ssm of branch 0. As
/// above; a ring of keys or values, (heads, slots, width), has heads * slots rows. R: the type of
/// the state, double if the weights are double, else float; KV: that of keys and values. Throws
/// Error if the snapshot has a different model or types, or no such tensor of R.
template <class Model, class R = float, class KV = R, class S>
  requires std::is_same_v<std::remove_const_t<S>, Snapshot>
auto as_eigen(S& snapshot, std::string_view name) {
  using Element = std::conditional_t<std::is_const_v<S>, const R, R>;
  const std::int64_t capacity = Model::has_capacity ? snapshot.capacity : 0;
  const StateInfo info{structure<Model>(), state_dtypes<R, KV>(), capacity};
  info.check_fits("as_eigen", ": the snapshot", snapshot.structure, snapshot.dtypes,
                  snapshot.capacity, snapshot.position);
  using P = Policy<R, KV>;
  typename Model::template States<P> states;
  if (const auto n = Model::template place_states<P>(states, nullptr, 0, capacity);
      n != snapshot.block.bytes())
    fail({"as_eigen: the snapshot: expected ", n, " bytes, found ", snapshot.block.bytes()});
  Model::template place_states<P>(states, snapshot.block.data(), 0, capacity);

  detail::EigenMap<Element> map(nullptr, 0, 0);
  std::string names;
  int number = 0;
  const auto find = [&](auto branch, Use, auto& part) {
    decltype(branch)::type::template State<P>::visit(part, [&]<class X>(auto tensor, X& x) {
      if constexpr (std::is_same_v<decltype(x.data), R*>) {
        const std::string known = detail::join({number, ".", detail::name_text(tensor)});
        detail::append(names, {names.empty() ? "" : ", ", known});
        if (known == name) new (&map) detail::EigenMap<Element>(detail::map_state<Element>(x));
      }
    });
    ++number;
  };
  Model::Stack::walk(find, Use{}, states);
  if (!map.data())
    fail({"as_eigen: the snapshot has no ", dtype_name(dtype_of<R>), " tensor ", Quoted{name},
          "; there are ", names});
  return map;
}

/// Copies a weight tensor of any type and layout, (N, K), in the type of the activations.
template <class R>
EigenMatrix<R> to_eigen(const TensorRef<R>& tensor) {
  return detail::copy_rows<R>(tensor);
}
template <detail::WeightTensor X>
EigenMatrix<Real<typename X::value_type>> to_eigen(const X& tensor) {
  return detail::copy_rows<Real<typename X::value_type>>(tensor);
}
/// As above, for the tensor whose name in files matches a pattern (see glob_match). Throws Error
/// unless exactly one does.
template <class Model, class T>
EigenMatrix<Real<T>> to_eigen(const Weights<Model, T>& weights, std::string_view pattern) {
  return to_eigen(detail::find_tensor("to_eigen", weights, pattern));
}

/// Replaces a weight tensor by a matrix, (N, K), which is rounded and packed as in load. Throws
/// Error, and changes nothing, if its size differs. After changing A_log, call Weights::derive.
template <class Derived, class R>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, const TensorRef<R>& tensor) {
  detail::set_rows<R>(matrix, tensor);
}
template <class Derived, detail::WeightTensor X>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, X& tensor) {
  detail::set_rows<Real<typename X::value_type>>(matrix, tensor);
}
/// As above, for the tensor whose name in files matches a pattern (see glob_match); also calls
/// Weights::derive. Throws Error unless exactly one does.
template <class Derived, class Model, class T>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, Weights<Model, T>& weights,
                std::string_view pattern) {
  from_eigen(matrix, detail::find_tensor("from_eigen", weights, pattern));
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
