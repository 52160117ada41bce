#pragma once
#include <samba/kernels/matmul.hpp>
#include <samba/stack/node.hpp>

namespace samba::inline SAMBA_TARGET::detail {

/// W layer(norm([x e])), where e is the input of the first branch. The layer is 2 d_model wide.
template <class NormType, class L>
struct OnEmbeddingNode {
  using NodeTag = void;
  using Layer = L;
  static constexpr int wide = L::d_model, d_model = wide / 2;
  static_assert(wide % 2 == 0, "OnEmbedding: the layer's d_model must be twice that of the stack");
  static constexpr const char* kind = "on_embedding";
  using Reads = Channels<Embedding<d_model>>;

  template <class T>
  struct Weights {
    typename NormType::template Weights<T, wide> norm;
    typename L::template Weights<T> layer;
    Matrix<T, d_model, wide> down;

    static constexpr void visit(auto& w, auto&& f) {
      NormType::visit(w.norm, f, "norm.weight", "norm.bias", of_branch);
      L::template Weights<T>::visit(w.layer, f);
      f("down.weight", w.down, of_branch, init::output);
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      NormType::visit_derived(w.norm, f, "norm.factor");
      detail::visit_derived<typename L::template Weights<T>>(w.layer, f);
    }
    void derive() {
      detail::derive(norm);
      detail::derive(layer);
    }
    void derive_backward(Weights<Master<Real<T>>>& g) const {
      detail::derive_backward(norm, g.norm);
      detail::derive_backward(layer, g.layer);
    }
  };
  template <class P>
  using State = typename L::template State<P>;

  template <class P>
  struct Scratch {
    Rows<Residual<P>, wide> both;
    Rows<Act<P>, wide> normed, y;
    typename L::template Scratch<P> layer;

    static void visit(auto& t, auto&& f) {
      f(t.both);
      f(t.normed);
      f(t.y);
      L::template Scratch<P>::visit(t.layer, f);
    }
  };

  template <class P>
  struct Backward {
    static_assert(sizeof(CheckTrained<L>) > 0);
    Rows<Act<P>, wide> dy, du;
    Rows<Residual<P>, wide> dboth;
    typename NormType::template Statistics<P> statistics;
    typename BackwardOf<L, P>::type layer;

    static void visit(auto& t, auto&& f) {
      f(t.dy);
      f(t.du);
      f(t.dboth);
      f(t.statistics);
      BackwardOf<L, P>::type::visit(t.layer, f);
    }
  };

  static constexpr void visit_options(auto&& f) { NormType::visit_options(f); }

  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, RowsArgument<const Residual<P>, d_model> x,
                      Out<P, d_model> out) {
    using namespace kernels;
    copy<d_model>(c, {.from = x, .to = first<d_model>(t.both)});
    copy<d_model>(c, {.from = c.template read<Embedding<d_model>>(), .to = last<d_model>(t.both)});
    NormType::template forward<wide>(c, w.norm, t.both, t.normed);
    L::forward(c, w.layer, s, t.layer, In<P, wide>(t.normed), Out<P, wide>(t.y));
    matmul(c, w.down, t.y, out);
  }

  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       RowsArgument<const Residual<P>, d_model>, In<P, d_model> dout,
                       RowsArgument<Residual<P>, d_model> dx) {
    using namespace kernels;
    matmul_backward(c, w.down, {.x = t.y, .dout = dout, .dw = g.down, .dx = d.dy});
    if constexpr (HasBackward<L>)
      L::backward(c, w.layer, g.layer, s, ds, t.layer, d.layer, In<P, wide>(t.normed),
                  In<P, wide>(d.dy), Out<P, wide>(d.du));
    clear(c, d.dboth);
    NormType::template backward<wide>(c, w.norm, g.norm, t.both, d.du, d.dboth, d.statistics);
    add_to_residual<d_model>(c, {.term = first<d_model>(d.dboth), .to = dx});
    add<d_model>(c,
                 {.term = last<d_model>(d.dboth), .to = c.template gradient<Embedding<d_model>>()});
  }
};

}  // namespace samba::inline SAMBA_TARGET::detail
