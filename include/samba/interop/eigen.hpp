#pragma once
/// \file
/// samba's data for Eigen. `as_eigen` makes maps: the data stay where they are and must outlive the
/// map, which is read-only where they are const. Packed matrices and numbers of fewer bits cannot be
/// mapped: `to_eigen` copies them, `from_eigen` puts a matrix in their place. A tensor of weights has
/// the shape that it has in a file, (N, K); a vector is one row. Not part of samba.hpp; needs Eigen
/// 3.3 or newer.
#include <samba/io/tensor_names.hpp>
#include <samba/runtime/snapshot.hpp>
#include <samba/runtime/state_file.hpp>

#if !__has_include(<Eigen/Core>)
#error "samba/interop/eigen.hpp needs Eigen: apt-get install libeigen3-dev, in CMake Eigen3::Eigen"
#endif
#if defined(__GNUC__) && !defined(__clang__)
// As in kernels/simd/vec_type.hpp: g++ 12 warns of its own AVX-512 intrinsics.
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

/// A matrix that owns its numbers, row major as files are.
template <class R, int Order = Eigen::RowMajor>
using EigenMatrix = Eigen::Matrix<R, Eigen::Dynamic, Eigen::Dynamic, Order>;

namespace detail {

/// A map of elements, read-only where they are const.
template <class R, int Order = Eigen::RowMajor, class Stride = Eigen::Stride<0, 0>>
using EigenMap = Eigen::Map<
    std::conditional_t<std::is_const_v<R>, const EigenMatrix<std::remove_const_t<R>, Order>,
                       EigenMatrix<R, Order>>,
    Eigen::Unaligned, Stride>;

/// A tensor of weights as a layer has it.
template <class X>
concept WeightTensor = requires {
  typename X::value_type;
  X::layout, X::rows, X::row_size;
};

/// The tensor of the weights whose name in files matches a pattern.
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

/// Rows, (count, C), with their stride.
template <class R, int C>
auto as_eigen(Rows<R, C> x) {
  using Stride = Eigen::OuterStride<>;
  return detail::EigenMap<R, Eigen::RowMajor, Stride>(x.data, x.rows, C, Stride(x.stride));
}

/// Values as one row, for example the logits of a token: (1, values).
template <class R>
auto as_eigen(std::span<R> x) {
  return detail::EigenMap<R>(x.data(), 1, std::ssize(x));
}

/// Values in rows of `cols`, for example the logits of many tokens: (values / cols, cols). Throws
/// Error where the last row is not whole.
template <class R>
auto as_eigen(std::span<R> x, std::int64_t cols) {
  if (cols < 1 || std::ssize(x) % cols != 0)
    fail({"as_eigen: expected whole rows of ", cols, " values, found ", x.size(), " values"});
  return detail::EigenMap<R>(x.data(), std::ssize(x) / cols, cols);
}

/// A tensor of weights that is not packed, (N, K), even if it is (K, N) in memory. Whoever
/// changes A_log calls Weights::derive.
template <detail::WeightTensor X>
auto as_eigen(X& tensor) {
  static_assert(X::layout != Layout::packed,
                "as_eigen: this matrix is packed in panels: to_eigen makes a copy, and the "
                "matrices of Weights<Model, Master<float>> are not packed");
  static_assert(std::is_floating_point_v<typename X::value_type>,
                "as_eigen: Eigen has no numbers of this type: to_eigen makes a copy in float");
  constexpr int order = X::layout == Layout::columns ? Eigen::ColMajor : Eigen::RowMajor;
  using Element = std::remove_pointer_t<decltype(tensor.data())>;
  return detail::EigenMap<Element, order>(tensor.data(), X::rows, X::row_size);
}

/// A tensor of master weights, of gradients or of an optimiser's means, (N, K), whose name in files
/// matches a pattern (see glob_match). Throws Error if none or more than one does.
template <class Model, class R>
auto as_eigen(Weights<Model, Master<R>>& weights, std::string_view pattern) {
  return detail::map_master<R>(detail::find_tensor("as_eigen", weights, pattern));
}
template <class Model, class R>
auto as_eigen(const Weights<Model, Master<R>>& weights, std::string_view pattern) {
  return detail::map_master<const R>(detail::find_tensor("as_eigen", weights, pattern));
}

/// A tensor of a layer's state, of one of the sequences (Segment::state): all extents but the last are
/// rows, for example (d_state, d_inner).
template <class R, int... Extents>
auto as_eigen(Array<R, Extents...>& x, std::int64_t state = 0) {
  return detail::map_state<R>(x, state);
}
template <class R, int... Extents>
auto as_eigen(const Array<R, Extents...>& x, std::int64_t state = 0) {
  return detail::map_state<const R>(x, state);
}

/// A tensor of a snapshot by its name in state files: "0.ssm" is the ssm of branch 0. As above; a ring
/// of keys or values, (heads, slots, width), has heads * slots rows. R: the type of the state, double
/// where the weights are, else float; KV: that of keys and values. Throws Error if the snapshot is
/// of another model or other types, and where it has no such tensor of R.
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
        names += detail::join({names.empty() ? "" : ", ", known});
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

/// A copy of a tensor of weights of any type and layout, (N, K), in the type of the activations.
template <class R>
EigenMatrix<R> to_eigen(const TensorRef<R>& tensor) {
  return detail::copy_rows<R>(tensor);
}
template <detail::WeightTensor X>
EigenMatrix<Real<typename X::value_type>> to_eigen(const X& tensor) {
  return detail::copy_rows<Real<typename X::value_type>>(tensor);
}
/// As above, the one whose name in files matches a pattern (see glob_match). Throws Error if none
/// or more than one does.
template <class Model, class T>
EigenMatrix<Real<T>> to_eigen(const Weights<Model, T>& weights, std::string_view pattern) {
  return to_eigen(detail::find_tensor("to_eigen", weights, pattern));
}

/// Puts a matrix, (N, K), into a tensor of weights, replacing it; it is rounded and packed as load does.
/// Throws Error, and changes nothing, if its sizes are others. Whoever changes A_log calls
/// Weights::derive.
template <class Derived, class R>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, const TensorRef<R>& tensor) {
  detail::set_rows<R>(matrix, tensor);
}
template <class Derived, detail::WeightTensor X>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, X& tensor) {
  detail::set_rows<Real<typename X::value_type>>(matrix, tensor);
}
/// As above, the tensor whose name in files matches a pattern (see glob_match), and calls
/// Weights::derive. Throws Error if none or more than one does.
template <class Derived, class Model, class T>
void from_eigen(const Eigen::MatrixBase<Derived>& matrix, Weights<Model, T>& weights,
                std::string_view pattern) {
  from_eigen(matrix, detail::find_tensor("from_eigen", weights, pattern));
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
