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

/// Calls L::forward and L::backward. T and KV follow from the arguments; where they do not, as KV in
/// a layer without a state, they are given.
template <class L, class T, class KV>
void call_forward(auto&&... args)
  requires requires { L::forward(args...); } || requires { L::template forward<T, KV>(args...); }
{
  if constexpr (requires { L::forward(args...); })
    L::forward(args...);
  else
    L::template forward<T, KV>(args...);
}
template <class L, class T, class KV>
void call_backward(auto&&... args)
  requires requires { L::backward(args...); } || requires { L::template backward<T, KV>(args...); }
{
  if constexpr (requires { L::backward(args...); })
    L::backward(args...);
  else
    L::template backward<T, KV>(args...);
}

template <class L>
concept HasForward = requires(const Chunk& chunk, const typename L::template Weights<float>& w,
                              States<typename L::template State<float, float>> s,
                              typename L::template Scratch<float>& t, In<float, L::d_model> in,
                              Out<float, L::d_model> out) {
  call_forward<L, float, float>(chunk, w, s, t, in, out);
};
template <class L>
concept HasBackwardScratch = requires(typename L::template Backward<float> d, ScratchPlacer place) {
  L::template Backward<float>::visit(d, place);
};
template <class L>
concept HasBackward =
    HasBackwardScratch<L> &&
    requires(const Chunk& chunk, const typename L::template Weights<float>& w,
             typename L::template Weights<Master<float>>& g,
             States<typename L::template State<float, float>> s,
             typename L::template Scratch<float>& t, typename L::template Backward<float>& d,
             In<float, L::d_model> in, Out<float, L::d_model> out) {
      call_backward<L, float, float>(chunk, w, g, s, s, t, d, in, in, out);
    };

/// Stops the compilation with a sentence where a layer is to be trained and cannot be.
template <class L>
struct CheckTrained {
  static_assert(HasBackwardScratch<L>,
                "Gradient: this layer cannot be trained: it has no `template <class T> struct "
                "Backward` with visit");
  static_assert(!HasBackwardScratch<L> || HasBackward<L>,
                "Gradient: this layer cannot be trained: it has no backward(chunk, weights, "
                "gradients, states, state_gradients, scratch, backward, in, dout, din)");
};
/// L::Backward<T>, or nothing where there is none: then the sentence is all that the compiler says.
template <class L, class T>
struct BackwardOf {
  using type = Stateless;
};
template <HasBackwardScratch L, class T>
struct BackwardOf<L, T> {
  using type = typename L::template Backward<T>;
};

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
///     template <class T, class KV> struct State;  // visit as above; or using State = Stateless
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
