// What the machine can do: the rate of products in registers, and of reading arrays that fit its
// caches. The rows of the other benchmarks are held against these.
#include "bench.hpp"

using namespace bench;

namespace {

void add_dot(const std::string& name, Dot dot, int threads) {
  row(path({"ceilings", name}), threads, {.flops = dot_loop(dot) * threads, .dot = dot},
      [=] { return [=](const Team&, std::int64_t) { dot_loop(dot); }; });
}

/// Reads kib KiB, shared by the threads, as often as makes 4 MiB.
void add_read(std::int64_t kib, int threads) {
  const std::int64_t n = kib * 256, passes = std::max<std::int64_t>(1, 4096 / kib);
  const Cost cost{.bytes = floats(n * passes), .flops = 0, .footprint = floats(n)};
  row(path({"ceilings/read", std::to_string(kib).append("KiB")}), threads, cost, [=] {
    return [=, data = pool()](const Team& team, std::int64_t) {
      for (std::int64_t pass = 0; pass < passes; ++pass) read_loop(team, data, n);
    };
  });
}

[[maybe_unused]] const bool registered = [] {
  for (const int threads : thread_counts()) {
    add_dot("fma", Dot::f32, threads);
    add_dot("dot_bf16", Dot::bf16, threads);
    add_dot("dot_int8", Dot::int8, threads);
    for (std::int64_t kib = 16; kib <= pool_floats / 256; kib *= 4) add_read(kib, threads);
  }
  return true;
}();

}  // namespace
