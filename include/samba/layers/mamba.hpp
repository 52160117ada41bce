#pragma once
#include <samba/core/initial.hpp>
#include <samba/core/options.hpp>
#include <samba/kernels/causal_conv1d.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/kernels/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET {

/// Options of Mamba.
struct MambaOptions {
  int d_conv = 4;   ///< taps of the causal convolution
  int expand = 2;   ///< d_inner / d_model
  int dt_rank = 0;  ///< rank of the time-step projection; 0: ceil(d_model / 16)

  friend constexpr bool operator==(const MambaOptions&, const MambaOptions&) = default;
};

namespace detail {

/// Calls f(name, value) for what the structure line of Mamba has. o.dt_rank: not 0.
[[gnu::cold]] constexpr void visit_mamba_options(int d_state, const MambaOptions& o, auto&& f) {
  f("d_state", d_state);
  f("d_conv", o.d_conv);
  f("expand", o.expand);
  f("dt_rank", o.dt_rank);
}

}  // namespace detail

/// Mamba, a selective state space layer (Gu & Dao 2023, Algorithm 2 and section 3.4). For each
/// token u in R^D:
///
///   [x z] = W_in u      x = silu(conv1d(x))      [r B C] = W_x x
///   delta = softplus(W_dt r + b_dt)              h = exp(delta A) h + delta B x
///   y = C h + D x                                out = W_out (y silu(z))
///
/// with A = -exp(A_log). State per sequence: the last d_conv - 1 inputs of the convolution and h,
/// d_state x d_inner; its size does not depend on the position.
///
/// Memory: a channel of width d_inner to which y is also written, before the gate (SambaY's gated
/// memory units read it); void for none.
template <int D = 0, int N = 16, auto Options = MambaOptions{}, class Memory = void>
struct Mamba {
  static_assert(detail::are_options<MambaOptions, Options>,
                "Mamba<D, N, Options>: write options as MambaOptions{.d_conv = 3}");
  static constexpr MambaOptions options = detail::options_of<MambaOptions, Options>;
  static constexpr const char* name = "mamba";
  static constexpr int d_model = D, d_state = N, d_conv = options.d_conv, expand = options.expand,
                       d_inner = expand * D;
  static constexpr int dt_rank = options.dt_rank ? options.dt_rank : (D + 15) / 16;
  static_assert(D > 0 && N > 0, "Mamba<D, N>: d_model and d_state must be positive");
  static_assert(d_conv > 1, "Mamba: d_conv must be at least 2");
  static_assert(expand > 0 && dt_rank > 0,
                "Mamba: expand must be positive and dt_rank not negative");

  using Writes = Channels<Memory>;
  static_assert(detail::channel_width<Memory, d_inner> == d_inner,
                "Mamba: the channel Memory must be d_inner wide");

  template <class T>
  struct Weights {  // named and shaped as in the checkpoint
    Matrix<T, 2 * d_inner, d_model> in_proj;
    Filter<Real<T>, d_inner, d_conv> conv1d;
    Vector<Real<T>, d_inner> conv1d_bias;
    Matrix<T, dt_rank + 2 * d_state, d_inner> x_proj;
    Matrix<T, d_inner, dt_rank> dt_proj;
    Vector<Real<T>, d_inner> dt_bias;
    Transposed<Real<T>, d_inner, d_state> A_log;
    Vector<Real<T>, d_inner> D_skip;
    Matrix<T, d_model, d_inner> out_proj;
    Table<Real<T>, d_state, d_inner> A;  // derived: -exp(A_log)

    static constexpr void visit(auto& w, auto&& f) {
      f("in_proj.weight", w.in_proj);
      f("conv1d.weight", w.conv1d, init::uniform_over(d_conv));
      f("conv1d.bias", w.conv1d_bias);
      f("x_proj.weight", w.x_proj);
      f("dt_proj.weight", w.dt_proj);
      f("dt_proj.bias", w.dt_bias, init::softplus_log_uniform(0.001, 0.1));
      f("A_log", w.A_log, init::log_of_column, no_decay);
      f("D", w.D_skip, init::one);
      f("out_proj.weight", w.out_proj, init::output);
    }
    static constexpr void visit_derived(auto& w, auto&& f) { f("A", w.A); }
    void derive() { kernels::scan_A(A_log.data(), d_state * d_inner, A.data()); }
    /// Propagates the gradient of A to A_log, and clears it.
    void derive_backward(Weights<Master<Real<T>>>& g) const {
      kernels::scan_A_backward(A.data(), d_state * d_inner, g.A.data(), g.A_log.data());
    }
  };

  template <class P>
  struct State {
    Array<Real<P>, d_conv - 1, d_inner> conv;
    Array<Real<P>, d_state, d_inner> ssm;

    static constexpr void visit(auto& s, auto&& f) {
      f("conv", s.conv);
      f("ssm", s.ssm);
    }
  };

