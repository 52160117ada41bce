#include "bench.hpp"

#include <samba/kernels/matmul.hpp>

using namespace bench;
using namespace samba;

namespace {

/// w: (N, K), x: (rows, K), out: (rows, N), all row major.
void raw_loop(const float* w, const float* x, float* out, std::int64_t rows, int N, int K) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += x[i * K + k] * w[n * K + k];
      out[i * N + n] = sum;
    }
}

template <class T, int N, int K>
Cost cost(bool cold, std::int64_t rows) {
  Cost cost{.bytes = static_cast<double>(Matrix<T, N, K>::bytes) + floats(rows * (N + K)),
            .flops = 2.0 * N * K * static_cast<double>(rows),
            .dot = dot_of<T>};
  if (cold) cost.footprint = floats(pool_floats);
  return cost;
}

/// multiply(team, weights, x, out). Cold: the weights come from memory.
template <class T, int N, int K, class Multiply>
void add_row(const std::string& variant, const std::string& model, bool cold, std::int64_t rows,
             int threads, Multiply multiply) {
  constexpr std::int64_t n_weights = Matrix<T, N, K>::bytes / static_cast<std::int64_t>(sizeof(T));
  row(path({"matmul", variant, model, extents({rows, N, K})}), threads, cost<T, N, K>(cold, rows),
      [=] {
        return [=, weights = reinterpret_cast<T*>(pool()), x = Floats(rows * K),
                out = Floats(rows * N)](const Team& team, std::int64_t call) {
          Matrix<T, N, K> w;
          w.bind(
              reinterpret_cast<std::byte*>(weights + pool_offset<T>(n_weights, cold ? call : 0)));
          multiply(team, w, x.data(), out.data());
        };
      });
}

template <int N, int K>
void add(const std::string& model, bool cold, std::int64_t rows) {
  add_row<float, N, K>("raw_loop", model, cold, rows, 1,
                       [=](const Team&, const auto& w, const float* x, float* out) {
                         raw_loop(w.data(), x, out, rows, N, K);
                       });
  add_row<float, N, K>(
      "reference", model, cold, rows, 1,
      [=](const Team&, const auto& w, const float* x, float* out) {
        kernels::reference::matmul(
            kernels::MatmulArgs<float>{w.data(), nullptr, x, K, out, N, rows, N, K},
            {0, (N + panel_width - 1) / panel_width});
      });
  const auto simd = [=]<class T>(T) {
    for (const int threads : thread_counts())
      add_row<T, N, K>("simd" + suffix<T>(), model, cold, rows, threads,
                       [=](const Team& team, const auto& w, const float* x, float* out) {
                         kernels::matmul(team, w, {x, rows}, {out, rows});
                       });
  };
  simd(0.f), simd(bf16()), simd(int8());
}

[[maybe_unused]] const bool registered = [] {
  add<768, 256>("demo", false, 1);
  add<768, 256>("demo", false, 64);
  for (const int rows : {1, 512}) {
    add<4096, 1536>("samba421m", true, rows);  // SwiGLU's w1
    add<128, 3072>("samba421m", true, rows);   // Mamba's x_proj
  }
  return true;
}();

}  // namespace
