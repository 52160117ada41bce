#pragma once
#include <samba/core/chunk.hpp>
#include <samba/core/tensor.hpp>

#include <concepts>
#include <string_view>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

namespace detail {

template <class L>
concept HasName = requires { std::string_view(L::name); };
template <class L>
concept HasDModel = requires { std::integral_constant<int, L::d_model>{}; };
template <class L>
concept HasWeights = requires(typename L::template Weights<float> w) {
  L::template Weights<float>::visit(w, [](auto, auto&) {});
};
template <class L>
concept HasState = requires(typename L::template State<float, float> s) {
  L::template State<float, float>::visit(s, [](auto, auto&) {});
};
template <class L>
concept HasScratch = requires(typename L::template Scratch<float> t, ScratchPlacer place) {
  L::template Scratch<float>::visit(t, place);
};
template <class L>
concept HasForward = requires(const Chunk& chunk, const typename L::template Weights<float>& w,
                              States<typename L::template State<float, float>> s,
                              typename L::template Scratch<float>& t, In<float, L::d_model> in,
                              Out<float, L::d_model> out) { L::forward(chunk, w, s, t, in, out); };

/// A layer that takes its d_model from the stack it stands in.
template <class L>
concept Unbound = requires { typename L::template with_d_model<1>; };

template <class E>
concept IsStack = requires { typename E::StackTag; };

}  // namespace detail

/// A layer: any type with
///
///     static constexpr const char* name;          // in checkpoint names and tables
///     static constexpr int d_model;
///     template <class T> struct Weights;          // static visit(w, f): f(name, tensor) for each
///     template <class T, class KV> struct State;  // visit as above; Stateless if there is none
///     template <class T> struct Scratch;          // static visit(t, f): f(rows) for each buffer
///     forward(chunk, weights, states, scratch, in, out)  // out = layer(in), advancing the states
///
/// and, if wanted, visit_options(f): f(name, value) for each hyperparameter, and
/// other_flops(position). To be trained it also has
///
///     template <class T> struct Backward;         // scratch of the backward pass, visit as above
///     backward(chunk, weights, gradients, states, state_gradients, scratch, backward, in, dout, din)
///
/// Nothing is registered. A type with `template <int D> using with_d_model` is made a layer by the
/// stack.
template <class L>
concept Layer = detail::HasName<L> && detail::HasDModel<L> && detail::HasWeights<L> &&
                detail::HasState<L> && detail::HasScratch<L> && detail::HasForward<L>;

/// The d_model of a stack whose layers name none: the first element of HybridStack.
template <int D>
struct DModel {};

/// A layer whose residual branch has no norm: x += layer(x).
template <class L>
struct NoNorm {};

/// An element whose weights are stored once and used wherever the same Shared<Element, Id> stands
/// in a model; states stay separate. Element: a layer or a stack. Id tells equal elements apart.
template <class Element, int Id = 0>
struct Shared {};

}  // namespace samba::inline SAMBA_TARGET
