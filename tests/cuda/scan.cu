// The selective scan and the convolution before it against the scalar reference in double, with fresh
// random inputs: pieces of time, several segments, odd numbers of channels, float and bf16; that a
// sequence gets the same bits whatever else is in a launch and for any split; and that every output is
// written (they are poisoned before).
// Usage: scan          Exit status 77 where there is no device.
#include <samba/kernels/reference/causal_conv1d.hpp>
#include <samba/kernels/reference/selective_scan.hpp>

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "tests/cuda/support.cuh"

using namespace samba;
using namespace samba_test;

namespace {

std::mt19937 generator(std::random_device{}());

template <class X>
std::vector<X> random(std::int64_t n, float low, float high) {
  std::uniform_real_distribution<float> number(low, high);
  std::vector<X> x(static_cast<std::size_t>(n));
  for (X& v : x) v = X(number(generator));
  return x;
}
template <class X>
std::vector<double> wide(const std::vector<X>& x) {
  std::vector<double> y;
  for (const X v : x) y.push_back(static_cast<double>(static_cast<float>(v)));
  return y;
}
template <class X>
double error(const std::vector<X>& found, const std::vector<double>& expected) {
  double sum = 0, all = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double f = static_cast<float>(found[i]);
    if (!std::isfinite(f)) return 1e30;
    sum += (f - expected[i]) * (f - expected[i]);
    all += expected[i] * expected[i];
  }
  return std::sqrt(sum / (all + 1e-300));
}
void report(const char* what, double found, double most, bool equal) {
  const bool passed = found <= most && equal;
  right &= passed;
  std::printf("%s %s: error %.2e, at most %.0e%s\n", passed ? "     " : "WRONG", what, found, most,
              equal ? "" : "; OTHER BITS alone or in parts");
}

/// Rows [begin, end) of a matrix of some width.
template <class X>
std::vector<X> rows_of(const std::vector<X>& x, std::int64_t width, std::int64_t begin,
                       std::int64_t end) {
  return {x.begin() + begin * width, x.begin() + end * width};
}

