#pragma once
/// \file
/// What a residual branch computes, x += node(x): a layer with the norms around it.
#include <samba/kernels/elementwise.hpp>
#include <samba/layers/norm.hpp>
#include <samba/stack/layer.hpp>

namespace samba::inline SAMBA_TARGET {

/// The content of a residual branch. A node is any type with
///
///     using NodeTag = void;
///     using Layer = ...;                    // tables and files name the branch after it
///     static constexpr const char* kind;    // in front of the layer's name in tables; "" for Pre
///     static constexpr int d_model;
///     template <class T> struct Weights;    // visit, and visit_derived, derive, derive_backward
///     template <class P> State, Scratch;    // as in a layer
///     forward(context, weights, state, scratch, x, out)   // out = node(x); x: the residual stream
///
/// and, for training, `template <class P> struct Backward` and backward(context, weights,
/// gradients, state, state_gradients, scratch, backward, x, dout, dx), which adds to dx.
template <class N>
concept Node = requires { typename N::NodeTag; };

/// A branch without a norm: x += layer(x).
template <class L>
struct NoNorm {};

/// A pre-norm branch: x += layer(norm(x)). The default for a layer in a stack.
template <class NormType, class L>
struct Pre {};

/// A branch with a norm before and after its layer: x += norm(layer(norm(x))).
template <class Before, class L, class After = Before>
struct Sandwich {};

/// A branch that also sees the tokens' embeddings e, the input of the first branch (Zamba, Glorioso
/// et al. 2024): x += W layer(norm([x e])). The layer's d_model is twice that of the stack.
template <class NormType, class L>
struct OnEmbedding {};

/// Options of Scaled. (An aggregate, because clang 14 accepts no float as a template argument.)
struct ScaledOptions {
  float factor = 1;
};

/// A branch whose result is multiplied by a factor: x += factor * node(x). For example
/// Scaled<ScaledOptions{.factor = 0.22f}, L>. Element: a layer or one of the above.
template <auto Options, class Element>
struct Scaled {
  static_assert(detail::are_options<ScaledOptions, Options>,
                "Scaled<Options, Element>: write options as ScaledOptions{.factor = 0.22f}");
};

/// The norms of bare layers in a HybridStack, as its first element or the one after DModel. With
/// one norm they become Pre<Before, L>, with two Sandwich<Before, L, After>.
template <class Before, class After = void>
struct Norms {};

namespace detail {

/// The weights of a layer and its norms. void: no norm.
template <class Before, class L, class After, class T>
struct NodeWeights {
  static constexpr int D = L::d_model;
  struct Nothing {};
  template <class N>
  struct WeightsOfNorm {
    using type = typename N::template Weights<T, D>;
  };

  typename std::conditional_t<std::is_void_v<Before>, std::type_identity<Nothing>,
                              WeightsOfNorm<Before>>::type norm;
  typename L::template Weights<T> layer;
  typename std::conditional_t<std::is_void_v<After>, std::type_identity<Nothing>,
                              WeightsOfNorm<After>>::type after;

  static constexpr void visit(auto& w, auto&& f) {
    if constexpr (!std::is_void_v<Before>)
      Before::visit(w.norm, f, "norm.weight", "norm.bias", of_branch);
    L::template Weights<T>::visit(w.layer, f);
    if constexpr (!std::is_void_v<After>)
      After::visit(w.after, f, "norm_after.weight", "norm_after.bias", of_branch);
  }
  static constexpr void visit_derived(auto& w, auto&& f) {
    if constexpr (!std::is_void_v<Before>) Before::visit_derived(w.norm, f, "norm.factor");
    detail::visit_derived<typename L::template Weights<T>>(w.layer, f);
    if constexpr (!std::is_void_v<After>) After::visit_derived(w.after, f, "norm_after.factor");
  }
  void derive() {
    detail::derive(norm);
    detail::derive(layer);
    detail::derive(after);
  }
  void derive_backward(NodeWeights<Before, L, After, Master<Real<T>>>& g) const {
    detail::derive_backward(norm, g.norm);
    detail::derive_backward(layer, g.layer);
    detail::derive_backward(after, g.after);
  }
};

/// Scratch that a norm's backward needs for each row.
template <class N, class P>
struct StatisticsOf {
  using type = typename N::template Statistics<P>;
};
template <class P>
struct StatisticsOf<void, P> {
  using type = None;
};

/// after(layer(before(x))). A norm that is void is left out.
template <class Before, class L, class After>
struct NormedNode {
  using NodeTag = void;
  using Layer = L;
  static constexpr int d_model = L::d_model;
  static constexpr bool normed = !std::is_void_v<Before>, sandwich = !std::is_void_v<After>;
  static constexpr const char* kind = sandwich ? "sandwich" : normed ? "" : "no_norm";

