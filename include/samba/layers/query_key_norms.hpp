#pragma once
#include <samba/kernels/elementwise.hpp>
#include <samba/layers/attention_options.hpp>

namespace samba::inline SAMBA_TARGET::detail {

/// RMSNorm of one token's queries or keys: of each head, all with the same weights, or of all heads
/// together. Rows: (rows, Heads * HeadDim).
template <QkNorm Kind, NormOptions O, int Heads, int HeadDim>
struct HeadNorm {
  static constexpr int width = Heads * HeadDim, columns = Kind == QkNorm::head ? HeadDim : width;
  template <class T>
  using Weights = typename Norm<O>::template Weights<T, columns>;
  template <class P>
  using Statistics = Rows<Real<P>, width / columns>;

  /// In place.
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, Rows<Act<P>, width> x) {
    kernels::head_norm<columns>(
        c, {.weight = w.scale(), .eps = c.norm_eps, .x = parts(x), .out = parts(x)});
  }
  /// Given dout, writes the gradient of x to dx and adds that of the weights to g.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, Rows<Act<P>, width> x,
                       Rows<Act<P>, width> dout, Rows<Act<P>, width> dx, Statistics<P> inverse) {
    kernels::clear(c, dx);
    kernels::head_norm_backward<columns>(
        c, {.weight = w.scale(),
            .eps = c.norm_eps,
            .x = parts(x),
            .dout = parts(dout),
            .dx = parts(dx),
            .dweight = g.scale(),
            .inverse = Rows<Real<P>, 1>{inverse.data, parts(x).rows}});
  }

 private:
  /// What is normalised together, as rows.
  template <class R>
  static Rows<R, columns> parts(Rows<R, width> x) {
    return {x.data, x.rows * (width / columns)};
  }
};

/// The norms of queries and keys in a layer of attention with these AttentionSizes, which have
/// qk_norm: off too, where all of it is empty and queries and keys stay as they are.
template <class Sizes>
struct QueryKeyNorms {
  static constexpr bool on = Sizes::qk_norm != QkNorm::off;
  static constexpr int kv_heads = Sizes::n_kv_heads, head_dim = Sizes::head_dim,
                       q_width = Sizes::n_heads * head_dim, k_width = kv_heads * head_dim;
  using QNorm = HeadNorm<Sizes::qk_norm, Sizes::qk_norm_options, Sizes::n_heads, head_dim>;
  using KNorm = HeadNorm<Sizes::qk_norm, Sizes::qk_norm_options, kv_heads, head_dim>;
  template <class R>
  using Queries = kernels::Heads<R, kv_heads, Sizes::group, head_dim>;
  template <class R>
  using Keys = kernels::Heads<R, kv_heads, 1, head_dim>;
  template <class R>
  struct Pair {
    Queries<R> q;
    Keys<R> k;
  };

  template <class T>
  struct Weights {
    typename QNorm::template Weights<T> q;
    typename KNorm::template Weights<T> k;

    static constexpr void visit(auto& w, auto&& f) {
      if constexpr (on) {
        Norm<Sizes::qk_norm_options>::visit(w.q, f, "q_norm.weight", "");
        Norm<Sizes::qk_norm_options>::visit(w.k, f, "k_norm.weight", "");
      }
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      if constexpr (on) {
        Norm<Sizes::qk_norm_options>::visit_derived(w.q, f, "q_norm.factor");
        Norm<Sizes::qk_norm_options>::visit_derived(w.k, f, "k_norm.factor");
      }
    }
    void derive() {
      if constexpr (on) {
        q.derive();
        k.derive();
      }
    }
    void derive_backward(Weights<Master<Real<T>>>& g) const {
      if constexpr (on) {
        q.derive_backward(g.q);
        k.derive_backward(g.k);
      }
    }
  };

  /// Queries and keys, normalised.
  template <class P>
  struct Scratch {
    Rows<Act<P>, q_width> q;
    Rows<Act<P>, k_width> k;

    static void visit(auto& t, auto&& f) {
      if constexpr (on) {
        f(t.q);
        f(t.k);
      }
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, q_width> q, dq;  // the gradients of queries before and after the norm
    Rows<Act<P>, k_width> k, dk;
    typename QNorm::template Statistics<P> q_inverse;
    typename KNorm::template Statistics<P> k_inverse;

    static void visit(auto& t, auto&& f) {
      if constexpr (on) {
        f(t.q);
        f(t.dq);
        f(t.k);
        f(t.dk);
        f(t.q_inverse);
        f(t.k_inverse);
      }
    }
  };

  /// Where the results are: x itself without norms. buffers: Scratch, or of gradients Backward.
  template <class R>
  static Pair<R> results(const auto& t, const Pair<R>& x) {
    if constexpr (!on)
      return x;
    else if constexpr (requires { t.dq; })
      return {t.dq, t.dk};
    else
      return {t.q, t.k};
  }

  template <class P>
  static Pair<Act<P>> forward(const Context<P>& c, const Weights<Weight<P>>& w, const Scratch<P>& t,
                              const Pair<Act<P>>& x) {
    if constexpr (on) {
      copy(c, x, {t.q, t.k});
      QNorm::forward(c, w.q, t.q);
      KNorm::forward(c, w.k, t.k);
    }
    return results(t, x);
  }

  /// Given the gradients of the results, in their place, writes those of x to dx and adds those of the
  /// weights to g. The results are overwritten.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const Scratch<P>& t, const Backward<P>& d,
                       const Pair<Act<P>>& x, const Pair<Act<P>>& dx) {
    if constexpr (on) {
      copy(c, x, {t.q, t.k});
      QNorm::backward(c, w.q, g.q, t.q, d.dq, d.q, d.q_inverse);
      KNorm::backward(c, w.k, g.k, t.k, d.dk, d.k, d.k_inverse);
      copy(c, {d.q, d.k}, dx);
    }
  }

 private:
  template <class P>
  static void copy(const Context<P>& c, const Pair<Act<P>>& from, const Pair<Act<P>>& to) {
    kernels::copy_heads<kv_heads, Sizes::group, head_dim>(c, {.from = from.q, .to = to.q});
    kernels::copy_heads<kv_heads, 1, head_dim>(c, {.from = from.k, .to = to.k});
  }
};

}  // namespace samba::inline SAMBA_TARGET::detail
