#include "bench.hpp"

#include <samba/kernels/cpu/rg_lru.hpp>

using namespace bench;
using namespace samba;

namespace {

/// The arrays of a recurrence over `rows` tokens and C channels.
template <int C>
struct Data {
  std::int64_t rows;
  Floats param{C}, input_bias{C}, recurrent_bias{C}, input_gate{rows * C}, recurrent_gate{rows * C},
      x{rows * C}, h{C}, y{rows * C};

  explicit Data(std::int64_t n) : rows(n) {}

  kernels::RgLruArgs<float> args() const {
    return {.param = param.data(),
            .input_bias = input_bias.data(),
            .recurrent_bias = recurrent_bias.data(),
            .input_gate = input_gate.data(),
            .input_gate_stride = C,
            .recurrent_gate = recurrent_gate.data(),
            .recurrent_gate_stride = C,
            .x = x.data(),
            .x_stride = C,
            .h = h.data(),
            .y = y.data(),
            .y_stride = C,
            .at_start = false,
            .rows = rows,
            .channels = C};
  }
  Rows<float, C> activations(const Floats& numbers) const { return {numbers.data(), rows}; }
  kernels::RgLruInputs<Policy<float>, 1, C> inputs() const {
    return {.param = bound<Vector<float, C>>(param.data()),
            .input_bias = bound<Table<float, 1, C>>(input_bias.data()),
            .recurrent_bias = bound<Table<float, 1, C>>(recurrent_bias.data()),
            .input_gate = activations(input_gate),
            .recurrent_gate = activations(recurrent_gate),
            .x = activations(x),
            .h = {h.data()}};
  }
};

/// Those of its gradients too.
template <int C>
struct Backward : Data<C> {
  Floats dy{this->rows * C}, di{this->rows * C}, dr{this->rows * C}, dx{this->rows * C}, dh{C},
      dparam{C}, di_bias{C}, dr_bias{C};

  using Data<C>::Data;
};

template <int C>
void raw_loop(const Data<C>& d) {
  const float *param = d.param.data(), *i_bias = d.input_bias.data(),
              *r_bias = d.recurrent_bias.data(), *i_gate = d.input_gate.data(),
              *r_gate = d.recurrent_gate.data(), *x = d.x.data();
  float *h = d.h.data(), *y = d.y.data();
  for (std::int64_t t = 0; t < d.rows; ++t)
    for (int c = 0; c < C; ++c) {
      const std::int64_t k = t * C + c;
      const float i = 1.f / (1.f + std::exp(-i_gate[k] - i_bias[c])),
                  r = 1.f / (1.f + std::exp(-r_gate[k] - r_bias[c]));
      const float log_a = -8.f * r * std::log1p(std::exp(param[c])), a = std::exp(log_a);
      y[k] = h[c] = a * h[c] + std::sqrt(1.f - std::exp(2.f * log_a)) * i * x[k];
    }
}

template <int C>
void reference_backward(const Backward<C>& d) {
  kernels::reference::rg_lru_backward(
      kernels::RgLruBackwardArgs<float>{.forward = d.args(),
                                        .y = d.y.data(),
                                        .y_stride = C,
                                        .dy = d.dy.data(),
                                        .dy_stride = C,
                                        .dinput_gate = d.di.data(),
                                        .dinput_gate_stride = C,
                                        .drecurrent_gate = d.dr.data(),
                                        .drecurrent_gate_stride = C,
                                        .dx = d.dx.data(),
                                        .dx_stride = C,
                                        .dh = d.dh.data(),
                                        .dparam = d.dparam.data(),
                                        .dinput_bias = d.di_bias.data(),
                                        .drecurrent_bias = d.dr_bias.data()},
      {0, C});
}

// At a position behind the start, where the state counts.

template <int C>
void simd(const Data<C>& d, const Team& team) {
  const Segment segment{.position = 1, .rows = d.rows};
  kernels::rg_lru<1, C>(on(team, segment), {.in = d.inputs(), .y = d.activations(d.y)});
}

template <int C>
void simd_backward(const Backward<C>& d, const Team& team) {
  const Segment segment{.position = 1, .rows = d.rows};
  auto dparam = bound<Vector<float, C>>(d.dparam.data());
  auto di_bias = bound<Table<float, 1, C>>(d.di_bias.data()),
       dr_bias = bound<Table<float, 1, C>>(d.dr_bias.data());
  kernels::rg_lru_backward<1, C>(on(team, segment), {.forward = d.inputs(),
                                                     .y = d.activations(d.y),
                                                     .dy = d.activations(d.dy),
                                                     .dh = {d.dh.data()},
                                                     .dinput_gate = d.activations(d.di),
                                                     .drecurrent_gate = d.activations(d.dr),
                                                     .dx = d.activations(d.dx),
                                                     .dparam = dparam,
                                                     .dinput_bias = di_bias,
                                                     .drecurrent_bias = dr_bias});
}

/// f(data, team), with data = Made(rows).
template <class Made, class F>
void add_row(const std::string& kernel, const std::string& variant, const std::string& model,
             std::int64_t rows, int channels, int threads, Cost cost, F f) {
  row(path({kernel, variant, model, extents({rows, channels})}), threads, cost,
      [=] { return [=, data = Made(rows)](const Team& team, std::int64_t) { f(data, team); }; });
}

template <int C>
void add(const std::string& model, std::int64_t rows) {
  // Of a channel and token: the biases 2, two sigmoids 6, log a 1, a and 1 - a^2 from one
  // exponential 3, the root 1, i x 1, times the root 1, the state 2, -8 softplus not.
  const Cost cost{.bytes = floats(rows * 4 * C + 5 * C),
                  .flops = 17.0 * C * static_cast<double>(rows)};
  const auto add_variant = [=](const std::string& variant, int threads, auto f) {
    add_row<Data<C>>("rg_lru", variant, model, rows, C, threads, cost, f);
  };
  add_variant("raw_loop", 1, [](const Data<C>& d, const Team&) { raw_loop(d); });
  add_variant("reference", 1,
              [](const Data<C>& d, const Team&) { kernels::reference::rg_lru(d.args(), {0, C}); });
  for (const int threads : thread_counts())
    add_variant("simd", threads, [](const Data<C>& d, const Team& team) { simd(d, team); });
}

template <int C>
void add_backward(const std::string& model, std::int64_t rows) {
  // Of a channel and token: the gates once more 13 and i x 1; g 1, du 1, log a over the root 1, dh
  // 1, dlog_a 5, dx 1, di 4, dr 2, the sums of biases and param 3.
  const Cost cost{.bytes = floats(rows * 8 * C + 12 * C),
                  .flops = 33.0 * C * static_cast<double>(rows)};
  const auto add_variant = [=](const std::string& variant, int threads, auto f) {
    add_row<Backward<C>>("rg_lru_backward", variant, model, rows, C, threads, cost, f);
  };
  add_variant("reference", 1, [](const Backward<C>& d, const Team&) { reference_backward(d); });
  for (const int threads : thread_counts())
    add_variant("simd", threads,
                [](const Backward<C>& d, const Team& team) { simd_backward(d, team); });
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
