#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/causal_conv1d.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/kernels/rg_lru.hpp>

namespace samba::inline SAMBA_TARGET {

/// Options of RgLru.
struct RgLruOptions {
  int width = 0;    ///< channels of the recurrence; 0: d_model
  int n_heads = 1;  ///< blocks of the gates' block-diagonal matrices; divides width
  int d_conv = 4;   ///< taps of the causal convolution

  friend constexpr bool operator==(const RgLruOptions&, const RgLruOptions&) = default;
};

namespace detail {

/// Calls f(name, value) for what the structure line of RgLru has. o.width: not 0.
constexpr void visit_rg_lru_options(const RgLruOptions& o, auto&& f) {
  f("width", o.width);
  f("n_heads", o.n_heads);
  f("d_conv", o.d_conv);
}

}  // namespace detail

/// The recurrent branch of Griffin and RecurrentGemma with the real-gated linear recurrent unit (De
/// et al. 2024, arXiv 2402.19427, sections 2.3 and 2.4). For each token u in R^D:
///
///   x = conv1d(W_x u + b_x)                      y = gelu(W_y u + b_y)
///   i = sigmoid(x W_i + b_i)                     r = sigmoid(x W_r + b_r)
///   log a = -8 r softplus(param)                 h = a h + sqrt(1 - a^2) (i x)
///   out = W_out (h y) + b_out
///
/// W_i and W_r have one square block per head; the convolution has a bias and no activation; gelu is
/// the form with a tanh. At position 0, h = i x. State per sequence: the last d_conv - 1 inputs of
/// the convolution and h, width numbers; its size does not depend on the position.
template <int D = 0, auto Options = RgLruOptions{}>
struct RgLru {
  static_assert(detail::are_options<RgLruOptions, Options>,
                "RgLru<D, Options>: write options as RgLruOptions{.n_heads = 4}");
  static constexpr RgLruOptions options = detail::options_of<RgLruOptions, Options>;
  static constexpr const char* name = "recurrent";
  static constexpr int d_model = D, width = options.width ? options.width : D,
                       n_heads = options.n_heads, d_conv = options.d_conv;
  static_assert(D > 0 && width > 0, "RgLru<D>: d_model and width must be positive");
  static_assert(n_heads > 0 && width % n_heads == 0, "RgLru: n_heads must divide width");
  static_assert(d_conv > 1, "RgLru: d_conv must be at least 2");
  static constexpr int block = width / n_heads;

  template <class T>
  struct Weights {  // named and shaped as in transformers' RecurrentGemma
    Matrix<T, width, d_model> linear_x, linear_y;
    Vector<Real<T>, width> x_bias, y_bias;
    Filter<Real<T>, width, d_conv> conv;
    Vector<Real<T>, width> conv_bias;
    BlockDiagonal<T, n_heads, block> input_gate, recurrent_gate;
    Table<Real<T>, n_heads, block> input_bias, recurrent_bias;
    Vector<Real<T>, width> param;
    Matrix<T, d_model, width> linear_out;
    Vector<Real<T>, d_model> out_bias;

    static constexpr void visit(auto& w, auto&& f) {
      f("linear_x.weight", w.linear_x);
      f("linear_x.bias", w.x_bias);
      f("linear_y.weight", w.linear_y);
      f("linear_y.bias", w.y_bias);
      f("conv_1d.weight", w.conv, init::uniform_over(d_conv));
      f("conv_1d.bias", w.conv_bias);
      f("rg_lru.input_gate_weight", w.input_gate, init::uniform_over(block));
      f("rg_lru.input_gate_bias", w.input_bias, no_decay);
      f("rg_lru.recurrent_gate_weight", w.recurrent_gate, init::uniform_over(block));
      f("rg_lru.recurrent_gate_bias", w.recurrent_bias, no_decay);
      f("rg_lru.recurrent_param", w.param, init::softplus_radius(0.9, 0.999));
      f("linear_out.weight", w.linear_out, init::output);
      f("linear_out.bias", w.out_bias);
    }
  };

  template <class P>
  struct State {
    Array<Real<P>, d_conv - 1, width> conv;
    Array<Real<P>, width> h;

    static constexpr void visit(auto& s, auto&& f) {
      f("conv", s.conv);
      f("h", s.h);
    }
  };

  template <class P>
  struct Scratch {
    Rows<Act<P>, width> linear_x, y, x, i, r, h, hy;

