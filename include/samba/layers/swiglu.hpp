#pragma once
#include <samba/core/chunk.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>

namespace samba::inline SAMBA_TARGET {

/// Options of SwiGLU.
struct MlpOptions {
  bool bias = false;  ///< biases of w1, w2 and w3
};

/// SwiGLU, a gated MLP (Shazeer 2020): out = w3 (silu(w1 u) * w2 u). No state.
/// Hidden is d_ff; by default 8/3 of d_model, rounded down.
template <int D = 0, int Hidden = 8 * D / 3, auto Options = MlpOptions{}>
struct SwiGLU {
  static_assert(detail::are_options<MlpOptions, Options>,
                "SwiGLU<D, Hidden, Options>: write options as MlpOptions{.bias = true}");
  static constexpr const char* name = "mlp";
  static constexpr int d_model = D, d_ff = Hidden;
  static constexpr bool bias = detail::options_of<MlpOptions, Options>.bias;
  static_assert(D > 0 && Hidden > 0, "SwiGLU<D, Hidden>: d_model and d_ff must be positive");

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
      f("swiglu.w3.weight", w.w3);
      if constexpr (bias) f("swiglu.w3.bias", w.b3);
    }
  };

  template <class T, class KV>
  using State = Stateless;

  template <class T>
  struct Scratch {
    Rows<Real<T>, d_ff> gate, up, hidden;

    static void visit(auto& t, auto&& f) { f(t.gate), f(t.up), f.in_place_of(t.hidden, t.up); }
  };

  template <class T>
  struct Backward {
    Rows<Real<T>, d_ff> gate, up;  // the gradients of hidden, then gate; of up

    static void visit(auto& t, auto&& f) { f(t.gate), f(t.up); }
  };

  static constexpr void visit_options(auto&& f) { f("d_ff", d_ff), f("bias", bias); }

  /// FLOPs per token beside the matrices: silu and product.
  static constexpr std::int64_t other_flops(std::int64_t /*position*/) {
    return std::int64_t{d_ff} * 5;
  }

  /// out = SwiGLU(u). u, out: (rows, d_model).
  template <class T>
  static void forward(const Chunk& chunk, const Weights<T>& w, States<Stateless>, Scratch<T>& t,
                      In<Real<T>, D> u, Out<Real<T>, D> out) {
    using namespace kernels;
    matmul(chunk.team, w.w1, w.b1.data(), u, t.gate);
    matmul(chunk.team, w.w2, w.b2.data(), u, t.up);
    silu_mul(chunk.team, t.gate, t.up, t.hidden);
    matmul(chunk.team, w.w3, w.b3.data(), t.hidden, out);
  }

  /// Gradients for dout that of out, after forward: du is written, g added to.
  template <class T>
  static void backward(const Chunk& chunk, const Weights<T>& w, Weights<Master<Real<T>>>& g,
                       States<Stateless>, States<Stateless>, Scratch<T>& t, Backward<T>& d,
                       In<Real<T>, D> u, In<Real<T>, D> dout, Out<Real<T>, D> du) {
    using namespace kernels;
    const Team& team = chunk.team;
    matmul_backward(team, w.w3, t.hidden, dout, g.w3, g.b3.data(), d.gate);
    silu_mul_backward(team, t.gate, t.up, d.gate, d.gate, d.up);
    matmul_backward(team, w.w1, u, d.gate, g.w1, g.b1.data(), du);
    matmul_backward(team, w.w2, u, d.up, g.w2, g.b2.data(), du, true);
  }
};

}  // namespace samba::inline SAMBA_TARGET
