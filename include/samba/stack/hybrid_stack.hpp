#pragma once
#include <samba/core/hash.hpp>
#include <samba/stack/branch.hpp>

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
template <class L>
inline constexpr int named_d_model<NoNorm<L>> = named_d_model<L>;
template <class E, int Id>
inline constexpr int named_d_model<Shared<E, Id>> = named_d_model<E>;

template <class... Elements>
constexpr int agreed_d_model() {
  for (const int d : {named_d_model<Elements>..., 0})
    if (d) return d;
  return 0;
}

/// Stops the compilation with a sentence where an element does not fit; names element, expected,
/// found.
template <class Element, int stack_d_model, int element_d_model>
struct CheckDModel {
  static_assert(stack_d_model == element_d_model || element_d_model == 0,
                "HybridStack: this element's d_model differs from that of the elements before it");
};
/// Instantiates checks by their sizes. (Not a fold: clang limits the depth of a fold to 256.)
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
                "HybridStack: not a layer: it has no `template <class T, class KV> struct State` "
                "with visit (if it keeps nothing: `template <class T, class KV> using State = "
                "Stateless`)");
  static_assert(
      HasScratch<L>,
      "HybridStack: not a layer: it has no `template <class T> struct Scratch` with visit");
  static_assert(
      HasForward<L>,
      "HybridStack: not a layer: it has no forward(chunk, weights, states, scratch, in, out)");
};

template <class L, int D>
struct Bound {
  using type = L;
};
template <Unbound L, int D>
struct Bound<L, D> {
  using type = typename L::template with_d_model<D>;
};

/// A number for a type: the FNV-1a hash of its name. (Not an address: with -fsanitize=undefined g++
/// 12 compares no addresses of templates in constants.)
template <class Key>
consteval std::uint64_t shared_key() {
  return fnv1a(__PRETTY_FUNCTION__);
}

/// A node whose branches carry the key under which their weights are shared.
template <class Node, class Key>
struct SharedNode : Node {
  static constexpr void walk(auto& tree, auto&& f, Use) {
    int number = 0;
    Node::walk(
        tree, [&](auto branch, auto& t, Use) { f(branch, t, Use{shared_key<Key>(), number++}); },
        Use{});
  }
};

/// DModel as an element: no branch.
struct EmptyNode {
  template <class Kind>
  struct Tree {};
  static constexpr void walk(auto&, auto&&, Use) {}
  template <class T, class KV>
  static void forward(const auto&...) {}
  template <class T, class KV>
  static void record(const auto&...) {}
  template <class T, class KV>
  static void backward(const auto&...) {}
};

/// What an element becomes in a stack of width D: a stack stays, a layer becomes a residual branch.
template <class E, int D>
struct NodeOf {
  using Layer = typename Bound<E, D>::type;
  static_assert(sizeof(CheckLayer<Layer>) > 0);
  using type = Branch<Layer, true>;
};
template <IsStack E, int D>
struct NodeOf<E, D> {
  using type = E;
};
template <class L, int D>
struct NodeOf<NoNorm<L>, D> {
  using Layer = typename Bound<L, D>::type;
  static_assert(sizeof(CheckLayer<Layer>) > 0);
  using type = Branch<Layer, false>;
};
template <class E, int Id, int D>
struct NodeOf<Shared<E, Id>, D> {
  using type = SharedNode<typename NodeOf<E, D>::type, Shared<E, Id>>;
};
template <int N, int D>
struct NodeOf<DModel<N>, D> {
  using type = EmptyNode;
};

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
/// One leaf of several states.
template <std::size_t I, class X>
auto leaf_states(const auto& states) {
  return states.template part<Leaf<I, X>>().tensor(&Leaf<I, X>::value);
}
template <class Kind, class Indices, class... Nodes>
struct Leaves;
template <class Kind, std::size_t... I, class... Nodes>
struct Leaves<Kind, std::index_sequence<I...>, Nodes...>
    : Leaf<I, typename Nodes::template Tree<Kind>>... {};

