#pragma once
#include <samba/core/error.hpp>
#include <samba/stack/hybrid_stack.hpp>

#include <string>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// A tensor's name with a prefix, joined only when a string is needed.
template <class Rest>
struct Prefixed {
  int number;
  const char* prefix;
  Rest rest;

  operator std::string() const {
    return std::to_string(number) + "." + prefix + "." + std::string(rest);
  }
};

/// Calls f with the tensors of layer `number`, with its number and name as a prefix of theirs.
template <class F>
struct PrefixedVisitor {
  F& f;
  int number;
  const char* prefix;

  constexpr void operator()(auto name, auto& x, const auto&... attributes) const {
    f(Prefixed<decltype(name)>{number, prefix, name}, x, attributes...);
  }
};

/// Calls f("tensor", name and shape) for every tensor.
template <class F>
struct TensorLister {
  F& f;

  template <class X>
  void operator()(auto name, const X&, const auto&...) const {
    f("tensor", join({std::string(name), X::shape}));
  }
};

template <class Indices, class... Layers>
struct Sum;

}  // namespace detail

/// Mixers in parallel in one branch: out = sum of layer(u) (as in Hymba, without its per-head
/// norms). Tensors are called `<number>.<layer>.<tensor>`.
template <class... Layers>
struct Parallel {
  static_assert(sizeof...(Layers) >= 2, "Parallel: give at least two layers");

  template <int D>
  using with_d_model =
      detail::Sum<std::index_sequence_for<Layers...>, typename detail::Bound<Layers, D>::type...>;

  static constexpr int d_model = detail::agreed_d_model<Layers...>();
};

template <std::size_t... I, class... Layers>
struct detail::Sum<std::index_sequence<I...>, Layers...> {
  static constexpr const char* name = "parallel";
  static constexpr int d_model = agreed_d_model<Layers...>();
  static_assert((sizeof(CheckDModel<Layers, d_model, Layers::d_model>) + ...) > 0);
  static_assert((sizeof(CheckLayer<Layers>) + ...) > 0);

 private:
  // One layer's part of the functions below. (Not lambdas in folds: nvcc rejects packs in those.)
  template <std::size_t i, class L, class Part>
  static constexpr void visit_part(auto& parts, auto& f) {
    PrefixedVisitor<std::remove_reference_t<decltype(f)>> prefixed{f, static_cast<int>(i), L::name};
    Part::visit(leaf<i, Part>(parts), prefixed);
  }
  template <class L>
  static constexpr void visit_options_of(auto& f) {
    f("layer", L::name);
    if constexpr (requires { L::visit_options(f); }) {
      L::visit_options(f);
    } else {
      const typename L::template Weights<float> w{};
      TensorLister<std::remove_reference_t<decltype(f)>> list{f};
      L::template Weights<float>::visit(w, list);
    }
  }
  template <class L>
  static constexpr std::int64_t flops_of(std::int64_t position) {
    if constexpr (requires { L::other_flops(position); })
      return L::other_flops(position);
    else
      return 0;
  }

 public:
  using Reads = typename JoinedChannels<typename ReadsOf<Layers>::type...>::type;
  using Writes = typename JoinedChannels<typename WritesOf<Layers>::type...>::type;
  static_assert(!lends_state(Writes{}),
                "Parallel: a layer that lends its state must be in a branch of its own");

  template <class T>
  struct Weights : Leaf<I, typename Layers::template Weights<T>>... {
    static constexpr void visit(auto& w, auto&& f) {
      (visit_part<I, Layers, typename Layers::template Weights<T>>(w, f), ...);
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      (detail::visit_derived<typename Layers::template Weights<T>>(
           leaf<I, typename Layers::template Weights<T>>(w), f),
       ...);
    }
    void derive() { (detail::derive(leaf<I, typename Layers::template Weights<T>>(*this)), ...); }
    void derive_backward(Weights<Master<Real<T>>>& g) const {
      (detail::derive_backward(leaf<I, typename Layers::template Weights<T>>(*this),
                               leaf<I, typename Layers::template Weights<Master<Real<T>>>>(g)),
       ...);
    }
  };

  template <class P>
  struct State : Leaf<I, typename Layers::template State<P>>... {
    static constexpr void visit(auto& s, auto&& f) {
      (visit_part<I, Layers, typename Layers::template State<P>>(s, f), ...);
    }
  };

  template <class P>
  struct Scratch : Leaf<I, typename Layers::template Scratch<P>>... {
    Rows<Act<P>, d_model> term;

    static void visit(auto& t, auto&& f) {
      f(t.term);
      (Layers::template Scratch<P>::visit(leaf<I, typename Layers::template Scratch<P>>(t), f),
       ...);
    }
  };

  template <class P>
  struct Backward : Leaf<I, typename BackwardOf<Layers, P>::type>... {
    static_assert((sizeof(CheckTrained<Layers>) + ...) > 0);
    Rows<Act<P>, d_model> du;

    static void visit(auto& t, auto&& f) {
      f(t.du);
      (BackwardOf<Layers, P>::type::visit(leaf<I, typename BackwardOf<Layers, P>::type>(t), f),
       ...);
    }
  };

  /// Each layer's name and options. A layer without options is identified by its tensors.
  static void visit_options(auto&& f) { (visit_options_of<Layers>(f), ...); }

  static constexpr std::int64_t other_flops(std::int64_t position) {
    return (flops_of<Layers>(position) + ...);
  }

  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, d_model> u, Out<P, d_model> out) {
    (term<I, Layers>(c, w, s, t, u, out), ...);
  }

  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       In<P, d_model> u, In<P, d_model> dout, Out<P, d_model> du) {
    (term_backward<I, Layers>(c, w, g, s, ds, t, d, u, dout, du), ...);
  }

 private:
  template <std::size_t i, class L, class P>
  static void term(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                   const Scratch<P>& t, In<P, d_model> u, Out<P, d_model> out) {
    L::forward(c, leaf<i, typename L::template Weights<Weight<P>>>(w),
               leaf<i, typename L::template State<P>>(s),
               leaf<i, typename L::template Scratch<P>>(t), u,
               i == 0 ? out : Out<P, d_model>(t.term));
    if constexpr (i > 0) kernels::add<d_model>(c, {.term = t.term, .to = out});
  }

  template <std::size_t i, class L, class P>
  static void term_backward(const Context<P>& c, const Weights<Weight<P>>& w,
                            Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                            const State<Gradients<P>>& ds, const Scratch<P>& t,
                            const Backward<P>& d, In<P, d_model> u, In<P, d_model> dout,
                            Out<P, d_model> du) {
    if constexpr (HasBackward<L>)
      L::backward(c, leaf<i, typename L::template Weights<Weight<P>>>(w),
                  leaf<i, typename L::template Weights<Weight<Gradients<P>>>>(g),
                  leaf<i, typename L::template State<P>>(s),
                  leaf<i, typename L::template State<Gradients<P>>>(ds),
                  leaf<i, typename L::template Scratch<P>>(t),
                  leaf<i, typename L::template Backward<P>>(d), u, dout,
                  i == 0 ? du : Out<P, d_model>(d.du));
    if constexpr (i > 0) kernels::add<d_model>(c, {.term = d.du, .to = du});
  }
};

}  // namespace samba::inline SAMBA_TARGET
