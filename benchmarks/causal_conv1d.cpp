#include "bench.hpp"

#include <samba/kernels/causal_conv1d.hpp>

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

template <int C>
void add(const std::string& model, std::int64_t rows) {
  const Cost cost{.bytes = floats(2 * rows * C + (taps + 1) * C + 2 * (taps - 1) * C),
                  .flops = (2.0 * taps + 4) * C * static_cast<double>(rows)};
  // convolve(team, weight, bias, past, x, y); the rows of x are 2 C apart, as they are in Mamba
  const auto add_row = [=](const std::string& variant, int threads, auto convolve) {
    row(path({"causal_conv1d", variant, model, extents({rows, C, taps})}), threads, cost, [=] {
      return [=, weight = Floats(taps * C), bias = Floats(C), past = Floats((taps - 1) * C),
              x = Floats((taps - 1 + rows) * 2 * C),
              y = Floats(rows * C)](const Team& team, std::int64_t) {
        convolve(team, weight.data(), bias.data(), past.data(), x.data(), y.data());
      };
    });
  };
  add_row("raw_loop", 1, [=](const Team&, float* weight, float* bias, float*, float* x, float* y) {
    raw_loop(x, weight, bias, y, rows, C);
  });
  add_row("reference", 1,
          [=](const Team&, float* weight, float* bias, float* past, float* x, float* y) {
            kernels::reference::causal_conv1d<taps, true>(
                kernels::CausalConv1dArgs<float>{weight, bias, x, 2 * C, past, y, C, rows, C},
                {0, C});
          });
  for (const int threads : thread_counts())
    add_row("simd", threads,
            [=](const Team& team, float* weight, float* bias, float* past, float* x, float* y) {
              Filter<float, C, taps> w;
              w.bind(reinterpret_cast<std::byte*>(weight));
              Vector<float, C> b;
              b.bind(reinterpret_cast<std::byte*>(bias));
              Array<float, taps - 1, C> state{past};
              const Segment segment{0, 0, rows};
              kernels::causal_conv1d(
                  Chunk{team, {&segment, 1}, rows}, w, b, {x, rows, 2 * C},
                  States<Array<float, taps - 1, C>>(reinterpret_cast<std::byte*>(&state), 0),
                  {y, rows});
            });
}

[[maybe_unused]] const bool registered = [] {
  add<512>("demo", 64);
  add<3072>("samba421m", 1);
  add<3072>("samba421m", 512);
  return true;
}();

}  // namespace