template <class Indices, class... Nodes>
struct Sequence;
template <std::size_t... I, class... Nodes>
struct Sequence<std::index_sequence<I...>, Nodes...> {
  template <class Kind>
  using Tree = Leaves<Kind, std::index_sequence<I...>, Nodes...>;

  template <class Kind>
  static constexpr void walk_as(auto& tree, auto&& f, Use use) {
    // An array, not a fold: clang limits the depth of a fold to 256.
    [[maybe_unused]] const int in_order[] = {
        0, (Nodes::walk(leaf<I, typename Nodes::template Tree<Kind>>(tree), f, use), 0)...};
  }

  template <class T, class KV, int D>
  static void forward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                      States<Tree<StateOf<T, KV>>> s, const Workspace& workspace, float norm_eps,
                      Rows<Real<T>, D> x) {
    [[maybe_unused]] const int in_order[] = {
        0, (Nodes::template forward<T, KV>(
                chunk, leaf<I, typename Nodes::template Tree<WeightsOf<T>>>(w),
                leaf_states<I, typename Nodes::template Tree<StateOf<T, KV>>>(s), workspace,
                norm_eps, x),
            0)...};
  }

  template <class T, class KV, int D>
  static void record(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                     States<Tree<StateOf<T, KV>>> s, Tape& tape, float norm_eps,
                     Rows<Real<T>, D> x) {
    [[maybe_unused]] const int in_order[] = {
        0,
        (Nodes::template record<T, KV>(
             chunk, leaf<I, typename Nodes::template Tree<WeightsOf<T>>>(w),
             leaf_states<I, typename Nodes::template Tree<StateOf<T, KV>>>(s), tape, norm_eps, x),
         0)...};
  }

  template <class T, class KV, int D>
  static void backward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                       Tree<WeightsOf<Master<Real<T>>>>& g, States<Tree<StateOf<T, KV>>> s,
                       States<Tree<StateOf<T, KV>>> again, States<Tree<StateOf<T, Real<T>>>> ds,
                       Tape& tape, float norm_eps, Rows<Real<T>, D> dx) {
    const auto one = [&]<std::size_t i, class Node>(const Leaf<i, std::type_identity<Node>>&) {
      Node::template backward<T, KV>(
          chunk, leaf<i, typename Node::template Tree<WeightsOf<T>>>(w),
          leaf<i, typename Node::template Tree<WeightsOf<Master<Real<T>>>>>(g),
          leaf_states<i, typename Node::template Tree<StateOf<T, KV>>>(s),
          leaf_states<i, typename Node::template Tree<StateOf<T, KV>>>(again),
          leaf_states<i, typename Node::template Tree<StateOf<T, Real<T>>>>(ds), tape, norm_eps,
          dx);
    };
    struct List : Leaf<I, std::type_identity<Nodes>>... {};
    [[maybe_unused]] const int in_order[] = {
      0,
      (one.template operator()<sizeof...(I) - 1 - I>(List{}), 0)...
    };
  }
};

}  // namespace detail

