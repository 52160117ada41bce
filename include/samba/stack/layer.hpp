#pragma once
#include <samba/core/context.hpp>
#include <samba/core/initial.hpp>

#include <concepts>
#include <string_view>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Accepts any tensor, to check that visit() compiles.
struct AnyVisitor {
  void operator()(const auto& /*name*/, auto& /*tensor*/, const auto&... /*attributes*/) const {}
};

/// The policy that layers are checked with.
using AnyPolicy = Policy<float>;

template <class L>
concept HasName = requires { std::string_view(L::name); };
template <class L>
concept HasDModel = requires { std::integral_constant<int, L::d_model>{}; };
template <class L>
concept HasWeights = requires(typename L::template Weights<float> w, AnyVisitor f) {
  L::template Weights<float>::visit(w, f);
};
template <class L>
concept HasState = requires(typename L::template State<AnyPolicy> s, AnyVisitor f) {
  L::template State<AnyPolicy>::visit(s, f);
};
template <class L>
concept HasScratch = requires(typename L::template Scratch<AnyPolicy> t, ScratchPlacer place) {
  L::template Scratch<AnyPolicy>::visit(t, place);
};
template <class L>
concept HasForward =
    requires(const Context<AnyPolicy>& c, const typename L::template Weights<float>& w,
             const typename L::template State<AnyPolicy>& s,
             const typename L::template Scratch<AnyPolicy>& t, In<AnyPolicy, L::d_model> in,
             Out<AnyPolicy, L::d_model> out) { L::forward(c, w, s, t, in, out); };
template <class L>
concept HasBackwardScratch =
    requires(typename L::template Backward<AnyPolicy> d, ScratchPlacer place) {
      L::template Backward<AnyPolicy>::visit(d, place);
    };
template <class L>
concept HasBackward =
    HasBackwardScratch<L> &&
    requires(const Context<AnyPolicy>& c, const typename L::template Weights<float>& w,
             typename L::template Weights<Master<float>>& g,
             const typename L::template State<AnyPolicy>& s,
             const typename L::template State<Gradients<AnyPolicy>>& ds,
             const typename L::template Scratch<AnyPolicy>& t,
             const typename L::template Backward<AnyPolicy>& d, In<AnyPolicy, L::d_model> in,
             Out<AnyPolicy, L::d_model> out) { L::backward(c, w, g, s, ds, t, d, in, in, out); };

/// Stops the compilation with a message if a layer cannot be trained.
template <class L>
struct CheckTrained {
  static_assert(HasBackwardScratch<L>,
                "Gradient: this layer cannot be trained: it has no `template <class P> struct "
                "Backward` with visit");
  static_assert(!HasBackwardScratch<L> || HasBackward<L>,
                "Gradient: this layer cannot be trained: it has no backward(context, weights, "
                "gradients, state, state_gradients, scratch, backward, in, dout, din)");
};
/// L::Backward<P>, or an empty type if there is none, so that the message is the only error.
template <class L, class P>
struct BackwardOf {
  using type = Stateless;
};
template <HasBackwardScratch L, class P>
struct BackwardOf<L, P> {
  using type = typename L::template Backward<P>;
};

/// visit_derived calls f with the tensors that a layer derives from its weights, derive computes
/// them, and derive_backward adds their gradients to those of the weights. For layers without
/// derived tensors they do nothing.
template <class W>
constexpr void visit_derived(auto& w, auto&& f) {
  if constexpr (requires { W::visit_derived(w, f); }) W::visit_derived(w, f);
}
void derive(auto& w) {
  if constexpr (requires { w.derive(); }) w.derive();
}
void derive_backward(const auto& w, auto& g) {
  if constexpr (requires { w.derive_backward(g); }) w.derive_backward(g);
}

/// A layer that takes its d_model from its stack.
template <class L>
concept Unbound = requires { typename L::template with_d_model<1>; };

template <class E>
concept IsStack = requires { typename E::StackTag; };

}  // namespace detail

/// A layer: any type with
///
///     static constexpr const char* name;     // in checkpoint names and tables
///     static constexpr int d_model;
///     template <class T> struct Weights;     // T: how matrices are stored; static visit(w, f):
///                                            //   f(name, tensor, attributes...) for each;
///                                            //   attributes: see core/initial.hpp
///     template <class P> struct State;       // visit as above; or using State = Stateless
///     template <class P> struct Scratch;     // static visit(t, f): f(rows) for each buffer
///     template <class P>
///     forward(context, weights, state, scratch, in, out)  // out = layer(in), advancing the states
///
/// and, optionally, visit_options(f): f(name, value) for each hyperparameter,
/// other_flops(position), and the channels that it uses, `using Reads = Channels<...>` and `using
/// Writes = Channels<...>`. For training it also has
///
///     template <class P> struct Backward;    // scratch of the backward pass, visit as above
///     template <class P>
///     backward(context, weights, gradients, state, state_gradients, scratch, backward, in, dout,
///              din)
///
/// P is a Policy, which names all types of a pass; see core/context.hpp. No registration is needed.
/// A type with `template <int D> using with_d_model` becomes a layer in a stack of width D.
template <class L>
concept Layer = detail::HasName<L> && detail::HasDModel<L> && detail::HasWeights<L> &&
                detail::HasState<L> && detail::HasScratch<L> && detail::HasForward<L>;

/// The first element of a HybridStack whose layers do not name their d_model.
template <int D>
struct DModel {};

/// An element whose weights are stored once and used wherever the same Shared<Element, Id> occurs
/// in a model; states stay separate. Element: a layer or a stack. Id tells equal elements apart.
template <class Element, int Id = 0>
struct Shared {};

}  // namespace samba::inline SAMBA_TARGET
