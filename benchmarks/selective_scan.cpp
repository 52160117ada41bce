#include "bench.hpp"

#include <samba/kernels/cpu/selective_scan.hpp>

using namespace bench;
using namespace samba;

namespace {

constexpr int N = 16;

/// The arrays of a scan over `rows` tokens and C channels; B and C stand in rows of rank + 2 N.
template <int C>
struct Data {
  static constexpr int d_inner = C, rank = C / 32, rBC_width = rank + 2 * N;
  std::int64_t rows;
  Floats A{N * C}, D{C}, dt_bias{C}, dt{rows * C}, rBC{rows * rBC_width}, x{rows * C}, z{rows * C},
      h{N * C}, y{rows * C};

  explicit Data(std::int64_t n) : rows(n) {
    for (int i = 0; i < N * C; ++i) A.data()[i] = -std::exp(A.data()[i]);
  }
};

/// A, h: (C, N), the others (rows, .), all row major.
template <int C>
void raw_loop(const Data<C>& d) {
  const float *A = d.A.data(), *dt = d.dt.data(), *x = d.x.data(), *z = d.z.data();
  float *h = d.h.data(), *y = d.y.data();
  for (std::int64_t t = 0; t < d.rows; ++t) {
    const float* B = d.rBC.data() + t * d.rBC_width + d.rank;
    for (int c = 0; c < C; ++c) {
      const std::int64_t i = t * C + c;
      const float s = dt[i] + d.dt_bias.data()[c], delta = s > 20.f ? s : std::log1p(std::exp(s));
      float sum = d.D.data()[c] * x[i];
      for (int n = 0; n < N; ++n) {
        h[c * N + n] = std::exp(delta * A[c * N + n]) * h[c * N + n] + delta * B[n] * x[i];
        sum += B[N + n] * h[c * N + n];
      }
      y[i] = sum * (z[i] / (1.f + std::exp(-z[i])));
    }
  }
}

/// The gradients of a scan, with scratch for some threads.
template <int C>
struct Backward : Data<C> {
  using Scratch = kernels::ScanBackwardScratch<Policy<float>, N, C>;
  Floats dy{this->rows * C}, ddt{this->rows * C}, drBC{this->rows * Data<C>::rBC_width},
      dx{this->rows * C}, dz{this->rows * C}, dh{N * C}, dA{N * C}, dD{C}, ddt_bias{C};
  Scratch scratch;
  Arena memory;

