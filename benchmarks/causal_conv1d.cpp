#include "bench.hpp"

#include <samba/kernels/cpu/causal_conv1d.hpp>

using namespace bench;
using namespace samba;

namespace {

constexpr int taps = 4;

/// x: (taps - 1 + rows, C), the earlier inputs first; weight: (C, taps); y: (rows, C).
void raw_loop(const float* x, const float* weight, const float* bias, float* y, std::int64_t rows,
              int C) {
  for (std::int64_t t = 0; t < rows; ++t)
    for (int c = 0; c < C; ++c) {
      float sum = bias[c];
      for (int j = 0; j < taps; ++j) sum += weight[c * taps + j] * x[(t + j) * C + c];
      y[t * C + c] = sum / (1.f + std::exp(-sum));
    }
}

/// The arrays of a convolution; the rows of x are 2 C apart, as they are in Mamba.
template <int C>
struct Forward {
  static constexpr const char* kernel = "causal_conv1d";
  static constexpr int channels = C;
  std::int64_t rows;
  Floats weight{taps * C}, bias{C}, past{(taps - 1) * C}, x{(taps - 1 + rows) * 2 * C}, y{rows * C};

  explicit Forward(std::int64_t n) : rows(n) {}

  kernels::CausalConv1dArgs<float> args() const {
    return {.weight = weight.data(),
            .bias = bias.data(),
            .x = x.data(),
            .x_stride = 2 * C,
            .past = past.data(),
            .y = y.data(),
            .y_stride = C,
            .rows = rows,
            .channels = C};
  }
};

/// Those of its gradients too; dx stands like x.
template <int C>
struct Backward : Forward<C> {
  static constexpr const char* kernel = "causal_conv1d_backward";
  Floats dy{this->rows * C}, dx{this->rows * 2 * C}, dpast{(taps - 1) * C}, dweight{taps * C},
      dbias{C};

  using Forward<C>::Forward;
};

/// convolve(team, data), where data is Forward or Backward.
template <class Data, class Convolve>
void add_row(const std::string& variant, const std::string& model, std::int64_t rows, int threads,
             Cost cost, Convolve convolve) {
  row(path({Data::kernel, variant, model, extents({rows, Data::channels, taps})}), threads, cost,
      [=] {
        return [=, data = Data(rows)](const Team& team, std::int64_t) { convolve(team, data); };
      });
}

template <int C>
void add(const std::string& model, std::int64_t rows) {
  using Data = Forward<C>;
  const Cost cost{.bytes = floats(2 * rows * C + (taps + 1) * C + 2 * (taps - 1) * C),
                  .flops = (2.0 * taps + 4) * C * static_cast<double>(rows)};
  add_row<Data>("raw_loop", model, rows, 1, cost, [](const Team&, const Data& d) {
    raw_loop(d.x.data(), d.weight.data(), d.bias.data(), d.y.data(), d.rows, C);
  });
  add_row<Data>("reference", model, rows, 1, cost, [](const Team&, const Data& d) {
    kernels::reference::causal_conv1d<taps, true>(d.args(), {0, C});
  });
  for (const int threads : thread_counts())
    add_row<Data>("simd", model, rows, threads, cost, [](const Team& team, const Data& d) {
      const Segment segment{.rows = d.rows};
      kernels::causal_conv1d<C, taps>(on(team, segment),
                                      {.weight = bound<Filter<float, C, taps>>(d.weight.data()),
                                       .bias = bound<Vector<float, C>>(d.bias.data()),
                                       .past = {d.past.data()},
                                       .x = {d.x.data(), d.rows, 2 * C},
                                       .y = {d.y.data(), d.rows}});
    });
}

template <int C>
void add_backward(const std::string& model, std::int64_t rows) {
  using Data = Backward<C>;
  // Three sums of `taps` products, those of y once more and those of dx and dweight; the derivative
  // of silu 8, times dy 1, dbias 1.
  const Cost cost{.bytes = floats(3 * rows * C + 3 * (taps + 1) * C + 3 * (taps - 1) * C),
                  .flops = (6.0 * taps + 10) * C * static_cast<double>(rows)};
  add_row<Data>("reference", model, rows, 1, cost, [](const Team&, const Data& d) {
    kernels::reference::causal_conv1d_backward<taps, true>(
        kernels::CausalConv1dBackwardArgs<float>{.forward = d.args(),
                                                 .dy = d.dy.data(),
                                                 .dy_stride = C,
                                                 .dx = d.dx.data(),
                                                 .dx_stride = 2 * C,
                                                 .dpast = d.dpast.data(),
                                                 .dweight = d.dweight.data(),
                                                 .dbias = d.dbias.data()},
        {0, C});
  });
  for (const int threads : thread_counts())
    add_row<Data>("simd", model, rows, threads, cost, [](const Team& team, const Data& d) {
      auto dweight = bound<Filter<float, C, taps>>(d.dweight.data());
      auto dbias = bound<Vector<float, C>>(d.dbias.data());
      const Segment segment{.rows = d.rows};
      kernels::causal_conv1d_backward<C, taps>(
          on(team, segment), {.weight = bound<Filter<float, C, taps>>(d.weight.data()),
                              .bias = bound<Vector<float, C>>(d.bias.data()),
                              .past = {d.past.data()},
                              .x = {d.x.data(), d.rows, 2 * C},
                              .dy = {d.dy.data(), d.rows},
                              .dpast = {d.dpast.data()},
                              .dx = {d.dx.data(), d.rows, 2 * C},
                              .dweight = dweight,
                              .dbias = dbias});
    });
}

[[maybe_unused]] const bool registered = [] {
  add<512>("demo", 64);
  add<3072>("samba421m", 1);
  add<3072>("samba421m", 512);
  add_backward<512>("demo", 64);
  add_backward<3072>("samba421m", 512);
  return true;
}();

}  // namespace