template <int N, class E>
void check_scan(const cuda::Device& device, std::int64_t channels, bool gate,
                const std::vector<std::int64_t>& lengths) {
  std::int64_t rows = 0;
  for (const std::int64_t n : lengths) rows += n;
  const auto n_segments = static_cast<std::int64_t>(lengths.size());
  auto A = random<float>(N * channels, -8, -0.1f), D = random<float>(channels, -1, 1),
       dt_bias = random<float>(channels, -6, 0);
  const auto dt = random<E>(rows * channels, -1, 1), BC = random<E>(rows * 2 * N, -1, 1),
             x = random<E>(rows * channels, -1, 1), z = random<E>(rows * channels, -3, 3);
  const auto h = random<float>(n_segments * N * channels, -1, 1);

  struct Outputs {
    std::vector<E> y;
    std::vector<float> h;
  };
  const DeviceCopy<float> on_A(A), on_D(D), on_bias(dt_bias);
  const auto run = [&](const std::vector<E>& dt, const std::vector<E>& BC, const std::vector<E>& x,
                       const std::vector<E>& z, const std::vector<float>& h,
                       const std::vector<std::int64_t>& lengths, std::int64_t position = 5) {
    std::vector<Segment> segments;
    std::int64_t first = 0;
    for (const std::int64_t n : lengths) {
      segments.push_back({position, first, n, std::ssize(segments)});
      first += n;
    }
    const DeviceCopy<E> on_dt(dt), on_BC(BC), on_x(x), on_z(z);
    const DeviceCopy<float> on_h(h);
    const DeviceCopy<Segment> on_segments(segments);
    kernels::SelectiveScanChunk<N, float, E> chunk{};
    chunk.args = {.A = on_A.data(),
                  .D = on_D.data(),
                  .dt_bias = on_bias.data(),
                  .dt = on_dt.data(),
                  .dt_stride = channels,
                  .B = on_BC.data(),
                  .B_stride = 2 * N,
                  .C = on_BC.data() + N,
                  .C_stride = 2 * N,
                  .x = on_x.data(),
                  .x_stride = channels,
                  .z = gate ? on_z.data() : nullptr,
                  .z_stride = channels,
                  .h = nullptr,
                  .y = on_dt.data(),  // in the place of dt, as in Mamba
                  .y_stride = channels,
                  .before_gate = nullptr,
                  .before_gate_stride = 0,
                  .rows = first,
                  .channels = channels};
    chunk.h.data = on_h.data();
    chunk.h.stride = N * channels * std::int64_t{sizeof(float)};
    launch(device.get(), Chunk{{on_segments.data(), segments.size()}, first}, chunk);
    device.synchronize();
    return Outputs{on_dt.read(), on_h.read()};
  };
  const Outputs found = run(dt, BC, x, z, h, lengths);

  auto exact_h = wide(h);
  std::vector<double> y(static_cast<std::size_t>(rows * channels));
  const auto exact_A = wide(A), exact_D = wide(D), exact_bias = wide(dt_bias), exact_dt = wide(dt),
             exact_BC = wide(BC), exact_x = wide(x), exact_z = wide(z);
  std::int64_t first = 0;
  for (std::int64_t s = 0; s < n_segments; ++s) {
    const std::int64_t at = first * channels;
    kernels::SelectiveScanArgs<double> a{.A = exact_A.data(),
                                         .D = exact_D.data(),
                                         .dt_bias = exact_bias.data(),
                                         .dt = exact_dt.data() + at,
                                         .dt_stride = channels,
                                         .B = exact_BC.data() + first * 2 * N,
                                         .B_stride = 2 * N,
                                         .C = exact_BC.data() + first * 2 * N + N,
                                         .C_stride = 2 * N,
                                         .x = exact_x.data() + at,
                                         .x_stride = channels,
                                         .z = gate ? exact_z.data() + at : nullptr,
                                         .z_stride = channels,
                                         .h = exact_h.data() + s * N * channels,
                                         .y = y.data() + at,
                                         .y_stride = channels,
                                         .before_gate = nullptr,
                                         .before_gate_stride = 0,
                                         .rows = lengths[static_cast<std::size_t>(s)],
                                         .channels = channels};
    kernels::reference::selective_scan<N>(a, {0, channels});
    first += lengths[static_cast<std::size_t>(s)];
  }

  // The last sequence alone, and in two parts.
  const std::int64_t n = lengths.back(), begin = rows - n;
  const std::vector<float> h0(h.end() - N * channels, h.end());
  const auto part = [&](std::int64_t from, std::int64_t to, const std::vector<float>& h) {
    return run(rows_of(dt, channels, from, to), rows_of(BC, 2 * N, from, to),
               rows_of(x, channels, from, to), rows_of(z, channels, from, to), h, {to - from},
               5 + from - begin);
  };
  const auto same = [&](const Outputs& o, std::int64_t from, bool last) {
    return std::memcmp(o.y.data(), found.y.data() + from * channels, o.y.size() * sizeof(E)) == 0 &&
           (!last || std::memcmp(o.h.data(), found.h.data() + (n_segments - 1) * N * channels,
                                 o.h.size() * sizeof(float)) == 0);
  };
  bool equal = same(part(begin, rows, h0), begin, true);
  for (const std::int64_t half : {std::int64_t{1}, std::int64_t{2}, std::int64_t{7}, n / 2})
    if (half > 0 && half < n) {
      const Outputs one = part(begin, begin + half, h0), two = part(begin + half, rows, one.h);
      equal &= same(one, begin, false) && same(two, begin + half, true);
    }
  char name[100];
  std::snprintf(name, sizeof name, "scan %s N %2d, %4lld channels, %zu segments, %lld rows%s",
                sizeof(E) == 2 ? "bf16 " : "float", N, static_cast<long long>(channels),
                lengths.size(), static_cast<long long>(rows), gate ? ", gate" : "");
  report(name, (std::max)(error(found.y, y), error(found.h, exact_h)), sizeof(E) == 2 ? 3e-3 : 2e-6,
         equal);
}

