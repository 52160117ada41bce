#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>

namespace samba::inline SAMBA_TARGET {

/// Options of SwiGLU and GeGLU.
struct MlpOptions {
  bool bias = false;  ///< biases of w1, w2 and w3
};

/// The activations of gated MLPs.
enum class MlpGate { silu, gelu, gelu_tanh };

namespace detail {

/// Calls f(name, value) for what the structure line of a gated MLP has.
[[gnu::cold]] constexpr void visit_mlp_options(int d_ff, bool bias, MlpGate gate, auto&& f) {
  f("d_ff", d_ff);
  f("bias", bias);
  if (gate != MlpGate::silu) f("gate", gate == MlpGate::gelu ? "gelu" : "gelu_tanh");
}

}  // namespace detail

/// A gated MLP (Shazeer 2020): out = w3 (gate(w1 u) * w2 u). No state.
template <int D, int Hidden, bool Bias, MlpGate Gate>
struct GatedMlp {
  static constexpr const char* name = "mlp";
  static constexpr int d_model = D, d_ff = Hidden;
  static constexpr bool bias = Bias;
  static constexpr MlpGate gate = Gate;
  static_assert(D > 0 && Hidden > 0,
                "SwiGLU<D, Hidden>, GeGLU<D, Hidden>: d_model and d_ff must be positive");

  template <class T>
  struct Weights {
    Matrix<T, d_ff, d_model> w1, w2;
    Matrix<T, d_model, d_ff> w3;
    Vector<Real<T>, d_ff> b1, b2;
    Vector<Real<T>, d_model> b3;

    static constexpr void visit(auto& w, auto&& f) {
      f("swiglu.w1.weight", w.w1);
      if constexpr (bias) f("swiglu.w1.bias", w.b1);
      f("swiglu.w2.weight", w.w2);
      if constexpr (bias) f("swiglu.w2.bias", w.b2);
      f("swiglu.w3.weight", w.w3, init::output);
      if constexpr (bias) f("swiglu.w3.bias", w.b3);
    }
  };

  template <class P>
  using State = Stateless;

  template <class P>
  struct Scratch {
    Rows<Act<P>, d_ff> gate, up, hidden;

    static void visit(auto& t, auto&& f) {
      f(t.gate);
      f(t.up);
      f.in_place_of(t.hidden, t.up);
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, d_ff> gate, up;  // the gradients of hidden, then gate; of up

    static void visit(auto& t, auto&& f) {
      f(t.gate);
      f(t.up);
    }
  };

  static constexpr void visit_options(auto&& f) { detail::visit_mlp_options(d_ff, bias, gate, f); }

  /// FLOPs per token besides the matrices: activation and product.
  static constexpr std::int64_t other_flops(std::int64_t /*position*/) {
    return std::int64_t{d_ff} * 5;
  }

  /// out = w3 (gate(w1 u) * w2 u). u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const Stateless&,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    matmul(c, w.w1, w.b1, u, t.gate);
    matmul(c, w.w2, w.b2, u, t.up);
    if constexpr (gate == MlpGate::silu)
      silu_mul<d_ff>(c, {.gate = t.gate, .up = t.up, .out = t.hidden});
    else
      gelu_mul<d_ff, form>(c, {.gate = t.gate, .up = t.up, .out = t.hidden});
    matmul(c, w.w3, w.b3, t.hidden, out);
  }

  /// Gradients, after forward, given dout, the gradient of out: du is written, g is added to.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const Stateless&, const Stateless&,
                       const Scratch<P>& t, const Backward<P>& d, In<P, D> u, In<P, D> dout,
                       Out<P, D> du) {
    using namespace kernels;
    matmul_backward(c, w.w3,
                    {.x = t.hidden, .dout = dout, .dw = g.w3, .dbias = g.b3.data(), .dx = d.gate});
    if constexpr (gate == MlpGate::silu)
      silu_mul_backward<d_ff>(
          c, {.gate = t.gate, .up = t.up, .dout = d.gate, .dgate = d.gate, .dup = d.up});
    else
      gelu_mul_backward<d_ff, form>(
          c, {.gate = t.gate, .up = t.up, .dout = d.gate, .dgate = d.gate, .dup = d.up});
    matmul_backward(c, w.w1, {.x = u, .dout = d.gate, .dw = g.w1, .dbias = g.b1.data(), .dx = du});
    matmul_backward(c, w.w2,
                    {.x = u, .dout = d.up, .dw = g.w2, .dbias = g.b2.data(), .dx = add_to(du)});
  }

 private:
  static constexpr kernels::Gelu form =
      gate == MlpGate::gelu ? kernels::Gelu::exact : kernels::Gelu::tanh;
};

/// SwiGLU: the gated MLP with silu. Hidden is d_ff; by default 8/3 of d_model, rounded down.
template <int D = 0, int Hidden = 8 * D / 3, auto Options = MlpOptions{}>
struct SwiGLU : GatedMlp<D, Hidden, detail::options_of<MlpOptions, Options>.bias, MlpGate::silu> {
  static_assert(detail::are_options<MlpOptions, Options>,
                "SwiGLU<D, Hidden, Options>: write options as MlpOptions{.bias = true}");
};

/// GeGLU: the gated MLP with gelu, exact or by a tanh (as Gemma has it).
template <int D = 0, int Hidden = 8 * D / 3, MlpGate Gate = MlpGate::gelu_tanh,
          auto Options = MlpOptions{}>
struct GeGLU : GatedMlp<D, Hidden, detail::options_of<MlpOptions, Options>.bias, Gate> {
  static_assert(Gate != MlpGate::silu, "GeGLU<D, Hidden, Gate>: gelu or gelu_tanh");
  static_assert(detail::are_options<MlpOptions, Options>,
                "GeGLU<D, Hidden, Gate, Options>: write options as MlpOptions{.bias = true}");
};

}  // namespace samba::inline SAMBA_TARGET
