#pragma once
#include <samba/core/error.hpp>
#include <samba/stack/hybrid_stack.hpp>

#include <string>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// A tensor's name behind a prefix, joined only where a string is asked for.
template <class Rest>
struct Prefixed {
  int number;
  const char* prefix;
  Rest rest;

  operator std::string() const {
    return std::to_string(number) + "." + prefix + "." + std::string(rest);
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

  template <class T>
  struct Weights : Leaf<I, typename Layers::template Weights<T>>... {
    static constexpr void visit(auto& w, auto&& f) {
      (Layers::template Weights<T>::visit(leaf<I, typename Layers::template Weights<T>>(w),
                                          [&](auto tensor, auto& x) {
                                            f(Prefixed<decltype(tensor)>{I, Layers::name, tensor},
                                              x);
                                          }),
       ...);
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      (derived<Layers>(leaf<I, typename Layers::template Weights<T>>(w), f), ...);
    }
    void derive() { (derive_one(leaf<I, typename Layers::template Weights<T>>(*this)), ...); }
    void derive_backward(Weights<Master<Real<T>>>& g) const {
      (derive_one_backward(leaf<I, typename Layers::template Weights<T>>(*this),
                           leaf<I, typename Layers::template Weights<Master<Real<T>>>>(g)),
       ...);
    }

   private:
    template <class L>
    static constexpr void derived(auto& w, auto&& f) {
      if constexpr (requires { L::template Weights<T>::visit_derived(w, f); })
        L::template Weights<T>::visit_derived(w, f);
    }
    static void derive_one(auto& w) {
      if constexpr (requires { w.derive(); }) w.derive();
    }
    static void derive_one_backward(const auto& w, auto& g) {
      if constexpr (requires { w.derive_backward(g); }) w.derive_backward(g);
    }
  };

  template <class T, class KV>
  struct State : Leaf<I, typename Layers::template State<T, KV>>... {
    static constexpr void visit(auto& s, auto&& f) {
      (Layers::template State<T, KV>::visit(leaf<I, typename Layers::template State<T, KV>>(s),
                                            [&](auto tensor, auto& x) {
                                              f(Prefixed<decltype(tensor)>{I, Layers::name, tensor},
                                                x);
                                            }),
       ...);
    }
  };

  template <class T>
  struct Scratch : Leaf<I, typename Layers::template Scratch<T>>... {
    Rows<Real<T>, d_model> term;

    static void visit(auto& t, auto&& f) {
      f(t.term);
      (Layers::template Scratch<T>::visit(leaf<I, typename Layers::template Scratch<T>>(t), f),
       ...);
    }
  };

  template <class T>
  struct Backward : Leaf<I, typename BackwardOf<Layers, T>::type>... {
    static_assert((sizeof(CheckTrained<Layers>) + ...) > 0);
    Rows<Real<T>, d_model> du;

    static void visit(auto& t, auto&& f) {
      f(t.du);
      (BackwardOf<Layers, T>::type::visit(leaf<I, typename BackwardOf<Layers, T>::type>(t), f),
       ...);
    }
  };

  /// Each layer's name and options; a layer that names none is told apart by its tensors.
  static void visit_options(auto&& f) {
    const auto one = [&](auto layer) {
      using L = typename decltype(layer)::type;
      f("layer", L::name);
      if constexpr (requires { L::visit_options(f); }) {
        L::visit_options(f);
      } else {
        typename L::template Weights<float> w;
        L::template Weights<float>::visit(w, [&]<class X>(auto name, const X&) {
          f("tensor", detail::join({std::string(name), X::shape}));
        });
      }
    };
    (one(std::type_identity<Layers>{}), ...);
  }

  static constexpr std::int64_t other_flops(std::int64_t position) {
    const auto one = [&](auto layer) -> std::int64_t {
      using L = typename decltype(layer)::type;
      if constexpr (requires { L::other_flops(position); })
        return L::other_flops(position);
      else
        return 0;
    };
    return (one(std::type_identity<Layers>{}) + ...);
  }

  template <class T, class KV>
  static void forward(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s,
                      Scratch<T>& t, In<Real<T>, d_model> u, Out<Real<T>, d_model> out) {
    (term<I, Layers>(chunk, w, s, t, u, out), ...);
  }

  template <class T, class KV>
  static void backward(const Chunk& chunk, const Weights<T>& w, Weights<Master<Real<T>>>& g,
                       States<State<T, KV>> s, States<State<T, Real<T>>> ds, Scratch<T>& t,
                       Backward<T>& d, In<Real<T>, d_model> u, In<Real<T>, d_model> dout,
                       Out<Real<T>, d_model> du) {
    (term_backward<I, Layers>(chunk, w, g, s, ds, t, d, u, dout, du), ...);
  }

 private:
  template <std::size_t i, class L, class T, class KV>
  static void term_backward(const Chunk& chunk, const Weights<T>& w, Weights<Master<Real<T>>>& g,
                            States<State<T, KV>> s, States<State<T, Real<T>>> ds, Scratch<T>& t,
                            Backward<T>& d, In<Real<T>, d_model> u, In<Real<T>, d_model> dout,
                            Out<Real<T>, d_model> du) {
    if constexpr (HasBackward<L>)
      detail::call_backward<L, T, KV>(chunk, leaf<i, typename L::template Weights<T>>(w),
                                      leaf<i, typename L::template Weights<Master<Real<T>>>>(g),
                                      leaf_states<i, typename L::template State<T, KV>>(s),
                                      leaf_states<i, typename L::template State<T, Real<T>>>(ds),
                                      leaf<i, typename L::template Scratch<T>>(t),
                                      leaf<i, typename L::template Backward<T>>(d), u, dout,
                                      i == 0 ? du : d.du);
    if constexpr (i > 0) kernels::add(chunk.team, d.du, du);
  }

  template <std::size_t i, class L, class T, class KV>
  static void term(const Chunk& chunk, const Weights<T>& w, States<State<T, KV>> s, Scratch<T>& t,
                   In<Real<T>, d_model> u, Out<Real<T>, d_model> out) {
    detail::call_forward<L, T, KV>(chunk, leaf<i, typename L::template Weights<T>>(w),
                                   leaf_states<i, typename L::template State<T, KV>>(s),
                                   leaf<i, typename L::template Scratch<T>>(t), u,
                                   i == 0 ? out : t.term);
    if constexpr (i > 0) kernels::add(chunk.team, t.term, out);
  }
};

}  // namespace samba::inline SAMBA_TARGET