template <class E>
void check_conv(const cuda::Device& device, std::int64_t channels,
                const std::vector<std::int64_t>& lengths) {
  constexpr int taps = 4;
  std::int64_t rows = 0;
  std::vector<Segment> segments;
  for (const std::int64_t n : lengths) {
    segments.push_back({5, rows, n, std::ssize(segments)});
    rows += n;
  }
  const auto weight = random<float>(taps * channels, -1, 1), bias = random<float>(channels, -1, 1),
             past = random<float>(std::ssize(lengths) * (taps - 1) * channels, -1, 1);
  const auto x = random<E>(rows * channels, -2, 2);
  const DeviceCopy<float> on_weight(weight), on_bias(bias), on_past(past);
  const DeviceCopy<E> on_x(x), on_y(std::vector<E>(x.size(), E(std::nanf(""))));
  const DeviceCopy<Segment> on_segments(segments);
  kernels::CausalConv1dChunk<taps, kernels::ConvActivation::silu, float, E> chunk{};
  chunk.args.weight = on_weight.data();
  chunk.args.bias = on_bias.data();
  chunk.args.x = on_x.data();
  chunk.args.y = on_y.data();
  chunk.args.x_stride = chunk.args.y_stride = chunk.args.channels = channels;
  chunk.args.rows = rows;
  chunk.past.data = on_past.data();
  chunk.past.stride = (taps - 1) * channels * std::int64_t{sizeof(float)};
  launch(device.get(), Chunk{{on_segments.data(), segments.size()}, rows}, chunk);
  device.synchronize();

  auto exact_past = wide(past);
  const auto exact_weight = wide(weight), exact_bias = wide(bias), exact_x = wide(x);
  std::vector<double> y(x.size());
  for (const Segment& s : segments) {
    kernels::CausalConv1dArgs<double> a{};
    a.weight = exact_weight.data();
    a.bias = exact_bias.data();
    a.past = exact_past.data() + s.state * (taps - 1) * channels;
    a.x = exact_x.data() + s.first_row * channels;
    a.y = y.data() + s.first_row * channels;
    a.x_stride = a.y_stride = a.channels = channels;
    a.rows = s.rows;
    kernels::reference::causal_conv1d<taps, true>(a, {0, channels});
  }
  char name[100];
  std::snprintf(name, sizeof name, "convolution %s, %lld channels, %lld rows",
                sizeof(E) == 2 ? "bf16 " : "float", static_cast<long long>(channels),
                static_cast<long long>(rows));
  report(name, (std::max)(error(on_y.read(), y), error(on_past.read(), exact_past)),
         sizeof(E) == 2 ? 3e-3 : 2e-6, true);
}

}  // namespace

int main() {
  return run_checks([] {
    const cuda::Device device;
    check_scan<16, float>(device, 256, true, {300});
    check_scan<16, bf16>(device, 256, true, {300});
    check_scan<16, bf16>(device, 512, true, {1000, 1, 128, 517});
    check_scan<16, bf16>(device, 33, false, {5, 0, 260});
    check_scan<4, float>(device, 130, true, {129, 700});
    check_scan<4, bf16>(device, 40, true, {1, 1, 1});
    check_scan<64, bf16>(device, 64, true, {400});
    check_conv<float>(device, 256, {100, 1, 2, 33});
    check_conv<bf16>(device, 256, {100, 1, 2, 33});
    check_conv<bf16>(device, 33, {64, 31});
    check_conv<bf16>(device, 4096, {1, 1, 1});
  });
}
