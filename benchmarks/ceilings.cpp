// What the machine can do: the rate of fused multiply-adds in registers, and of reading an array.
// The rows of the other benchmarks are held against these.
#include "bench.hpp"

#include <samba/kernels/simd/vec.hpp>

using namespace bench;
using namespace samba::kernels::simd;

namespace {

void add_fma(int threads) {
  // Enough chains to cover the latency, few enough for 16 registers.
  constexpr int chains = 12, steps = 4096;
  const double flops = 2.0 * chains * steps * lanes * threads;
  row("ceilings/fma", threads, {.bytes = 0, .flops = flops}, [] {
    return [](const Team&, std::int64_t) {
      float factor = 0.999f, addend = 0.001f;
      benchmark::DoNotOptimize(factor);
      benchmark::DoNotOptimize(addend);
      const vec a(factor), b(addend);
      vec x[chains];
      unroll<chains>([&](auto i)
                         __attribute__((always_inline)) { x[i] = vec(static_cast<float>(i)); });
      for (int step = 0; step < steps; ++step)
        unroll<chains>([&](auto i)
                           __attribute__((always_inline)) { x[i] = xsimd::fma(x[i], a, b); });
      vec total = x[0];
      unroll<chains - 1>([&](auto i) __attribute__((always_inline)) { total += x[i + 1]; });
      float result = sum(total);
      benchmark::DoNotOptimize(result);
    };
  });
}

/// Reads kib KiB, shared by the threads, as often as makes 4 MiB.
void add_read(std::int64_t kib, int threads) {
  const std::int64_t n = kib * 256, passes = std::max<std::int64_t>(1, 4096 / kib);
  const Cost cost{.bytes = floats(n * passes), .flops = 0, .footprint = floats(n)};
  row(path({"ceilings/read", std::to_string(kib).append("KiB")}), threads, cost, [n, passes] {
    return [n, passes, data = pool()](const Team& team, std::int64_t) {
      constexpr int streams = 8;
      const auto [begin, end] = team.share(n, streams * lanes);
      vec total[streams];
      unroll<streams>([&](auto i) __attribute__((always_inline)) { total[i] = vec(0.f); });
      for (std::int64_t pass = 0; pass < passes; ++pass)
        for (std::int64_t k = begin; k + streams * lanes <= end; k += streams * lanes)
          unroll<streams>([&](auto i) __attribute__((always_inline)) {
            total[i] += load(data + k + i * lanes);
          });
      unroll<streams - 1>([&](auto i) __attribute__((always_inline)) { total[0] += total[i + 1]; });
      float result = sum(total[0]);
      benchmark::DoNotOptimize(result);
    };
  });
}

[[maybe_unused]] const bool registered = [] {
  for (const int threads : thread_counts()) {
    add_fma(threads);
    for (std::int64_t kib = 16; kib <= pool_floats / 256; kib *= 4) add_read(kib, threads);
  }
  return true;
}();

}  // namespace
