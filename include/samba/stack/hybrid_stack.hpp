#pragma once
#include <samba/stack/branch.hpp>
#include <samba/stack/on_embedding.hpp>

#include <array>
#include <utility>

namespace samba::inline SAMBA_TARGET {

template <class... Elements>
struct HybridStack;

namespace detail {

/// d_model that an element names; 0 if it leaves that to the stack.
template <class E>
inline constexpr int named_d_model = [] {
  if constexpr (HasDModel<E>)
    return E::d_model;
  else
    return 0;
}();
template <int D>
inline constexpr int named_d_model<DModel<D>> = D;
template <class Before, class After>
inline constexpr int named_d_model<Norms<Before, After>> = 0;
template <class L>
inline constexpr int named_d_model<NoNorm<L>> = named_d_model<L>;
template <class N, class L>
inline constexpr int named_d_model<Pre<N, L>> = named_d_model<L>;
template <class Before, class L, class After>
inline constexpr int named_d_model<Sandwich<Before, L, After>> = named_d_model<L>;
template <class N, class L>
inline constexpr int named_d_model<OnEmbedding<N, L>> = named_d_model<L> / 2;
template <auto factor, class E>
inline constexpr int named_d_model<Scaled<factor, E>> = named_d_model<E>;
template <class E, int Id>
inline constexpr int named_d_model<Shared<E, Id>> = named_d_model<E>;

template <class... Elements>
constexpr int agreed_d_model() {
  for (const int d : {named_d_model<Elements>..., 0})
    if (d) return d;
  return 0;
}

/// Stops the compilation with a message where an element does not fit; names element, expected,
/// found.
template <class Element, int stack_d_model, int element_d_model>
struct CheckDModel {
  static_assert(stack_d_model == element_d_model || element_d_model == 0,
                "HybridStack: this element's d_model differs from that of the elements before it");
};
/// Instantiates checks by taking their sizes. (Not a fold: clang limits the depth of a fold to 256.)
template <std::size_t... sizes>
inline constexpr bool all_complete = true;
template <class L>
struct CheckLayer {
  static_assert(HasName<L>,
                "HybridStack: not a layer: it has no `static constexpr const char* name`");
  static_assert(HasDModel<L>, "HybridStack: not a layer: it has no `static constexpr int d_model`");
  static_assert(
      HasWeights<L>,
      "HybridStack: not a layer: it has no `template <class T> struct Weights` with visit");
  static_assert(HasState<L>,
                "HybridStack: not a layer: it has no `template <class P> struct State` with visit "
                "(if it keeps nothing: `template <class P> using State = Stateless`)");
  static_assert(
      HasScratch<L>,
      "HybridStack: not a layer: it has no `template <class P> struct Scratch` with visit");
  static_assert(
      HasForward<L>,
      "HybridStack: not a layer: it has no forward(context, weights, state, scratch, in, out)");
};

template <class L, int D>
struct Bound {
  using type = L;
};
template <Unbound L, int D>
struct Bound<L, D> {
  using type = typename L::template with_d_model<D>;
};

/// Calls f with the key under which weights are shared.
template <class F, class Key>
struct SharedWalk {
  F& f;
  int number = 0;

