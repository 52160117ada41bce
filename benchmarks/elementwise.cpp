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

template <int N>
void add_silu_mul(const std::string& model, std::int64_t rows) {
  const std::string size = path({model, std::string("silu_mul_").append(extents({rows, N}))});
  const Cost cost{.bytes = floats(3 * rows * N), .flops = 5.0 * N * static_cast<double>(rows)};
  add_row(three, "raw_loop", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* out) {
            raw_silu_mul(gate, up, out, rows * N);
          });
  add_row(three, "reference", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* out) {
            kernels::reference::silu_mul(gate, up, {0, rows * N}, out);
          });
  for (const int threads : thread_counts())
    add_row(three, "simd", size, threads, rows * N, cost,
            [=](const Team& team, float* gate, float* up, float* out) {
              kernels::silu_mul<N>(on(team, rows),
                                   {.gate = {gate, rows}, .up = {up, rows}, .out = {out, rows}});
            });
}

template <int N>
void add_silu_mul_backward(const std::string& model, std::int64_t rows) {
  const std::string size =
      path({model, std::string("silu_mul_backward_").append(extents({rows, N}))});
  // The sigmoid 4, dup 2, dgate 6. dgate has a place of its own: in that of dout the numbers of one
  // call after another would become too small.
  const Cost cost{.bytes = floats(5 * rows * N), .flops = 12.0 * N * static_cast<double>(rows)};
  add_row(five, "reference", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* dout, float* dgate, float* dup) {
            kernels::reference::silu_mul_backward(gate, up, dout, {0, rows * N}, dgate, dup);
          });
  for (const int threads : thread_counts())
    add_row(five, "simd", size, threads, rows * N, cost,
            [=](const Team& team, float* gate, float* up, float* dout, float* dgate, float* dup) {
              kernels::silu_mul_backward<N>(on(team, rows), {.gate = {gate, rows},
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

[[maybe_unused]] const bool registered = [] {
  add_silu_mul<768>("demo", 64);
  add_add<256>("demo", 64);
  for (const int rows : {1, 512}) {
    add_silu_mul<4096>("samba421m", rows);
    add_add<1536>("samba421m", rows);
  }
  add_silu_mul_backward<768>("demo", 64);
  add_silu_mul_backward<4096>("samba421m", 512);
  return true;
}();

}  // namespace
