// Decoding with few rows: the time of every matrix of Samba-1.7B in bf16 by its kernel, with other plans
// and by cuBLASLt, and that of attention; beside the time in which a copy moves as many bytes.
//   decode [all] [matrices | attention | library]   all: prints every plan, not only the best; library: the
//   products of a prefill by all algorithms that cuBLASLt proposes
#include <cstring>
#include <string>

#include "benchmarks/cuda/bench.cuh"

using namespace samba;
using namespace samba_bench;

namespace {

double bandwidth = 0;

Arena numbers(std::int64_t n) {
  Arena memory = cuda::allocate(n * 2, "numbers");
  fill(reinterpret_cast<bf16*>(memory.data()), n, -0.1f, 0.1f);
  return memory;
}

struct Matrix2d {
  const char* name;
  std::int64_t N, K, per_step;
};

constexpr Matrix2d matrices[] = {{"in_proj, w1, w2", 8192, 2048, 12 + 48},
                                 {"x_proj", 160, 4096, 12},
                                 {"dt_proj", 4096, 128, 12},
                                 {"out_proj", 2048, 4096, 12},
                                 {"qkv", 2560, 2048, 12},
                                 {"proj", 2048, 2048, 12},
                                 {"w3", 2048, 8192, 24},
                                 {"head", 50304, 2048, 1}};

/// The product of some rows of x with a matrix of this shape.
kernels::MatmulArgs<RowMajor<bf16>, bf16> product(const Matrix2d& m, std::int64_t rows,
                                                  const bf16* w, const Arena& x, const Arena& out) {
  return {.w = w,
          .bias = nullptr,
          .x = reinterpret_cast<const bf16*>(x.data()),
          .x_stride = m.K,
          .out = reinterpret_cast<bf16*>(out.data()),
          .out_stride = m.N,
          .rows = rows,
          .N = m.N,
          .K = m.K};
}

void measure_matrices(bool all) {
  constexpr std::int64_t pool_values = std::int64_t{320} << 20;
  const Arena pool = numbers(pool_values), xs = numbers(64 * 8192);
  const Arena out = cuda::allocate(64 * 50304 * 4, "out");
  const cuda::Device with(true), without(false);
  for (const std::int64_t rows : {1, 8, 16, 64}) {
    double of_step = 0, floor_of_step = 0;
    for (const Matrix2d& m : matrices) {
      const std::int64_t size = m.N * m.K, buffers = pool_values / size;
      const auto launches = (std::max)(std::int64_t{64}, (std::int64_t{80} << 20) / size);
      const double floor = static_cast<double>(size) * 2 / bandwidth;
      // Every product reads other weights, more than the L2 cache holds before they come again.
      const auto args_of = [&](std::int64_t i) {
        return product(m, rows, reinterpret_cast<const bf16*>(pool.data()) + i % buffers * size, xs,
                       out);
      };
      const auto time = [&](const cuda::Device& device, auto&& multiply) {
        const auto all_of_them = [&] {
          for (std::int64_t i = 0; i < launches; ++i) multiply(device.get(), args_of(i));
        };
        return graph_seconds(device, all_of_them) / static_cast<double>(launches);
      };
      const auto print = [&](const char* what, double t) {
        std::printf("    %-34s %8.2f us  %5.2f TB/s  %5.2f of the floor\n", what, t * 1e6,
                    static_cast<double>(size) * 2 / t / 1e12, t / floor);
      };
      const auto by_plan = [&](const cuda::Device& device, const cuda::FewRowsPlan& plan) {
        return time(device,
                    [&](const Cuda& d, const auto& a) { cuda::matmul_few_rows<true>(d, a, plan); });
      };
      const auto name_of = [](const cuda::FewRowsPlan& p) {
        return "{" + std::to_string(p.tiles) + ", " + std::to_string(p.unroll) + ", " +
               std::to_string(p.warps) + ", " + std::to_string(p.split) + "}";
      };
      std::printf("  %s (%lld, %lld), %lld rows, %.1f MB, floor %.2f us\n", m.name,
                  static_cast<long long>(m.N), static_cast<long long>(m.K),
                  static_cast<long long>(rows), static_cast<double>(size) * 2e-6, floor * 1e6);
      // A first call that is not captured loads the kernels of the library.
      const auto by_library = [&](const Cuda& d, const auto& a) {
        kernels::matmul_by_library(d, a);
      };
      by_library(with.get(), args_of(0));
      with.synchronize();
      print("cuBLASLt", time(with, by_library));
      const auto plan = cuda::few_rows_plan(m.N, m.K);
      const double used = by_plan(with, plan);
      print(("the plan " + name_of(plan)).c_str(), used);
      print("the same without overlap", by_plan(without, plan));
      of_step += static_cast<double>(m.per_step) * used;
      floor_of_step += static_cast<double>(m.per_step) * floor;

      std::vector<std::pair<double, std::string>> others;
      const auto try_plan = [&](const cuda::FewRowsPlan& p) {
        others.emplace_back(by_plan(with, p), name_of(p));
      };
      for (const auto [tiles, unroll] : {std::pair{1, 4}, {1, 8}, {2, 4}, {2, 8}, {4, 4}})
        for (const int split : {1, 2, 4, 8, 16}) {
          if (split * 32 > m.K) continue;
          for (const int warps : {4, 8, 16})
            if (warps >= split && warps <= cuda::few_rows_warps(tiles, unroll))
              try_plan({tiles, unroll, warps, split});
        }
      std::sort(others.begin(), others.end());
      const std::size_t shown = all ? others.size() : (std::min)(others.size(), std::size_t{4});
      for (std::size_t i = 0; i < shown; ++i) print(others[i].second.c_str(), others[i].first);
    }
    std::printf("all matrices of a step, %lld rows: %.3f ms, floor %.3f ms, ratio %.2f\n",
                static_cast<long long>(rows), of_step * 1e3, floor_of_step * 1e3,
                of_step / floor_of_step);
  }
}

/// The products of a prefill by the algorithms that cuBLASLt proposes.
void measure_library() {
  const cuda::Device device;
  const std::int64_t most = 8192;
  const Arena w = numbers(std::int64_t{8192} * 8192), x = numbers(most * 8192),
              out = cuda::allocate(most * 8192 * 2, "out");
  for (const std::int64_t rows : {2048, 4096, 8192})
    for (const Matrix2d& m : matrices) {
      if (m.N > 8192) continue;
      const auto a = product(m, rows, reinterpret_cast<const bf16*>(w.data()), x, out);
      std::vector<double> times;
      for (int choice = 0; choice < 12; ++choice) {
        if (!kernels::matmul_by_library(device.get(), a, choice)) break;
        times.push_back(seconds(
                            device,
                            [&] {
                              for (int i = 0; i < 4; ++i)
                                kernels::matmul_by_library(device.get(), a, choice);
                            },
                            7) /
                        4);
      }
      const double flops = 2. * static_cast<double>(rows * m.N * m.K);
      const auto best = std::min_element(times.begin(), times.end());
      std::printf(
          "  cuBLASLt, %5lld rows, %-16s (%lld, %lld): %.3f ms, %4.0f TFLOP/s; its proposal %td: "
          "%.3f ms, %4.0f TFLOP/s\n",
          static_cast<long long>(rows), m.name, static_cast<long long>(m.N),
          static_cast<long long>(m.K), times[0] * 1e3, flops / times[0] * 1e-12,
          best - times.begin(), *best * 1e3, flops / *best * 1e-12);
    }
}

/// 32 query heads of 64, 4 key/value heads, a full window of 2048.
void measure_attention() {
  constexpr std::int64_t D = 64, heads = 32, kv_heads = 4, window = 2048, layers = 64,
                         width = (heads + 2 * kv_heads) * D, ring = kv_heads * window * D;
  for (const std::int64_t rows : {1, 8, 16}) {
    const Arena rings = numbers(rows * layers * 2 * ring), qkv = numbers(rows * width);
    const Arena out = cuda::allocate(rows * heads * D * 2, "out");
    std::vector<Segment> some;
    for (std::int64_t i = 0; i < rows; ++i) some.push_back({5000 + 17 * i, i, 1, i});
    const Arena segments = cuda::to_device(std::as_bytes(std::span(some)), "segments");
    const Chunk chunk{{reinterpret_cast<const Segment*>(segments.data()), some.size()}, rows};
    const double floor = static_cast<double>(rows * 2 * ring) * 2 / bandwidth;
    for (const bool overlap : {false, true})
      for (const bool by_parts : {false, true}) {
        const cuda::Device device(overlap);
        const double time =
            graph_seconds(
                device,
                [&] {
                  for (std::int64_t layer = 0; layer < layers; ++layer) {
                    const bf16* const x = reinterpret_cast<const bf16*>(qkv.data());
                    kernels::AttentionChunk<bf16, bf16> a{};
                    a.args.q = {x, width, heads / kv_heads * D};
                    a.args.k = {x + heads * D, width, D};
                    a.args.v = {x + (heads + kv_heads) * D, width, D};
                    a.args.n_slots = a.args.window = window;
                    a.args.rows = rows;
                    a.args.n_kv_heads = kv_heads;
                    a.args.group = heads / kv_heads;
                    a.args.head_dim = D;
                    a.args.divisor = 8;
                    a.args.out = reinterpret_cast<bf16*>(out.data());
                    a.args.out_stride = heads * D;
                    a.ring_k.data = reinterpret_cast<bf16*>(rings.data()) + layer * rows * 2 * ring;
                    a.ring_v.data = a.ring_k.data + ring;
                    a.ring_k.stride = a.ring_v.stride = 4 * ring;
                    a.update_rings = true;
                    if (by_parts) {
                      launch(device.get(), chunk, a);
                      continue;
                    }
                    cuda::launch_kernel(
                        device.get(), "attention", cuda::attention<bf16, bf16>,
                        dim3(static_cast<unsigned>(rows), heads, static_cast<unsigned>(rows)),
                        cuda::attention_threads, 2 * D * sizeof(float), chunk.segments.data(),
                        a.args, ArrayData<bf16>(a.ring_k), ArrayData<bf16>(a.ring_v));
                    launch(device.get(), chunk,
                           kernels::UpdateRingsChunk<bf16, bf16>{a.args, a.ring_k, a.ring_v});
                  }
                }) /
            static_cast<double>(layers);
        std::printf("  attention, %2lld rows, %-12s %-15s %8.2f us, floor %.2f us\n",
                    static_cast<long long>(rows), by_parts ? "by parts," : "by tiles,",
                    overlap ? "overlap:" : "no overlap:", time * 1e6, floor * 1e6);
      }
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool all = false, some = false;
  for (int i = 1; i < argc; ++i) (std::strcmp(argv[i], "all") == 0 ? all : some) = true;
  const auto wanted = [&](const char* part) {
    for (int i = 1; i < argc; ++i)
      if (std::strcmp(argv[i], part) == 0) return true;
    return !some;
  };
  return run_on_device([&] {
    bandwidth = copy_bandwidth();
    if (wanted("attention")) measure_attention();
    if (wanted("matrices")) measure_matrices(all);
    if (wanted("library")) measure_library();
  });
}