/// Layers and stacks one after another on a residual stream of d_model channels: a stack runs as it
/// is, a layer stands in a pre-norm residual branch, x += layer(rmsnorm(x)). d_model is the one
/// that the elements agree on; where none names one (attention alone), begin with DModel<...>.
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
  using Nodes = detail::Sequence<std::index_sequence_for<Elements...>,
                                 typename detail::NodeOf<Elements, d_model>::type...>;

 public:
  /// The tree of weights, states or nothing at all branches (see WeightsOf, StateOf, NothingOf).
  template <class Kind>
  struct Tree {
    using kind = Kind;
    typename Nodes::template Tree<Kind> nodes;
  };

  /// Calls f(std::type_identity<Branch>, subtree, use) for every branch in order.
  template <class AnyTree>
  static constexpr void walk(AnyTree& tree, auto&& f, Use use = {}) {
    Nodes::template walk_as<typename AnyTree::kind>(tree.nodes, f, use);
  }

  /// Runs the chunk's residual stream x, (rows, d_model), through all branches in place.
  template <class T, class KV>
  static void forward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                      States<Tree<StateOf<T, KV>>> s, const Workspace& workspace, float norm_eps,
                      Rows<Real<T>, d_model> x) {
    Nodes::template forward<T, KV>(chunk, w.nodes, s.tensor(&Tree<StateOf<T, KV>>::nodes),
                                   workspace, norm_eps, x);
  }

  /// forward, leaving on the tape what backward needs.
  template <class T, class KV>
  static void record(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                     States<Tree<StateOf<T, KV>>> s, Tape& tape, float norm_eps,
                     Rows<Real<T>, d_model> x) {
    Nodes::template record<T, KV>(chunk, w.nodes, s.tensor(&Tree<StateOf<T, KV>>::nodes), tape,
                                  norm_eps, x);
  }

  /// The branches' backward in reverse order; see Branch.
  template <class T, class KV>
  static void backward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                       Tree<WeightsOf<Master<Real<T>>>>& g, States<Tree<StateOf<T, KV>>> s,
                       States<Tree<StateOf<T, KV>>> again, States<Tree<StateOf<T, Real<T>>>> ds,
                       Tape& tape, float norm_eps, Rows<Real<T>, d_model> dx) {
    constexpr auto nodes = &Tree<StateOf<T, KV>>::nodes;
    Nodes::template backward<T, KV>(chunk, w.nodes, g.nodes, s.tensor(nodes), again.tensor(nodes),
                                    ds.tensor(&Tree<StateOf<T, Real<T>>>::nodes), tape, norm_eps,
                                    dx);
  }
};

/// Block n times over: an array of blocks and a run-time loop, so depth costs no compile time.
/// Block: a stack, or a layer (which then stands in a branch of its own).
template <int n, class Block>
struct Repeat {
  static_assert(n > 0, "Repeat<n, Block>: n must be positive");
  using StackTag = void;
  using Stack = typename std::conditional_t<detail::IsStack<Block>, std::type_identity<Block>,
                                            std::type_identity<HybridStack<Block>>>::type;
  static constexpr int d_model = Stack::d_model;

  template <class Kind>
  using Tree = std::array<typename Stack::template Tree<Kind>, n>;

  static constexpr void walk(auto& tree, auto&& f, Use use = {}) {
    for (auto& block : tree) Stack::walk(block, f, use);
  }

  template <class T, class KV>
  static void forward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                      States<Tree<StateOf<T, KV>>> s, const Workspace& workspace, float norm_eps,
                      Rows<Real<T>, d_model> x) {
    for (std::size_t i = 0; i < n; ++i)
      Stack::template forward<T, KV>(chunk, w[i], s.element(i), workspace, norm_eps, x);
  }

  template <class T, class KV>
  static void record(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                     States<Tree<StateOf<T, KV>>> s, Tape& tape, float norm_eps,
                     Rows<Real<T>, d_model> x) {
    for (std::size_t i = 0; i < n; ++i)
      Stack::template record<T, KV>(chunk, w[i], s.element(i), tape, norm_eps, x);
  }

  template <class T, class KV>
  static void backward(const Chunk& chunk, const Tree<WeightsOf<T>>& w,
                       Tree<WeightsOf<Master<Real<T>>>>& g, States<Tree<StateOf<T, KV>>> s,
                       States<Tree<StateOf<T, KV>>> again, States<Tree<StateOf<T, Real<T>>>> ds,
                       Tape& tape, float norm_eps, Rows<Real<T>, d_model> dx) {
    for (std::size_t i = n; i-- > 0;)
      Stack::template backward<T, KV>(chunk, w[i], g[i], s.element(i), again.element(i),
                                      ds.element(i), tape, norm_eps, dx);
  }
};

/// Calls f(std::type_identity<Branch>, use) for every branch of a stack in order.
template <class Stack>
constexpr void for_each_branch(auto&& f) {
  typename Stack::template Tree<NothingOf> tree{};
  Stack::walk(tree, [&](auto branch, auto&, Use use) { f(branch, use); }, Use{});
}

}  // namespace samba::inline SAMBA_TARGET
