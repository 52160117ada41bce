#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/rmsnorm.hpp>

namespace samba::inline SAMBA_TARGET {

/// Options of Norm.
struct NormOptions {
  float eps = 0;          ///< added to the mean square; 0: ModelOptions::norm_eps
  bool plus_one = false;  ///< weights are stored less 1, as Gemma's are
};

/// RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * weight.
template <auto Options = NormOptions{}>
struct Norm {
  static_assert(detail::are_options<NormOptions, Options>,
                "Norm<Options>: write options as NormOptions{.plus_one = true}");
  static constexpr float own_eps = detail::options_of<NormOptions, Options>.eps;
  static constexpr bool plus_one = detail::options_of<NormOptions, Options>.plus_one;
  static_assert(own_eps >= 0, "Norm: eps must not be negative");
  static constexpr Initial initial = plus_one ? init::zero : init::one;

  template <class T, int D>
  struct Weights {
    Vector<Real<T>, D> weight;
    Vector<Real<T>, D> factor;  // derived: 1 + weight

    void derive() {
      if constexpr (plus_one)
        for (int i = 0; i < D; ++i) factor.data()[i] = 1 + weight.data()[i];
    }
    void derive_backward(Weights<Master<Real<T>>, D>& g) const {
      if constexpr (plus_one)
        for (int i = 0; i < D; ++i) {
          g.weight.data()[i] += g.factor.data()[i];
          g.factor.data()[i] = 0;
        }
    }
    constexpr auto& scale() const {
      if constexpr (plus_one)
        return factor;
      else
        return weight;
    }
    constexpr auto& scale() {
      if constexpr (plus_one)
        return factor;
      else
        return weight;
    }
  };

  static constexpr void visit_options(auto&& f) {
    if constexpr (own_eps > 0) f("eps", own_eps);
    if constexpr (plus_one) f("plus_one", plus_one);
  }

  /// out = norm(x). x, out: (rows, D).
  template <int D, class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>, D>& w,
                      RowsArgument<const Residual<P>, D> x, Out<P, D> out) {
    kernels::rmsnorm<D>(c, {.weight = w.scale(), .eps = eps(c), .x = x, .out = out});
  }

  /// dx += the gradient of x for dout that of out; g is added to. inverse: scratch.
  template <int D, class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>, D>& w,
                       Weights<Weight<Gradients<P>>, D>& g, RowsArgument<const Residual<P>, D> x,
                       In<P, D> dout, RowsArgument<Residual<P>, D> dx,
                       RowsArgument<Real<P>, 1> inverse) {
    kernels::rmsnorm_backward<D>(c, {.weight = w.scale(),
                                     .eps = eps(c),
                                     .x = x,
                                     .dout = dout,
                                     .dx = dx,
                                     .dweight = g.scale(),
                                     .inverse = inverse});
  }

 private:
  template <class P>
  static float eps(const Context<P>& c) {
    return own_eps > 0 ? own_eps : c.norm_eps;
  }
};

}  // namespace samba::inline SAMBA_TARGET