  Backward(std::int64_t n, int threads) : Data<C>(n) {
    const auto place = [&](std::byte* block) {
      ScratchPlacer placer{.placer = {block}, .rows = n, .threads = threads};
      Scratch::visit(scratch, placer);
      return placer.placer.offset;
    };
    memory = Arena(place(nullptr));
    place(memory.data());
  }
};

template <int C>
kernels::SelectiveScanArgs<float> args(const Data<C>& d) {
  const float* B = d.rBC.data() + d.rank;
  return {.A = d.A.data(),
          .D = d.D.data(),
          .dt_bias = d.dt_bias.data(),
          .dt = d.dt.data(),
          .dt_stride = C,
          .B = B,
          .B_stride = d.rBC_width,
          .C = B + N,
          .C_stride = d.rBC_width,
          .x = d.x.data(),
          .x_stride = C,
          .z = d.z.data(),
          .z_stride = C,
          .h = d.h.data(),
          .y = d.y.data(),
          .y_stride = C,
          .before_gate = nullptr,
          .before_gate_stride = 0,
          .rows = d.rows,
          .channels = C};
}

template <int C>
void reference(const Data<C>& d) {
  kernels::reference::selective_scan<N>(args(d), {0, C});
}

/// Without the sum over blocks of channels, which is left to the caller.
template <int C>
void reference_backward(const Backward<C>& d) {
  kernels::reference::selective_scan_backward<N>(
      kernels::SelectiveScanBackwardArgs<float>{.forward = args(d),
                                                .dy = d.dy.data(),
                                                .dy_stride = C,
                                                .dbefore_gate = nullptr,
                                                .dbefore_gate_stride = 0,
                                                .ddt = d.ddt.data(),
                                                .ddt_stride = C,
                                                .dx = d.dx.data(),
                                                .dx_stride = C,
                                                .dz = d.dz.data(),
                                                .dz_stride = C,
                                                .dBC = d.scratch.dBC.data,
                                                .dBC_stride = d.scratch.dBC.stride,
                                                .dh = d.dh.data(),
                                                .dA = d.dA.data(),
                                                .dD = d.dD.data(),
                                                .ddt_bias = d.ddt_bias.data()},
      {0, C}, d.scratch.kept.of(0), d.scratch.piece.of(0));
}

/// (rows, C)
template <int C>
Rows<float, C> activations(const Data<C>& d, const Floats& numbers) {
  return {numbers.data(), d.rows};
}
/// The part of rows of (rank + 2 N) that B and C, or their gradients, stand in.
template <int C>
Rows<float, 2 * N> BC_of(const Data<C>& d, const Floats& rBC) {
  return last<2 * N>(Rows<float, Data<C>::rBC_width>{rBC.data(), d.rows});
}

template <int C>
void simd(const Data<C>& d, const Team& team) {
  const Segment segment{.rows = d.rows};
  kernels::selective_scan<N, C>(on(team, segment),
                                {.A = bound<Table<float, N, C>>(d.A.data()),
                                 .D = bound<Vector<float, C>>(d.D.data()),
                                 .dt_bias = bound<Vector<float, C>>(d.dt_bias.data()),
                                 .dt = activations(d, d.dt),
                                 .B = first<N>(BC_of(d, d.rBC)),
                                 .C = last<N>(BC_of(d, d.rBC)),
                                 .x = activations(d, d.x),
                                 .z = activations(d, d.z),
                                 .h = {d.h.data()},
                                 .y = activations(d, d.y)});
}

template <int C>
void simd_backward(const Backward<C>& d, const Team& team) {
  const Segment segment{.rows = d.rows};
  auto dA = bound<Table<float, N, C>>(d.dA.data());
  auto dD = bound<Vector<float, C>>(d.dD.data()),
       ddt_bias = bound<Vector<float, C>>(d.ddt_bias.data());
  kernels::selective_scan_backward<N, C>(
      on(team, segment), {.forward = {.A = bound<Table<float, N, C>>(d.A.data()),
                                      .D = bound<Vector<float, C>>(d.D.data()),
                                      .dt_bias = bound<Vector<float, C>>(d.dt_bias.data()),
                                      .dt = activations(d, d.dt),
                                      .B = first<N>(BC_of(d, d.rBC)),
                                      .C = last<N>(BC_of(d, d.rBC)),
                                      .x = activations(d, d.x),
                                      .z = activations(d, d.z),
                                      .h = {d.h.data()}},
                          .dy = activations(d, d.dy),
                          .dh = {d.dh.data()},
                          .ddt = activations(d, d.ddt),
                          .dB = first<N>(BC_of(d, d.drBC)),
                          .dC = last<N>(BC_of(d, d.drBC)),
                          .dx = activations(d, d.dx),
                          .dz = activations(d, d.dz),
                          .dA = dA,
                          .dD = dD,
                          .ddt_bias = ddt_bias,
                          .scratch = d.scratch});
}

/// scan(data, team), with data = make().
template <int C, class Make, class Scan>
void add_row(const std::string& kernel, const std::string& variant, const std::string& model,
             std::int64_t rows, int threads, Cost cost, Make make, Scan scan) {
  row(path({kernel, variant, model, extents({rows, C, N})}), threads, cost,
      [=] { return [=, data = make()](const Team& team, std::int64_t) { scan(data, team); }; });
}

template <int C>
void add(const std::string& model, std::int64_t rows) {
  const Cost cost{.bytes = floats(rows * (4 * C + 2 * N) + 3 * N * C + 2 * C),
                  .flops = (6.0 * N + 10) * C * static_cast<double>(rows)};
  const auto add_variant = [=](const std::string& variant, int threads, auto scan) {
    add_row<C>(
        "selective_scan", variant, model, rows, threads, cost, [=] { return Data<C>(rows); }, scan);
  };
  add_variant("raw_loop", 1, [](const Data<C>& d, const Team&) { raw_loop(d); });
  add_variant("reference", 1, [](const Data<C>& d, const Team&) { reference(d); });
  for (const int threads : thread_counts())
    add_variant("simd", threads, [](const Data<C>& d, const Team& team) { simd(d, team); });
}

template <int C>
void add_backward(const std::string& model, std::int64_t rows) {
  // Of a state and token: the state once more 5, y 2, dh 3, dA 3, ddt 4, dB 2, dC 2. Of a channel
  // and token: delta 4, delta x 1, D x 1, z's sigmoid and silu 5, g 1, dz 6, ddt 7, dx 3, dD 2, the
  // bias 1.
  const Cost cost{.bytes = floats(rows * (7 * C + 4 * N) + 6 * N * C + 6 * C),
                  .flops = (21.0 * N + 31) * C * static_cast<double>(rows)};
  const auto add_variant = [=](const std::string& variant, int threads, auto scan) {
    add_row<C>(
        "selective_scan_backward", variant, model, rows, threads, cost,
        [=] { return Backward<C>(rows, threads); }, scan);
  };
  add_variant("reference", 1, [](const Backward<C>& d, const Team&) { reference_backward(d); });
  for (const int threads : thread_counts())
    add_variant("simd", threads,
                [](const Backward<C>& d, const Team& team) { simd_backward(d, team); });
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
