// The selective scan and the convolution of Mamba on a GPU: time against exponentials and bytes.
#include "benchmarks/cuda/bench.cuh"

using namespace samba;
using namespace samba_bench;

namespace {

/// `launches` launches of sequences of `rows` rows each.
void row(const cuda::Device& device, std::int64_t sequences, std::int64_t rows, int launches) {
  constexpr std::int64_t channels = 4096, N = 16, taps = 4;
  const std::int64_t all = sequences * rows;
  const Arena xz = cuda::allocate(all * 2 * channels * 2, "xz"),
              x = cuda::allocate(all * channels * 2, "x"),
              dt = cuda::allocate(all * channels * 2, "dt"),
              BC = cuda::allocate(all * 160 * 2, "BC"), y = cuda::allocate(all * channels * 2, "y"),
              weights = cuda::allocate((N + 8) * channels * 4, "weights"),
              states = cuda::allocate(sequences * (N + taps) * channels * 4, "states");
  const auto of = [](const Arena& arena) { return reinterpret_cast<bf16*>(arena.data()); };
  for (const Arena* arena : {&xz, &x, &dt, &BC}) fill(of(*arena), arena->bytes() / 2);
  float* const w = reinterpret_cast<float*>(weights.data());
  fill(w, (N + 8) * channels, -1.f, -0.1f);
  std::vector<Segment> segments;
  for (std::int64_t i = 0; i < sequences; ++i) segments.push_back({0, i * rows, rows, i});
  const Arena on_device = cuda::to_device(std::as_bytes(std::span(segments)), "segments");
  const Chunk c{{reinterpret_cast<const Segment*>(on_device.data()), segments.size()}, all};

  kernels::SelectiveScanChunk<N, float, bf16> scan{};
  auto& a = scan.args;
  a.A = w;
  a.D = w + N * channels;
  a.dt_bias = a.D + channels;
  a.dt = of(dt);
  a.B = of(BC) + 128;
  a.C = of(BC) + 144;
  a.B_stride = a.C_stride = 160;
  a.x = of(x);
  a.z = of(xz) + channels;
  a.z_stride = 2 * channels;
  a.y = of(y);
  a.dt_stride = a.x_stride = a.y_stride = a.channels = channels;
  a.rows = all;
  scan.h.data = reinterpret_cast<float*>(states.data());
  scan.h.stride = (N + taps) * channels * 4;
  const double ms = 1e3 * seconds(device, [&] {
                      for (int i = 0; i < launches; ++i) launch(device.get(), c, scan);
                    });
  const double numbers = static_cast<double>(all * launches * channels);
  std::printf(
      "selective scan, %d launches of %lld x %5lld tokens: %7.3f ms, %.2f of 16 exponentials a "
      "clock and multiprocessor\n",
      launches, static_cast<long long>(sequences), static_cast<long long>(rows), ms,
      numbers * 20 / (ms * 1e-3) / 132 / 1.755e9 / 16);

  kernels::CausalConv1dChunk<taps, kernels::ConvActivation::silu, float, bf16> conv{};
  conv.args.weight = w;
  conv.args.bias = w + taps * channels;
  conv.args.x = of(xz);
  conv.args.x_stride = 2 * channels;
  conv.args.y = of(x);
  conv.args.y_stride = conv.args.channels = channels;
  conv.args.rows = all;
  conv.past.data = scan.h.data + N * channels;
  conv.past.stride = scan.h.stride;
  const double conv_ms = 1e3 * seconds(device, [&] {
                           for (int i = 0; i < launches; ++i) launch(device.get(), c, conv);
                         });
  std::printf("convolution,    %d launches of %lld x %5lld tokens: %7.3f ms, %.2f TB/s\n", launches,
              static_cast<long long>(sequences), static_cast<long long>(rows), conv_ms,
              numbers * 4 / conv_ms * 1e-9);
}

}  // namespace

int main() {
  return run_on_device([] {
    const cuda::Device device;
    row(device, 8, 4096, 1);
    row(device, 1, 32768, 1);
    row(device, 1, 8192, 4);
    row(device, 1, 8192, 16);
    row(device, 1, 4096, 8);
    row(device, 1, 1, 1);
    row(device, 64, 1, 1);
  });
}