  template <class T>
  using Weights = NodeWeights<Before, L, After, T>;
  template <class P>
  using State = typename L::template State<P>;

  template <class P>
  struct Scratch {
    Rows<Act<P>, d_model> normed_x, y;
    typename L::template Scratch<P> layer;

    static void visit(auto& t, auto&& f) {
      if constexpr (normed) f(t.normed_x);
      if constexpr (sandwich) f(t.y);
      L::template Scratch<P>::visit(t.layer, f);
    }
  };

  template <class P>
  struct Backward {
    static_assert(sizeof(CheckTrained<L>) > 0);
    Rows<Act<P>, d_model> du, dy;
    typename StatisticsOf<Before, P>::type statistics;
    typename StatisticsOf<After, P>::type after_statistics;
    typename BackwardOf<L, P>::type layer;

    static void visit(auto& t, auto&& f) {
      f(t.du);
      if constexpr (normed) f(t.statistics);
      if constexpr (sandwich) {
        f(t.dy);
        f(t.after_statistics);
      }
      BackwardOf<L, P>::type::visit(t.layer, f);
    }
  };

  /// The options of the norms, as `norm.eps=...`.
  static constexpr void visit_options(auto&& f) {
    if constexpr (requires { Before::visit_options(f); }) Before::visit_options(f);
    if constexpr (requires { After::visit_options(f); }) After::visit_options(f);
  }

  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, RowsArgument<const Residual<P>, d_model> x,
                      Out<P, d_model> out) {
    if constexpr (normed) Before::template forward<d_model>(c, w.norm, x, t.normed_x);
    const Out<P, d_model> y = sandwich ? Out<P, d_model>(t.y) : out;
    L::forward(c, w.layer, s, t.layer, layer_in<P>(t, x), y);
    if constexpr (sandwich) After::template forward_output<d_model>(c, w.after, y, out);
  }

  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       RowsArgument<const Residual<P>, d_model> x, In<P, d_model> dout,
                       RowsArgument<Residual<P>, d_model> dx) {
    In<P, d_model> dy = dout;
    if constexpr (sandwich) {
      kernels::clear<d_model>(c, d.dy);
      After::template backward<d_model>(c, w.after, g.after, t.y, dout, d.dy, d.after_statistics);
      dy = d.dy;
    }
    if constexpr (HasBackward<L>)  // otherwise CheckTrained has already failed
      L::backward(c, w.layer, g.layer, s, ds, t.layer, d.layer, layer_in<P>(t, x), dy,
                  Out<P, d_model>(d.du));
    if constexpr (normed)
      Before::template backward<d_model>(c, w.norm, g.norm, x, d.du, dx, d.statistics);
    else
      kernels::add_to_residual<d_model>(c, {.term = d.du, .to = dx});
  }

 private:
  template <class P>
  static In<P, d_model> layer_in(const Scratch<P>& t,
                                 const RowsArgument<const Residual<P>, d_model>& x) {
    if constexpr (normed) {
      return t.normed_x;
    } else {
      static_assert(std::is_same_v<Act<P>, Residual<P>>,
                    "NoNorm: activations and residual stream have different types on this device");
      return x;
    }
  }
};

/// A node whose result is multiplied by a factor.
template <auto Options, class N>
struct ScaledNode : N {
  static constexpr float factor = options_of<ScaledOptions, Options>.factor;
};

/// The factor by which a node's result is multiplied.
template <class N>
inline constexpr float factor_of = [] {
  if constexpr (requires { N::factor; })
    return N::factor;
  else
    return 1.f;
}();

}  // namespace detail
}  // namespace samba::inline SAMBA_TARGET