    static void visit(auto& t, auto&& f) {
      f(t.linear_x);
      f(t.y);
      f(t.x);
      f(t.i);
      f(t.r);
      f.in_place_of(t.h, t.r);
      f.in_place_of(t.hy, t.h);
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, width> linear_x, y, x, i, r;  // y: first the gradient of h y; r: first that of h

    static void visit(auto& t, auto&& f) {
      f(t.linear_x);
      f(t.y);
      f(t.x);
      f(t.i);
      f(t.r);
    }
  };

  static constexpr void visit_options(auto&& f) {
    detail::visit_rg_lru_options({.width = width, .n_heads = n_heads, .d_conv = d_conv}, f);
  }

  /// FLOPs per token besides the matrices: convolution 2 d_conv, recurrence 17, gelu and product 5.
  static constexpr std::int64_t other_flops(std::int64_t /*position*/) {
    return std::int64_t{width} * (2 * d_conv + 22);
  }

  /// out = RgLru(u) for the rows of the chunk; advances the states. u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    matmul(c, w.linear_x, w.x_bias, u, t.linear_x);
    matmul(c, w.linear_y, w.y_bias, u, t.y);
    causal_conv1d<width, d_conv, ConvActivation::none>(
        c, {.weight = w.conv, .bias = w.conv_bias, .past = s.conv, .x = t.linear_x, .y = t.x});
    block_matmul(c, w.input_gate, t.x, t.i);
    block_matmul(c, w.recurrent_gate, t.x, t.r);
    rg_lru<n_heads, width>(c, {.in = inputs<P>(w, s, t), .y = t.h});
    gelu_mul<width, Gelu::tanh>(c, {.gate = t.y, .up = t.h, .out = t.hy});
    matmul(c, w.linear_out, w.out_bias, t.hy, out);
  }

  /// Gradients, after forward, given dout, the gradient of out: du is written, g is added to. s:
  /// the states before forward; ds: on entry the gradients of the states after forward, on return
  /// those of the states before it.
  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       In<P, D> u, In<P, D> dout, Out<P, D> du) {
    using namespace kernels;
    matmul_backward(
        c, w.linear_out,
        {.x = t.hy, .dout = dout, .dw = g.linear_out, .dbias = g.out_bias.data(), .dx = d.y});
    gelu_mul_backward<width, Gelu::tanh>(
        c, {.gate = t.y, .up = t.h, .dout = d.y, .dgate = d.y, .dup = d.r});
    rg_lru_backward<n_heads, width>(c, {.forward = inputs<P>(w, s, t),
                                        .y = t.h,
                                        .dy = d.r,
                                        .dh = ds.h,
                                        .dinput_gate = d.i,
                                        .drecurrent_gate = d.r,
                                        .dx = d.x,
                                        .dparam = g.param,
                                        .dinput_bias = g.input_bias,
                                        .drecurrent_bias = g.recurrent_bias});
    block_matmul_backward(c, w.recurrent_gate,
                          {.x = t.x, .dout = d.r, .dw = g.recurrent_gate, .dx = add_to(d.x)});
    block_matmul_backward(c, w.input_gate,
                          {.x = t.x, .dout = d.i, .dw = g.input_gate, .dx = add_to(d.x)});
    causal_conv1d_backward<width, d_conv, ConvActivation::none>(c, {.weight = w.conv,
                                                                    .bias = w.conv_bias,
                                                                    .past = s.conv,
                                                                    .x = t.linear_x,
                                                                    .dy = d.x,
                                                                    .dpast = ds.conv,
                                                                    .dx = d.linear_x,
                                                                    .dweight = g.conv,
                                                                    .dbias = g.conv_bias});
    matmul_backward(
        c, w.linear_x,
        {.x = u, .dout = d.linear_x, .dw = g.linear_x, .dbias = g.x_bias.data(), .dx = du});
    matmul_backward(
        c, w.linear_y,
        {.x = u, .dout = d.y, .dw = g.linear_y, .dbias = g.y_bias.data(), .dx = add_to(du)});
  }

 private:
  template <class P>
  static kernels::RgLruInputs<P, n_heads, width> inputs(const Weights<Weight<P>>& w,
                                                        const State<P>& s, const Scratch<P>& t) {
    return {.param = w.param,
            .input_bias = w.input_bias,
            .recurrent_bias = w.recurrent_bias,
            .input_gate = t.i,
            .recurrent_gate = t.r,
            .x = t.x,
            .h = s.h};
  }
};

}  // namespace samba::inline SAMBA_TARGET
