#include "bench.hpp"

#include <samba/kernels/cpu/layernorm.hpp>

using namespace bench;
using namespace samba;

namespace {

/// x, out: (rows, N), row major.
void raw_loop(const float* x, const float* weight, const float* bias, float* out, std::int64_t rows,
              int N) {
  for (std::int64_t i = 0; i < rows; ++i) {
    float sum = 0, squares = 0;
    for (int k = 0; k < N; ++k) sum += x[i * N + k];
    const float mean = sum / static_cast<float>(N);
    for (int k = 0; k < N; ++k) squares += (x[i * N + k] - mean) * (x[i * N + k] - mean);
    const float scale = 1.f / std::sqrt(squares / static_cast<float>(N) + 1e-5f);
    for (int k = 0; k < N; ++k)
      out[i * N + k] = (x[i * N + k] - mean) * scale * weight[k] + bias[k];
  }
}

template <int N>
struct Data {
  std::int64_t rows;
  Floats weight{N}, bias{N}, x{rows * N}, out{rows * N}, dout{rows * N}, dx{rows * N},
      statistics{2 * rows}, dweight{N}, dbias{N};
};

template <int N>
void add_row(const char* kernel, const std::string& variant, const std::string& model,
             std::int64_t rows, int threads, const Cost& cost, auto norm) {
  row(path({kernel, variant, model, extents({rows, N})}), threads, cost, [=] {
    return [=, data = Data<N>{rows}](const Team& team, std::int64_t) { norm(team, data); };
  });
}

template <int N>
void add(const std::string& model, std::int64_t rows) {
  // The mean 1, the variance 3, the result 4.
  const Cost cost{.bytes = floats(2 * rows * N + 2 * N),
                  .flops = 8.0 * N * static_cast<double>(rows)};
  const auto row_of = [=](const std::string& variant, int threads, auto norm) {
    add_row<N>("layernorm", variant, model, rows, threads, cost, norm);
  };
  row_of("raw_loop", 1, [=](const Team&, const Data<N>& d) {
    raw_loop(d.x.data(), d.weight.data(), d.bias.data(), d.out.data(), rows, N);
  });
  row_of("reference", 1, [=](const Team&, const Data<N>& d) {
    for (std::int64_t i = 0; i < rows; ++i)
      kernels::reference::layernorm(d.x.data() + i * N, d.weight.data(), d.bias.data(), 1e-5f, N,
                                    d.out.data() + i * N);
  });
  for (const int threads : thread_counts())
    row_of("simd", threads, [=](const Team& team, const Data<N>& d) {
      kernels::layernorm<N>(on(team, rows), {.weight = bound<Vector<float, N>>(d.weight.data()),
                                             .bias = bound<Vector<float, N>>(d.bias.data()),
                                             .eps = 1e-5f,
                                             .x = {d.x.data(), rows},
                                             .out = {d.out.data(), rows}});
    });
}

/// dx, dweight and dbias are added to.
template <int N>
void add_backward(const std::string& model, std::int64_t rows) {
  // The statistics 4, two sums 6, dx 7, dweight and dbias 5.
  const Cost cost{.bytes = floats(4 * rows * N + 5 * N),
                  .flops = 22.0 * N * static_cast<double>(rows)};
  const auto row_of = [=](const std::string& variant, int threads, auto norm) {
    add_row<N>("layernorm_backward", variant, model, rows, threads, cost, norm);
  };
  row_of("reference", 1, [=](const Team&, const Data<N>& d) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const float *x = d.x.data() + i * N, *dout = d.dout.data() + i * N;
      const auto s = kernels::reference::row_statistics(x, 1e-5f, N);
      kernels::reference::layernorm_backward(x, d.weight.data(), s, N, dout, d.dx.data() + i * N);
      kernels::reference::layernorm_backward_weight(x, s, dout, {0, N}, d.dweight.data(),
                                                    d.dbias.data());
    }
  });
  for (const int threads : thread_counts())
    row_of("simd", threads, [=](const Team& team, const Data<N>& d) {
      auto dweight = bound<Vector<float, N>>(d.dweight.data()),
           dbias = bound<Vector<float, N>>(d.dbias.data());
      kernels::layernorm_backward<N>(on(team, rows),
                                     {.weight = bound<Vector<float, N>>(d.weight.data()),
                                      .eps = 1e-5f,
                                      .x = {d.x.data(), rows},
                                      .dout = {d.dout.data(), rows},
                                      .dx = {d.dx.data(), rows},
                                      .dweight = dweight,
                                      .dbias = dbias,
                                      .statistics = {d.statistics.data(), rows}});
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
