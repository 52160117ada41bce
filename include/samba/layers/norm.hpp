#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/layernorm.hpp>
#include <samba/kernels/rmsnorm.hpp>

namespace samba::inline SAMBA_TARGET {

/// The kinds of norms.
enum class NormKind {
  rms,   ///< RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps)
  layer  ///< LayerNorm (Ba et al. 2016): (x - mean(x)) / sqrt(variance(x) + eps)
};

/// Options of Norm.
struct NormOptions {
  NormKind kind = NormKind::rms;
  float eps = 0;          ///< 0: ModelOptions::norm_eps
  bool plus_one = false;  ///< the stored weights are the scale minus 1, as in Gemma
  bool bias = false;      ///< added to the result; LayerNorm only

  friend constexpr bool operator==(const NormOptions&, const NormOptions&) = default;
};

namespace detail {

/// Calls f(name, value) for the options that are not their defaults.
[[gnu::cold]] constexpr void visit_norm_options(const NormOptions& o, auto&& f) {
  if (o.kind == NormKind::layer) f("kind", "layer");
  if (o.eps > 0) f("eps", o.eps);
  if (o.plus_one) f("plus_one", true);
  if (o.bias) f("bias", true);
}

}  // namespace detail

/// Normalises every token: norm(x) * weight (+ bias).
template <auto Options = NormOptions{}>
struct Norm {
  static_assert(detail::are_options<NormOptions, Options>,
                "Norm<Options>: write options as NormOptions{.plus_one = true}");
  // Separate constants: clang 14 reads options at run time from the wrong address.
  static constexpr NormOptions options = detail::options_of<NormOptions, Options>;
  static constexpr bool is_rms = options.kind == NormKind::rms, plus_one = options.plus_one,
                        bias = options.bias;
  static constexpr float own_eps = options.eps;
  static_assert(own_eps >= 0, "Norm: eps must not be negative");
  static_assert(!bias || !is_rms, "Norm: only NormKind::layer has a bias");

  template <class T, int D>
  struct Weights {
    Vector<Real<T>, D> weight, offset;
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
    /// The scale: weight, or 1 + weight.
    constexpr const auto& scale() const { return plus_one ? factor : weight; }
    constexpr auto& scale() { return plus_one ? factor : weight; }
  };

  /// Calls f for the weight and, if there is one, the bias, under the given names and with more
  /// attributes.
  static constexpr void visit(auto& w, auto&& f, const char* weight_name, const char* bias_name,
                              const auto&... attributes) {
    if constexpr (plus_one)
      f(weight_name, w.weight, init::zero, less_one, attributes...);
    else
      f(weight_name, w.weight, init::one, attributes...);
    if constexpr (bias) f(bias_name, w.offset, attributes...);
  }
  static constexpr void visit_derived(auto& w, auto&& f, const char* factor_name) {
    if constexpr (plus_one) f(factor_name, w.factor);
  }

  static constexpr void visit_options(auto&& f) {
    detail::visit_norm_options({.kind = is_rms ? NormKind::rms : NormKind::layer,
                                .eps = own_eps,
                                .plus_one = plus_one,
                                .bias = bias},
                               f);
  }

  /// out = norm(x). x, out: (rows, D).
  template <int D, class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>, D>& w,
                      RowsArgument<const Residual<P>, D> x, Out<P, D> out) {
    if constexpr (is_rms)
      kernels::rmsnorm<D>(c, {.weight = w.scale(), .eps = eps(c), .x = x, .out = out});
    else
      kernels::layernorm<D>(
          c, {.weight = w.scale(), .bias = w.offset, .eps = eps(c), .x = x, .out = out});
  }

  /// The same of a layer's output, which are activations.
  template <int D, class P>
  static void forward_output(const Context<P>& c, const Weights<Weight<P>, D>& w, In<P, D> x,
                             Out<P, D> out) {
    if constexpr (is_rms) {
      kernels::head_norm<D>(c, {.weight = w.scale(), .eps = eps(c), .x = x, .out = out});
    } else {
      static_assert(std::is_same_v<Act<P>, Residual<P>>,
                    "Norm: a LayerNorm of a layer's output needs activations of the type of the "
                    "residual stream: on this device matrices in float");
      forward<D>(c, w, x, out);
    }
  }

  /// Scratch of backward, for each row.
  template <class P>
  using Statistics = Rows<Real<P>, is_rms ? 1 : 2>;

  /// Given dout, the gradient of out, adds the gradient of x to dx and those of the weights to g.
  template <int D, class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>, D>& w,
                       Weights<Weight<Gradients<P>>, D>& g, RowsArgument<const Residual<P>, D> x,
                       In<P, D> dout, RowsArgument<Residual<P>, D> dx, Statistics<P> statistics) {
    if constexpr (is_rms)
      kernels::rmsnorm_backward<D>(c, {.weight = w.scale(),
                                       .eps = eps(c),
                                       .x = x,
                                       .dout = dout,
                                       .dx = dx,
                                       .dweight = g.scale(),
                                       .inverse = statistics});
    else
      kernels::layernorm_backward<D>(c, {.weight = w.scale(),
                                         .eps = eps(c),
                                         .x = x,
                                         .dout = dout,
                                         .dx = dx,
                                         .dweight = g.scale(),
                                         .dbias = g.offset,
                                         .statistics = statistics});
  }

 private:
  template <class P>
  static float eps(const Context<P>& c) {
    return own_eps > 0 ? own_eps : c.norm_eps;
  }
};

}  // namespace samba::inline SAMBA_TARGET