  constexpr void operator()(auto branch, Use, auto&... leaves) {
    f(branch, Use{type_key<Key>(), number++}, leaves...);
  }
};

/// An element whose branches carry the key under which their weights are shared.
template <class E, class Key>
struct SharedElement : E {
  template <class F>
  static constexpr void walk(F& f, Use, auto&... trees) {
    SharedWalk<F, Key> shared{f};
    E::walk(shared, Use{}, trees...);
  }
  template <class F>
  static constexpr void walk_back(F& f, Use, auto&... trees) {
    SharedWalk<F, Key> shared{f};  // backward passes do not ask for its numbers
    E::walk_back(shared, Use{}, trees...);
  }
};

/// DModel and Norms as elements: no branch.
struct EmptyElement {
  template <class Kind>
  struct Tree {
    using kind = Kind;
  };
  static constexpr void walk(auto&, Use, auto&...) {}
  static constexpr void walk_back(auto&, Use, auto&...) {}
};

/// What a layer becomes in a branch of a stack.
template <class Before, class L, int D, class After>
struct NodeOfLayer {
  using Layer = typename Bound<L, D>::type;
  static_assert(sizeof(CheckLayer<Layer>) > 0);
  using type = NormedNode<Before, Layer, After>;
};
template <class E, int D, class Before, class After>
struct NodeOf : NodeOfLayer<Before, E, D, After> {};
template <Node N, int D, class Before, class After>
struct NodeOf<N, D, Before, After> {
  using type = N;
};
template <class L, int D, class Before, class After>
struct NodeOf<NoNorm<L>, D, Before, After> : NodeOfLayer<void, L, D, void> {};
template <class N, class L, int D, class Before, class After>
struct NodeOf<Pre<N, L>, D, Before, After> : NodeOfLayer<N, L, D, void> {};
template <class N, class L, class M, int D, class Before, class After>
struct NodeOf<Sandwich<N, L, M>, D, Before, After> : NodeOfLayer<N, L, D, M> {};
template <class N, class L, int D, class Before, class After>
struct NodeOf<OnEmbedding<N, L>, D, Before, After> {
  using Layer = typename Bound<L, 2 * D>::type;
  static_assert(sizeof(CheckLayer<Layer>) > 0);
  using type = OnEmbeddingNode<N, Layer>;
};
template <auto factor, class E, int D, class Before, class After>
struct NodeOf<Scaled<factor, E>, D, Before, After> {
  static_assert(sizeof(Scaled<factor, E>) > 0);
  using type = ScaledNode<factor, typename NodeOf<E, D, Before, After>::type>;
};

/// What an element becomes in a stack of width D: a stack stays, all else becomes a residual branch.
template <class E, int D, class Before, class After>
struct ElementOf {
  using type = Branch<typename NodeOf<E, D, Before, After>::type>;
};
template <IsStack E, int D, class Before, class After>
struct ElementOf<E, D, Before, After> {
  using type = E;
};
template <class E, int Id, int D, class Before, class After>
struct ElementOf<Shared<E, Id>, D, Before, After> {
  using type = SharedElement<typename ElementOf<E, D, Before, After>::type, Shared<E, Id>>;
};
template <int N, int D, class Before, class After>
struct ElementOf<DModel<N>, D, Before, After> {
  using type = EmptyElement;
};
template <class N, class M, int D, class Before, class After>
struct ElementOf<Norms<N, M>, D, Before, After> {
  using type = EmptyElement;
};

/// The norms that a stack's bare layers get.
template <class... Elements>
struct NormsOf {
  using before = Norm<>;
  using after = void;
};
template <class Before, class After, class... Elements>
struct NormsOf<Norms<Before, After>, Elements...> {
  using before = Before;
  using after = After;
};
template <int D, class Before, class After, class... Elements>
struct NormsOf<DModel<D>, Norms<Before, After>, Elements...>
    : NormsOf<Norms<Before, After>, Elements...> {};

/// Members by number without recursion: a base class each (a tuple of 384 costs tens of seconds).
template <std::size_t I, class X>
struct Leaf {
  X value;
};
template <std::size_t I, class X>
constexpr X& leaf(Leaf<I, X>& l) {
  return l.value;
}
template <std::size_t I, class X>
constexpr const X& leaf(const Leaf<I, X>& l) {
  return l.value;
}
/// The type of leaf I of a tree, for a cast (a call of leaf for each would cost compile time).
template <class Tree, std::size_t I, class E>
using LeafOf = std::conditional_t<std::is_const_v<Tree>,
                                  const Leaf<I, typename E::template Tree<typename Tree::kind>>,
                                  Leaf<I, typename E::template Tree<typename Tree::kind>>>;
template <class Kind, class Indices, class... Elements>
struct Leaves;
template <class Kind, std::size_t... I, class... Elements>
struct Leaves<Kind, std::index_sequence<I...>, Elements...>
    : Leaf<I, typename Elements::template Tree<Kind>>... {
  using kind = Kind;
};

template <class Indices, class... Elements>
struct Sequence;
template <std::size_t... I, class... Elements>
struct Sequence<std::index_sequence<I...>, Elements...> {
  template <class Kind>
  using Tree = Leaves<Kind, std::index_sequence<I...>, Elements...>;

