// Attention of many rows on a GPU: time, FLOPs and exponentials against what the card can do.
#include <cmath>

#include "benchmarks/cuda/bench.cuh"

using namespace samba;
using namespace samba_bench;

namespace {

/// sequences of `rows` tokens in one launch, from the start.
template <class Launch>
void row(const cuda::Device& device, const char* name, int kv_heads, int group, int D,
         std::int64_t sequences, std::int64_t rows, std::int64_t window, Launch launch) {
  const std::int64_t q_width = kv_heads * group * D, kv_width = kv_heads * D,
                     width = q_width + 2 * kv_width, all = sequences * rows;
  const Arena qkv = cuda::allocate(all * width * 2, "qkv"),
              out = cuda::allocate(all * q_width * 2, "out"),
              rings = cuda::allocate(sequences * 2 * window * kv_width * 2, "rings");
  bf16* const x = reinterpret_cast<bf16*>(qkv.data());
  fill(x, all * width);
  std::vector<Segment> segments;
  for (std::int64_t i = 0; i < sequences; ++i) segments.push_back({0, i * rows, rows, i});
  const Arena on_device = cuda::to_device(std::as_bytes(std::span(segments)), "segments");

  kernels::AttentionChunk<bf16, bf16> chunk{};
  chunk.args.q = {x, width, group * D};
  chunk.args.k = {x + q_width, width, D};
  chunk.args.v = {x + q_width + kv_width, width, D};
  chunk.args.n_slots = chunk.args.window = window;
  chunk.args.n_kv_heads = kv_heads;
  chunk.args.group = group;
  chunk.args.head_dim = D;
  chunk.args.divisor = std::sqrt(static_cast<float>(D));
  chunk.args.out = reinterpret_cast<bf16*>(out.data());
  chunk.args.out_stride = q_width;
  ArrayData<bf16>&ring_k = chunk.ring_k, &ring_v = chunk.ring_v;
  ring_k.data = reinterpret_cast<bf16*>(rings.data());
  ring_v.data = ring_k.data + window * kv_width;
  ring_k.stride = ring_v.stride = 2 * window * kv_width * 2;
  const Chunk c{{reinterpret_cast<const Segment*>(on_device.data()), segments.size()}, all};
  const double ms = 1e3 * seconds(device, [&] { launch(device.get(), c, chunk); });

  double keys = 0;  // that all queries of a head see
  for (std::int64_t t = 0; t < rows; ++t) keys += static_cast<double>((std::min)(t + 1, window));
  keys *= static_cast<double>(sequences * kv_heads * group);
  const double flops = keys * 4 * D;
  std::printf(
      "%-22s %2d x %d heads of %3d, %lld x %6lld: %7.3f ms, %4.0f TFLOP/s, %.2f exp/clock/SM\n",
      name, kv_heads, group, D, static_cast<long long>(sequences), static_cast<long long>(rows), ms,
      flops / ms * 1e-9, keys / ms * 1e3 / 1.755e9 / 132);
}

template <class Launch>
void rows(const cuda::Device& device, const char* name, Launch launch) {
  row(device, name, 4, 8, 64, 8, 4096, 2048, launch);
  row(device, name, 4, 8, 64, 1, 32768, 2048, launch);
  row(device, name, 4, 8, 64, 1, 131072, 2048, launch);
  row(device, name, 12, 1, 128, 8, 4096, 2048, launch);
}

}  // namespace

int main() {
  return run_on_device([] {
    const cuda::Device device;
    rows(device, "2x2,2x1",
         [](const auto&... a) { cuda::launch_attention_tiles<2, 2, 2, 1>(a...); });
    rows(device, "3x1,3x1",
         [](const auto&... a) { cuda::launch_attention_tiles<3, 1, 3, 1>(a...); });
    rows(device, "1x4,1x2",
         [](const auto&... a) { cuda::launch_attention_tiles<1, 4, 1, 2>(a...); });
  });
}
