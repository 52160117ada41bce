#include "bench.hpp"

#include <samba/interop/eigen.hpp>
#include <samba/kernels/cpu/matmul.hpp>

using namespace bench;
using namespace samba;

namespace {

/// x: (rows, K), out: (rows, N), all row major.
template <int N, int K>
struct Forward {
  static constexpr const char* kernel = "matmul";
  static constexpr int outputs = N, inputs = K;
  std::int64_t rows;
  Floats x{rows * K}, out{rows * N};

  template <class T>
  static Cost cost(std::int64_t n) {
    return {.bytes = static_cast<double>(Matrix<T, N, K>::bytes) + floats(n * (N + K)),
            .flops = 2.0 * N * K * static_cast<double>(n),
            .dot = dot_of<T>};
  }
};

/// The gradients of a matmul without bias: dw is added to, dx is written.
template <int N, int K>
struct Backward {
  static constexpr const char* kernel = "matmul_backward";
  static constexpr int outputs = N, inputs = K;
  std::int64_t rows;
  Floats x{rows * K}, dout{rows * N}, dw{std::int64_t{N} * K}, dx{rows * K};

  /// Two products, of the size of the forward's one.
  template <class T>
  static Cost cost(std::int64_t n) {
    return {.bytes = static_cast<double>(Matrix<T, N, K>::bytes) +
                     floats(n * (N + 2 * K) + std::int64_t{2} * N * K),
            .flops = 4.0 * N * K * static_cast<double>(n),
            .dot = dot_of<T>};
  }
};

/// w: (N, K), x: (rows, K), out: (rows, N), all row major.
void raw_loop(const float* w, const float* x, float* out, std::int64_t rows, int N, int K) {
  for (std::int64_t i = 0; i < rows; ++i)
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += x[i * K + k] * w[n * K + k];
      out[i * N + n] = sum;
    }
}

/// multiply(team, weights, data), where data is Forward or Backward. Cold: the weights come from
/// memory.
template <class Data, class T, class Multiply>
void add_row(const std::string& variant, const std::string& model, bool cold, std::int64_t rows,
             int threads, Multiply multiply, int callers = 0) {
  constexpr int N = Data::outputs, K = Data::inputs;
  constexpr std::int64_t n_weights = Matrix<T, N, K>::bytes / static_cast<std::int64_t>(sizeof(T));
  Cost cost = Data::template cost<T>(rows);
  if (cold) cost.footprint = floats(pool_floats);
  const auto make = [=] {
    return [=, weights = reinterpret_cast<T*>(pool()), data = Data{rows}](const Team& team,
                                                                          std::int64_t call) {
      Matrix<T, N, K> w;
      w.bind(reinterpret_cast<std::byte*>(weights + pool_offset<T>(n_weights, cold ? call : 0)));
      multiply(team, w, data);
    };
  };
  row(path({Data::kernel, variant, model, extents({rows, N, K})}), threads, cost, make, callers);
}

template <int N, int K>
void add(const std::string& model, bool cold, std::int64_t rows) {
  using Data = Forward<N, K>;
  add_row<Data, float>("raw_loop", model, cold, rows, 1,
                       [=](const Team&, const auto& w, const Data& d) {
                         raw_loop(w.data(), d.x.data(), d.out.data(), rows, N, K);
                       });
  add_row<Data, float>("reference", model, cold, rows, 1,
                       [=](const Team&, const auto& w, const Data& d) {
                         kernels::reference::matmul(kernels::MatmulArgs<float>{.w = w.data(),
                                                                               .bias = nullptr,
                                                                               .x = d.x.data(),
                                                                               .x_stride = K,
                                                                               .out = d.out.data(),
                                                                               .out_stride = N,
                                                                               .rows = rows,
                                                                               .N = N,
                                                                               .K = K},
                                                    {0, (N + panel_width - 1) / panel_width});
                       });
  const auto simd = [=]<class T>(T) {
    for (const int threads : thread_counts())
      add_row<Data, T>("simd" + suffix<T>(), model, cold, rows, threads,
                       [=](const Team& team, const auto& w, const Data& d) {
                         kernels::matmul(on<Policy<T>>(team, rows), w, {d.x.data(), rows},
                                         {d.out.data(), rows});
                       });
  };
  simd(0.f);
  simd(bf16());
  simd(int8());
  simd(q4());
  // Of as many numbers, row by row. Eigen starts its threads itself.
  for (const int threads : thread_counts())
    add_row<Data, float>(
        "eigen", model, cold, rows, threads,
        [=](const Team&, auto& w, const Data& d) {
          Eigen::setNbThreads(threads);
          const auto weights = bound<Matrix<Master<float>, N, K>>(w.data());
          as_eigen(Rows<float, N>{d.out.data(), rows}).noalias() =
              as_eigen(Rows<const float, K>{d.x.data(), rows}) * as_eigen(weights).transpose();
        },
        1);
}

template <int N, int K>
void add_backward(const std::string& model, bool cold, std::int64_t rows) {
  using Data = Backward<N, K>;
  add_row<Data, float>(
      "reference", model, cold, rows, 1, [=](const Team&, const auto& w, const Data& d) {
        const kernels::MatmulBackwardArgs<float> args{.w = w.data(),
                                                      .x = d.x.data(),
                                                      .x_stride = K,
                                                      .dout = d.dout.data(),
                                                      .dout_stride = N,
                                                      .dw = d.dw.data(),
                                                      .dbias = nullptr,
                                                      .dx = d.dx.data(),
                                                      .dx_stride = K,
                                                      .add = false,
                                                      .rows = rows,
                                                      .N = N,
                                                      .K = K};
        kernels::reference::matmul_backward_input(args, {0, (K + panel_width - 1) / panel_width});
        kernels::reference::matmul_backward_weight(args, {0, N});
      });
  const auto simd = [=]<class T>(T) {
    for (const int threads : thread_counts())
      add_row<Data, T>("simd" + suffix<T>(), model, cold, rows, threads,
                       [=](const Team& team, const auto& w, const Data& d) {
                         auto dw = bound<Matrix<Master<float>, N, K>>(d.dw.data());
                         kernels::matmul_backward(on<Policy<T>>(team, rows), w,
                                                  {.x = {d.x.data(), rows},
                                                   .dout = {d.dout.data(), rows},
                                                   .dw = dw,
                                                   .dx = Rows<float, K>{d.dx.data(), rows}});
                       });
  };
  simd(0.f);
  simd(bf16());
}

[[maybe_unused]] const bool registered = [] {
  add<768, 256>("demo", false, 1);
  add<768, 256>("demo", false, 64);
  for (const int rows : {1, 512}) {
    add<4096, 1536>("samba421m", true, rows);  // SwiGLU's w1
    add<128, 3072>("samba421m", true, rows);   // Mamba's x_proj
  }
  add_backward<768, 256>("demo", false, 64);
  add_backward<4096, 1536>("samba421m", true, 512);
  add_backward<128, 3072>("samba421m", true, 512);
  return true;
}();

}  // namespace
