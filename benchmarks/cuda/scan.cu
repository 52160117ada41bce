// The selective scan and the convolution of Mamba on a GPU: time against exponentials and bytes.
#include <samba/cuda.cuh>

#include <algorithm>
#include <cstdio>
#include <vector>

using namespace samba;

namespace {

__global__ void fill(bf16* x, std::int64_t n) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i < n) cuda::store(x + i, static_cast<float>((i * 2654435761u >> 8) % 65536) / 32768.f - 1.f);
}
__global__ void fill(float* x, std::int64_t n, float low, float high) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i < n)
    x[i] = low + (high - low) * static_cast<float>((i * 2654435761u >> 8) % 65536) / 65536.f;
}

template <class Work>
double median_ms(const cuda::Device& device, Work&& work) {
  constexpr int warm = 3, runs = 21;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < warm + runs; ++i) {
    cudaEventRecord(begin, device.get().stream);
    work();
    cudaEventRecord(end, device.get().stream);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= warm) times.push_back(ms);
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[runs / 2];
}

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
  for (const Arena* arena : {&xz, &x, &dt, &BC})
    fill<<<cuda::blocks(arena->bytes() / 2, 256), 256, 0, device.get().stream>>>(
        of(*arena), arena->bytes() / 2);
  float* const w = reinterpret_cast<float*>(weights.data());
  fill<<<cuda::blocks((N + 8) * channels, 256), 256, 0, device.get().stream>>>(
      w, (N + 8) * channels, -1.f, -0.1f);
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
  const double ms = median_ms(device, [&] {
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
  const double conv_ms = median_ms(device, [&] {
    for (int i = 0; i < launches; ++i) launch(device.get(), c, conv);
  });
  std::printf("convolution,    %d launches of %lld x %5lld tokens: %7.3f ms, %.2f TB/s\n", launches,
              static_cast<long long>(sequences), static_cast<long long>(rows), conv_ms,
              numbers * 4 / conv_ms * 1e-9);
}

}  // namespace

int main() {
  const cuda::Device device;
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  std::printf("%s\n", properties.name);
  row(device, 8, 4096, 1);
  row(device, 1, 32768, 1);
  row(device, 1, 8192, 4);
  row(device, 1, 8192, 16);
  row(device, 1, 4096, 8);
  row(device, 1, 1, 1);
  row(device, 64, 1, 1);
}
