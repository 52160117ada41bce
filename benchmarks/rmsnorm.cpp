#include "bench.hpp"

#include <samba/kernels/rmsnorm.hpp>

using namespace bench;
using namespace samba;

namespace {

/// x, out: (rows, N), row major.
void raw_loop(const float* x, const float* weight, float* out, std::int64_t rows, int N) {
  for (std::int64_t i = 0; i < rows; ++i) {
    float sum = 0;
    for (int k = 0; k < N; ++k) sum += x[i * N + k] * x[i * N + k];
    const float scale = 1.f / std::sqrt(sum / static_cast<float>(N) + 1e-5f);
    for (int k = 0; k < N; ++k) out[i * N + k] = x[i * N + k] * scale * weight[k];
  }
}

template <int N>
void add(const std::string& model, std::int64_t rows) {
  const Cost cost{.bytes = floats(2 * rows * N + N), .flops = 4.0 * N * static_cast<double>(rows)};
  // norm(team, weight, x, out)
  const auto add_row = [=](const std::string& variant, int threads, auto norm) {
    row(path({"rmsnorm", variant, model, extents({rows, N})}), threads, cost, [=] {
      return
          [=, weight = Floats(N), x = Floats(rows * N), out = Floats(rows * N)](
              const Team& team, std::int64_t) { norm(team, weight.data(), x.data(), out.data()); };
    });
  };
  add_row("raw_loop", 1, [=](const Team&, float* weight, float* x, float* out) {
    raw_loop(x, weight, out, rows, N);
  });
  add_row("reference", 1, [=](const Team&, float* weight, float* x, float* out) {
    for (std::int64_t i = 0; i < rows; ++i)
      kernels::reference::rmsnorm(x + i * N, weight, 1e-5f, N, out + i * N);
  });
  for (const int threads : thread_counts())
    add_row("simd", threads, [=](const Team& team, float* weight, float* x, float* out) {
      Vector<float, N> w;
      w.bind(reinterpret_cast<std::byte*>(weight));
      kernels::rmsnorm(team, w, 1e-5f, {x, rows}, {out, rows});
    });
}

[[maybe_unused]] const bool registered = [] {
  add<256>("demo", 64);
  add<1536>("samba421m", 1);
  add<1536>("samba421m", 512);
  return true;
}();

}  // namespace
