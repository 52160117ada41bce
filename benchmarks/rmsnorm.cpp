#include "bench.hpp"

#include <samba/kernels/cpu/rmsnorm.hpp>

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
      kernels::rmsnorm<N>(on(team, rows), {.weight = bound<Vector<float, N>>(weight),
                                           .eps = 1e-5f,
                                           .x = {x, rows},
                                           .out = {out, rows}});
    });
}

/// dx and dweight are added to.
template <int N>
void add_backward(const std::string& model, std::int64_t rows) {
  // The mean square 2, the sum 3, dx 4, dweight 3.
  const Cost cost{.bytes = floats(4 * rows * N + 3 * N),
                  .flops = 12.0 * N * static_cast<double>(rows)};
  struct Data {
    std::int64_t rows;
    Floats weight{N}, x{rows * N}, dout{rows * N}, inverse{rows}, dx{rows * N}, dweight{N};
  };
  // norm(team, data)
  const auto add_row = [=](const std::string& variant, int threads, auto norm) {
    row(path({"rmsnorm_backward", variant, model, extents({rows, N})}), threads, cost, [=] {
      return [=, data = Data{rows}](const Team& team, std::int64_t) { norm(team, data); };
    });
  };
  add_row("reference", 1, [=](const Team&, const Data& d) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const float *x = d.x.data() + i * N, *dout = d.dout.data() + i * N;
      const float inverse = kernels::reference::rms_inverse(x, 1e-5f, N);
      kernels::reference::rmsnorm_backward(x, d.weight.data(), inverse, N, dout,
                                           d.dx.data() + i * N);
      kernels::reference::rmsnorm_backward_weight(x, inverse, dout, {0, N}, d.dweight.data());
    }
  });
  for (const int threads : thread_counts())
    add_row("simd", threads, [=](const Team& team, const Data& d) {
      auto dweight = bound<Vector<float, N>>(d.dweight.data());
      kernels::rmsnorm_backward<N>(on(team, rows),
                                   {.weight = bound<Vector<float, N>>(d.weight.data()),
                                    .eps = 1e-5f,
                                    .x = {d.x.data(), rows},
                                    .dout = {d.dout.data(), rows},
                                    .dx = {d.dx.data(), rows},
                                    .dweight = dweight,
                                    .inverse = {d.inverse.data(), rows}});
    });
}

[[maybe_unused]] const bool registered = [] {
  add<256>("demo", 64);
  add<1536>("samba421m", 1);
  add<1536>("samba421m", 512);
  add_backward<256>("demo", 64);
  add_backward<1536>("samba421m", 512);
  return true;
}();

}  // namespace