  // Arrays, not folds: clang limits the depth of a fold to 256.

  static constexpr void walk(auto& f, Use use, auto&... trees) {
    [[maybe_unused]] const int in_order[] = {0, (one<I, Elements>(f, use, trees...), 0)...};
  }
  static constexpr void walk_back(auto& f, Use use, auto&... trees) {
    struct List : Leaf<I, std::type_identity<Elements>>... {};
    [[maybe_unused]] const int in_order[] = {
        0, (one_back<sizeof...(I) - 1 - I>(List{}, f, use, trees...), 0)...};
  }

 private:
  template <std::size_t i, class E, class F, class... Trees>
  static constexpr void one(F& f, Use use, Trees&... trees) {
    E::walk(f, use, static_cast<LeafOf<Trees, i, E>&>(trees).value...);
  }
  template <std::size_t i, class E, class F, class... Trees>
  static constexpr void one_back(const Leaf<i, std::type_identity<E>>&, F& f, Use use,
                                 Trees&... trees) {
    E::walk_back(f, use, static_cast<LeafOf<Trees, i, E>&>(trees).value...);
  }
};

}  // namespace detail

/// Layers and stacks one after another on a residual stream of d_model channels: a stack runs as it
/// is, a layer becomes a pre-norm residual branch, x += layer(rmsnorm(x)), or what Norms says; Pre,
/// Sandwich, NoNorm, Scaled and a user's own nodes are other branches. d_model is the one that the
/// elements agree on; where none names one (attention alone), begin with DModel<...>.
template <class... Elements>
struct HybridStack {
  using StackTag = void;
  static constexpr int d_model = detail::agreed_d_model<Elements...>();
  static_assert(d_model > 0,
                "HybridStack: no element names d_model; begin with DModel<...>, "
                "as in HybridStack<DModel<512>, SWA<256>>");
  static_assert(detail::all_complete<sizeof(
                    detail::CheckDModel<Elements, d_model, detail::named_d_model<Elements>>)...>);

 private:
  using Default = detail::NormsOf<Elements...>;
  using Sequence =
      detail::Sequence<std::index_sequence_for<Elements...>,
                       typename detail::ElementOf<Elements, d_model, typename Default::before,
                                                  typename Default::after>::type...>;

 public:
  /// The tree of weights, states or nothing at all branches (see WeightsOf, StateOf, NothingOf).
  template <class Kind>
  using Tree = typename Sequence::template Tree<Kind>;

  /// Calls f(std::type_identity<Branch>, use, leaves...) for every branch in order, with its part of
  /// each of the trees; walk_back in the reverse order.
  static constexpr void walk(auto& f, Use use, auto&... trees) { Sequence::walk(f, use, trees...); }
  static constexpr void walk_back(auto& f, Use use, auto&... trees) {
    Sequence::walk_back(f, use, trees...);
  }
};

/// Block n times over: an array of blocks and a run-time loop, so depth costs no compile time.
/// Block: a stack, or a layer (which then is a branch of its own).
template <int n, class Block>
struct Repeat {
  static_assert(n > 0, "Repeat<n, Block>: n must be positive");
  using StackTag = void;
  using Stack = typename std::conditional_t<detail::IsStack<Block>, std::type_identity<Block>,
                                            std::type_identity<HybridStack<Block>>>::type;
  static constexpr int d_model = Stack::d_model;

  template <class Kind>
  struct Tree {
    using kind = Kind;
    typename Stack::template Tree<Kind> blocks[n];
  };

  static constexpr void walk(auto& f, Use use, auto&... trees) {
    for (int i = 0; i < n; ++i) Stack::walk(f, use, trees.blocks[i]...);
  }
  static constexpr void walk_back(auto& f, Use use, auto&... trees) {
    for (int i = n; i-- > 0;) Stack::walk_back(f, use, trees.blocks[i]...);
  }
};

/// Calls f(std::type_identity<Branch>, use) for every branch of a stack in order.
template <class Stack, class F>
constexpr void for_each_branch(F&& f) {
  Stack::walk(f, Use{});
}

}  // namespace samba::inline SAMBA_TARGET
