#include "bench.hpp"

#include <samba/kernels/selective_scan.hpp>

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

template <int C>
void reference(const Data<C>& d) {
  const float* B = d.rBC.data() + d.rank;
  kernels::reference::selective_scan<N>(
      kernels::SelectiveScanArgs<float>{d.A.data(), d.D.data(), d.dt_bias.data(), d.dt.data(), C, B,
                                        B + N, d.rBC_width, d.x.data(), C, d.z.data(), C,
                                        d.h.data(), d.y.data(), C, d.rows, C},
      {0, C});
}

template <int C>
void simd(const Data<C>& d, const Team& team) {
  Table<float, N, C> A;
  A.bind(reinterpret_cast<std::byte*>(d.A.data()));
  Vector<float, C> D, dt_bias;
  D.bind(reinterpret_cast<std::byte*>(d.D.data()));
  dt_bias.bind(reinterpret_cast<std::byte*>(d.dt_bias.data()));
  Array<float, N, C> h{d.h.data()};
  const Segment segment{0, 0, d.rows};
  const Rows<float, Data<C>::rBC_width> rBC{d.rBC.data(), d.rows};
  kernels::selective_scan(
      Chunk{team, {&segment, 1}, d.rows}, A, D, dt_bias, {d.dt.data(), d.rows},
      slice<Data<C>::rank, N>(rBC), last<N>(rBC), {d.x.data(), d.rows}, {d.z.data(), d.rows},
      States<Array<float, N, C>>(reinterpret_cast<std::byte*>(&h), 0), {d.y.data(), d.rows});
}

template <int C>
void add(const std::string& model, std::int64_t rows) {
  const Cost cost{.bytes = floats(rows * (4 * C + 2 * N) + 3 * N * C + 2 * C),
                  .flops = (6.0 * N + 10) * C * static_cast<double>(rows)};
  const auto add_row = [=](const std::string& variant, int threads, auto scan) {
    row(path({"selective_scan", variant, model, extents({rows, C, N})}), threads, cost, [=] {
      return [=, data = Data<C>(rows)](const Team& team, std::int64_t) { scan(data, team); };
    });
  };
  add_row("raw_loop", 1, [](const Data<C>& d, const Team&) { raw_loop(d); });
  add_row("reference", 1, [](const Data<C>& d, const Team&) { reference(d); });
  for (const int threads : thread_counts())
    add_row("simd", threads, [](const Data<C>& d, const Team& team) { simd(d, team); });
}

[[maybe_unused]] const bool registered = [] {
  add<512>("demo", 64);
  add<3072>("samba421m", 1);
  add<3072>("samba421m", 512);
  return true;
}();

}  // namespace