  template <class P>
  struct Scratch {
    Rows<Act<P>, 2 * d_inner> xz;
    Rows<Act<P>, dt_rank + 2 * d_state> rBC;
    Rows<Act<P>, d_inner> x, dt, y;

    static void visit(auto& t, auto&& f) {
      f(t.xz);
      f(t.rBC);
      f(t.x);
      f(t.dt);
      f.in_place_of(t.y, t.dt);
    }
  };

  template <class P>
  struct Backward {
    Rows<Act<P>, 2 * d_inner> xz;
    Rows<Act<P>, dt_rank + 2 * d_state> rBC;
    Rows<Act<P>, d_inner> x, dt;  // dt first holds the gradient of y
    kernels::ScanBackwardScratch<P, d_state, d_inner> scan;

    static void visit(auto& t, auto&& f) {
      f(t.xz);
      f(t.rBC);
      f(t.x);
      f(t.dt);
      decltype(t.scan)::visit(t.scan, f);
    }
  };

  static constexpr void visit_options(auto&& f) {
    detail::visit_mamba_options(d_state, {.d_conv = d_conv, .expand = expand, .dt_rank = dt_rank},
                                f);
    if constexpr (!std::is_void_v<Memory>) f("memory", Memory::width);
  }

  /// FLOPs per token besides the matrices: convolution, softplus, gate and scan.
  static constexpr std::int64_t other_flops(std::int64_t /*position*/) {
    return std::int64_t{d_inner} * (2 * d_conv + 6 * d_state + 10);
  }

  /// out = Mamba(u) for the rows of the chunk; advances the states. u, out: (rows, d_model).
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    const auto x = first<d_inner>(t.xz), z = last<d_inner>(t.xz);
    const auto r = first<dt_rank>(t.rBC);
    const auto B = slice<dt_rank, d_state>(t.rBC), C = last<d_state>(t.rBC);

    matmul(c, w.in_proj, u, t.xz);  // [x z] = W_in u
    causal_conv1d<d_inner, d_conv>(
        c, {.weight = w.conv1d, .bias = w.conv1d_bias, .past = s.conv, .x = x, .y = t.x});
    matmul(c, w.x_proj, t.x, t.rBC);  // [r B C] = W_x x
    matmul(c, w.dt_proj, r, t.dt);    // W_dt r
    selective_scan<d_state, d_inner>(c, {.A = w.A,
                                         .D = w.D_skip,
                                         .dt_bias = w.dt_bias,
                                         .dt = t.dt,
                                         .B = B,
                                         .C = C,
                                         .x = t.x,
                                         .z = z,
                                         .h = s.ssm,
                                         .y = t.y,  // (C h + D x) silu(z)
                                         .before_gate = c.template write<Memory>()});
    matmul(c, w.out_proj, t.y, out);  // out = W_out y
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
    const auto x = first<d_inner>(t.xz), z = last<d_inner>(t.xz);
    const auto dx = first<d_inner>(d.xz), dz = last<d_inner>(d.xz);
    const auto r = first<dt_rank>(t.rBC), dr = first<dt_rank>(d.rBC);
    const auto B = slice<dt_rank, d_state>(t.rBC), C = last<d_state>(t.rBC);
    const auto dB = slice<dt_rank, d_state>(d.rBC), dC = last<d_state>(d.rBC);

    matmul_backward(c, w.out_proj, {.x = t.y, .dout = dout, .dw = g.out_proj, .dx = d.dt});
    selective_scan_backward<d_state, d_inner>(c, {.forward = {.A = w.A,
                                                              .D = w.D_skip,
                                                              .dt_bias = w.dt_bias,
                                                              .dt = t.dt,
                                                              .B = B,
                                                              .C = C,
                                                              .x = t.x,
                                                              .z = z,
                                                              .h = s.ssm},
                                                  .dy = d.dt,
                                                  .dbefore_gate = c.template gradient<Memory>(),
                                                  .dh = ds.ssm,
                                                  .ddt = d.dt,
                                                  .dB = dB,
                                                  .dC = dC,
                                                  .dx = d.x,
                                                  .dz = dz,
                                                  .dA = g.A,
                                                  .dD = g.D_skip,
                                                  .ddt_bias = g.dt_bias,
                                                  .scratch = d.scan});
    matmul_backward(c, w.dt_proj, {.x = r, .dout = d.dt, .dw = g.dt_proj, .dx = dr});
    matmul_backward(c, w.x_proj, {.x = t.x, .dout = d.rBC, .dw = g.x_proj, .dx = add_to(d.x)});
    causal_conv1d_backward<d_inner, d_conv>(c, {.weight = w.conv1d,
                                                .bias = w.conv1d_bias,
                                                .past = s.conv,
                                                .x = x,
                                                .dy = d.x,
                                                .dpast = ds.conv,
                                                .dx = dx,
                                                .dweight = g.conv1d,
                                                .dbias = g.conv1d_bias});
    matmul_backward(c, w.in_proj, {.x = u, .dout = d.xz, .dw = g.in_proj, .dx = du});
  }
};

}  // namespace samba::inline SAMBA_TARGET
