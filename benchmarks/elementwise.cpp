#include "bench.hpp"

#include <samba/kernels/elementwise.hpp>

using namespace bench;
using namespace samba;

namespace {

void raw_silu_mul(const float* gate, const float* up, float* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.f + std::exp(-gate[i])) * up[i];
}

void raw_add(const float* y, float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] += y[i];
}

/// f(team, a, b, out) on arrays of (rows, N).
template <class F>
void add_row(const std::string& variant, const std::string& size, int threads, std::int64_t n,
             Cost cost, F f) {
  row(path({"elementwise", variant, size}), threads, cost, [=] {
    return [=, a = Floats(n), b = Floats(n), out = Floats(n)](const Team& team, std::int64_t) {
      f(team, a.data(), b.data(), out.data());
    };
  });
}

template <int N>
void add_silu_mul(const std::string& model, std::int64_t rows) {
  const std::string size = path({model, std::string("silu_mul_").append(extents({rows, N}))});
  const Cost cost{.bytes = floats(3 * rows * N), .flops = 5.0 * N * static_cast<double>(rows)};
  add_row("raw_loop", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* out) {
            raw_silu_mul(gate, up, out, rows * N);
          });
  add_row("reference", size, 1, rows * N, cost,
          [=](const Team&, float* gate, float* up, float* out) {
            kernels::reference::silu_mul(gate, up, {0, rows * N}, out);
          });
  for (const int threads : thread_counts())
    add_row("simd", size, threads, rows * N, cost,
            [=](const Team& team, float* gate, float* up, float* out) {
              kernels::silu_mul(team, Rows<float, N>{gate, rows}, Rows<float, N>{up, rows},
                                Rows<float, N>{out, rows});
            });
}

template <int N>
void add_add(const std::string& model, std::int64_t rows) {
  const std::string size = path({model, std::string("add_").append(extents({rows, N}))});
  const Cost cost{.bytes = floats(3 * rows * N),
                  .flops = 1.0 * N * static_cast<double>(rows),
                  .footprint = floats(2 * rows * N)};
  add_row("raw_loop", size, 1, rows * N, cost,
          [=](const Team&, float* y, float*, float* x) { raw_add(y, x, rows * N); });
  add_row("reference", size, 1, rows * N, cost, [=](const Team&, float* y, float*, float* x) {
    kernels::reference::add(y, {0, rows * N}, x);
  });
  for (const int threads : thread_counts())
    add_row("simd", size, threads, rows * N, cost,
            [=](const Team& team, float* y, float*, float* x) {
              kernels::add(team, Rows<float, N>{y, rows}, Rows<float, N>{x, rows});
            });
}

[[maybe_unused]] const bool registered = [] {
  add_silu_mul<768>("demo", 64);
  add_add<256>("demo", 64);
  for (const int rows : {1, 512}) {
    add_silu_mul<4096>("samba421m", rows);
    add_add<1536>("samba421m", rows);
  }
  return true;
}();

}  // namespace
