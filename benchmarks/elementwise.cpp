#include "bench.hpp"

#include <samba/kernels/cpu/elementwise.hpp>

using namespace bench;
using namespace samba;

namespace {

void raw_silu_mul(const float* gate, const float* up, float* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.f + std::exp(-gate[i])) * up[i];
}

void raw_add(const float* y, float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] += y[i];
}

/// f(team, arrays...), each of n numbers. Arrays: std::make_index_sequence of their number.
template <std::size_t... array, class F>
void add_row(std::index_sequence<array...>, const std::string& variant, const std::string& size,
             int threads, std::int64_t n, Cost cost, F f) {
  row(path({"elementwise", variant, size}), threads, cost, [=] {
    return [=, arrays = std::array{(static_cast<void>(array), Floats(n))...}](
               const Team& team, std::int64_t) { f(team, arrays[array].data()...); };
  });
}

constexpr std::make_index_sequence<2> two;
constexpr std::make_index_sequence<3> three;
constexpr std::make_index_sequence<5> five;

/// The products of a gate and another row, with their FLOPs per number.
struct SiluMul {
  static constexpr const char* name = "silu_mul";
  static constexpr double flops = 5, backward_flops = 12;  // the sigmoid 4, dup 2, dgate 6
  static void reference(auto... args) { kernels::reference::silu_mul(args...); }
  static void reference_backward(auto... args) { kernels::reference::silu_mul_backward(args...); }
  template <int N>
  static void run(const auto& c, const auto& args) {
    kernels::silu_mul<N>(c, args);
  }
  template <int N>
  static void run_backward(const auto& c, const auto& args) {
    kernels::silu_mul_backward<N>(c, args);
  }
};
template <kernels::Gelu form>
struct GeluMul {
  static constexpr bool exact = form == kernels::Gelu::exact;
  static constexpr const char* name = exact ? "gelu_mul" : "gelu_tanh_mul";
  static constexpr double flops = exact ? 20 : 10, backward_flops = exact ? 30 : 20;  // erfc: 15
  static void reference(const float* gate, const float* up, Range columns, float* out) {
    kernels::reference::gelu_mul(gate, up, columns, form, out);
  }
  static void reference_backward(const float* gate, const float* up, const float* dout,
                                 Range columns, float* dgate, float* dup) {
    kernels::reference::gelu_mul_backward(gate, up, dout, columns, form, dgate, dup);
  }
  template <int N>
  static void run(const auto& c, const auto& args) {
    kernels::gelu_mul<N, form>(c, args);
  }
  template <int N>
  static void run_backward(const auto& c, const auto& args) {
    kernels::gelu_mul_backward<N, form>(c, args);
  }
};

template <class Op, int N>
void add_mul(const std::string& model, std::int64_t rows) {
  using Args = kernels::SiluMul<Policy<float>, N>;
  const std::string size =
      path({model, std::string(Op::name).append("_").append(extents({rows, N}))});
  const Cost cost{.bytes = floats(3 * rows * N),
                  .flops = Op::flops * N * static_cast<double>(rows)};
  if (std::is_same_v<Op, SiluMul>)
    add_row(three, "raw_loop", size, 1, rows * N, cost,
            [=](const Team&, float* gate, float* up, float* out) {
              raw_silu_mul(gate, up, out, rows * N);
            });
  add_row(three, "reference", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* out) {
            Op::reference(gate, up, Range{0, rows * N}, out);
          });
  for (const int threads : thread_counts())
    add_row(three, "simd", size, threads, rows * N, cost,
            [=](const Team& team, float* gate, float* up, float* out) {
              Op::template run<N>(on(team, rows),
                                  Args{.gate = {gate, rows}, .up = {up, rows}, .out = {out, rows}});
            });
}

template <class Op, int N>
void add_mul_backward(const std::string& model, std::int64_t rows) {
  using Args = kernels::SiluMulBackward<Policy<float>, N>;
  const std::string size =
      path({model, std::string(Op::name).append("_backward_").append(extents({rows, N}))});
  // dgate has a place of its own: in that of dout the numbers of one call after another would become
  // too small.
  const Cost cost{.bytes = floats(5 * rows * N),
                  .flops = Op::backward_flops * N * static_cast<double>(rows)};
  add_row(five, "reference", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* dout, float* dgate, float* dup) {
            Op::reference_backward(gate, up, dout, Range{0, rows * N}, dgate, dup);
          });
  for (const int threads : thread_counts())
    add_row(five, "simd", size, threads, rows * N, cost,
            [=](const Team& team, float* gate, float* up, float* dout, float* dgate, float* dup) {
              Op::template run_backward<N>(on(team, rows), Args{.gate = {gate, rows},
                                                                .up = {up, rows},
                                                                .dout = {dout, rows},
                                                                .dgate = {dgate, rows},
                                                                .dup = {dup, rows}});
            });
}

template <int N>
void add_add(const std::string& model, std::int64_t rows) {
  const std::string size = path({model, std::string("add_").append(extents({rows, N}))});
  const Cost cost{.bytes = floats(3 * rows * N),
                  .flops = 1.0 * N * static_cast<double>(rows),
                  .footprint = floats(2 * rows * N)};
  add_row(two, "raw_loop", size, 1, rows * N, cost,
          [=](const Team&, float* y, float* x) { raw_add(y, x, rows * N); });
  add_row(two, "reference", size, 1, rows * N, cost,
          [=](const Team&, float* y, float* x) { kernels::reference::add(y, {0, rows * N}, x); });
  for (const int threads : thread_counts())
    add_row(two, "simd", size, threads, rows * N, cost, [=](const Team& team, float* y, float* x) {
      kernels::add<N>(on(team, rows), {.term = {y, rows}, .to = {x, rows}});
    });
}

template <class Op>
void add_muls() {
  add_mul<Op, 768>("demo", 64);
  for (const int rows : {1, 512}) add_mul<Op, 4096>("samba421m", rows);
  add_mul_backward<Op, 768>("demo", 64);
  add_mul_backward<Op, 4096>("samba421m", 512);
}

[[maybe_unused]] const bool registered = [] {
  add_muls<SiluMul>();
  add_muls<GeluMul<kernels::Gelu::tanh>>();
  add_muls<GeluMul<kernels::Gelu::exact>>();
  add_add<256>("demo", 64);
  for (const int rows : {1, 512}) add_add<1536>("samba421m", rows);
  return true;
}();

}  // namespace
