// Decoding with few rows: the time of every matrix of Samba-1.7B in bf16 by its kernel, with other plans
// and by cuBLASLt, that of attention, and that of a whole step; beside the time in which a copy moves as
// many bytes.
//   decode [all] [matrices | attention | step]   all: prints every plan, not only the best
#include <samba/cuda.cuh>
#include <samba/model/presets.hpp>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

using namespace samba;

namespace {

double bandwidth = 0;  // of a copy, bytes read and written per second

/// The median of some times.
double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

/// Seconds that the stream takes for a replay of work, the median of `repeats`.
template <class Work>
double seconds(const cuda::Device& device, Work&& work, int repeats = 11) {
  const cuda::Graph graph(device, work);
  cudaEvent_t begin, end;
  cuda::check_call(cudaEventCreate(&begin), "cudaEventCreate");
  cuda::check_call(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int i = -2; i < repeats; ++i) {
    cudaEventRecord(begin, device.get().stream);
    graph.replay();
    cudaEventRecord(end, device.get().stream);
    device.synchronize();
    float ms = 0;
    cuda::check_call(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 0) times.push_back(ms / 1e3);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return median(times);
}

void measure_copy() {
  const cuda::Device device;
  constexpr std::int64_t bytes = std::int64_t{1} << 30;
  const Arena from = cuda::allocate(bytes, "copy"), to = cuda::allocate(bytes, "copy");
  const double time = seconds(device, [&] {
    cuda::check_call(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice,
                                     device.get().stream),
                     "cudaMemcpyAsync");
  });
  bandwidth = 2. * bytes / time;
  std::printf("a copy of 1 GiB: %.2f TB/s, read and written\n", bandwidth / 1e12);
}

/// Small numbers, made on the device.
__global__ void fill(bf16* to, std::int64_t n) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const unsigned u = static_cast<unsigned>(i) * 2654435761u;
    to[i].bits = static_cast<std::uint16_t>((u >> 16 & 0x807fu) | 0x3c00u);
  }
}

Arena numbers(std::int64_t n) {
  Arena memory = cuda::allocate(n * 2, "numbers");
  fill<<<1024, 256>>>(reinterpret_cast<bf16*>(memory.data()), n);
  cuda::check_launch("fill");
  cuda::check_call(cudaDeviceSynchronize(), "fill");
  return memory;
}

struct Matrix2d {
  const char* name;
  std::int64_t N, K, per_step;
};

void measure_matrices(bool all) {
  constexpr Matrix2d matrices[] = {{"in_proj, w1, w2", 8192, 2048, 12 + 48},
                                   {"x_proj", 160, 4096, 12},
                                   {"dt_proj", 4096, 128, 12},
                                   {"out_proj", 2048, 4096, 12},
                                   {"qkv", 2560, 2048, 12},
                                   {"proj", 2048, 2048, 12},
                                   {"w3", 2048, 8192, 24},
                                   {"head", 50304, 2048, 1}};
  constexpr std::int64_t pool_values = std::int64_t{320} << 20;
  const Arena pool = numbers(pool_values), xs = numbers(16 * 8192);
  const Arena out = cuda::allocate(16 * 50304 * 4, "out");
  const cuda::Device with(true), without(false);
  for (const std::int64_t rows : {1, 8, 16}) {
    double of_step = 0, floor_of_step = 0;
    for (const Matrix2d& m : matrices) {
      const std::int64_t size = m.N * m.K, buffers = pool_values / size;
      const auto launches = (std::max)(std::int64_t{64}, (std::int64_t{80} << 20) / size);
      const double floor = static_cast<double>(size) * 2 / bandwidth;
      // Every product reads other weights, more than the L2 cache holds before they come again.
      const auto time = [&](const cuda::Device& device, auto&& multiply) {
        return seconds(device,
                       [&] {
                         for (std::int64_t i = 0; i < launches; ++i) {
                           const kernels::MatmulArgs<RowMajor<bf16>, bf16> a{
                               .w = reinterpret_cast<const bf16*>(pool.data()) + i % buffers * size,
                               .bias = nullptr,
                               .x = reinterpret_cast<const bf16*>(xs.data()),
                               .x_stride = m.K,
                               .out = reinterpret_cast<bf16*>(out.data()),
                               .out_stride = m.N,
                               .rows = rows,
                               .N = m.N,
                               .K = m.K};
                           multiply(device.get(), a);
                         }
                       }) /
               static_cast<double>(launches);
      };
      const auto print = [&](const char* what, double t) {
        std::printf("    %-34s %8.2f us  %5.2f TB/s  %5.2f of the floor\n", what, t * 1e6,
                    static_cast<double>(size) * 2 / t / 1e12, t / floor);
      };
      const auto by_plan = [&](const cuda::Device& device, const cuda::FewRowsPlan& plan) {
        return time(device,
                    [&](const Cuda& d, const auto& a) { cuda::matmul_few_rows(d, a, plan); });
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
      by_library(with.get(), kernels::MatmulArgs<RowMajor<bf16>, bf16>{
                                 .w = reinterpret_cast<const bf16*>(pool.data()),
                                 .bias = nullptr,
                                 .x = reinterpret_cast<const bf16*>(xs.data()),
                                 .x_stride = m.K,
                                 .out = reinterpret_cast<bf16*>(out.data()),
                                 .out_stride = m.N,
                                 .rows = rows,
                                 .N = m.N,
                                 .K = m.K});
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
            seconds(device,
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
                        a.ring_k.data =
                            reinterpret_cast<bf16*>(rings.data()) + layer * rows * 2 * ring;
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

/// Weights of small numbers, the same in every row but for where they start.
template <class Model>
Weights<Model, RowMajor<bf16>> some_weights() {
  Weights<Model, RowMajor<bf16>> weights;
  std::vector<float> values(1 << 20);
  std::uint64_t state = 1;
  for (float& x : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = static_cast<float>(static_cast<std::int64_t>(state) >> 40) / 8388608.f * .03f;
  }
  const auto tensors = weights.tensors();
  const unsigned n = (std::max)(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (unsigned rank = 0; rank < n; ++rank)
    threads.emplace_back([&, rank] {
      for (const auto& tensor : tensors) {
        const auto room = static_cast<std::int64_t>(values.size()) - tensor.row_size;
        if (room <= 0) continue;
        for (std::int64_t r = rank; r < tensor.rows; r += n)
          tensor.set_row(r, values.data() + (r * 7919 + tensor.row_size) % room);
      }
    });
  for (std::thread& thread : threads) thread.join();
  weights.derive();
  return weights;
}

void measure_step() {
  using Model = presets::Samba1_7B;
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const auto weights = some_weights<Model>();
  std::printf("weights made in %.1f s\n",
              std::chrono::duration<double>(Clock::now() - begin).count());
  std::vector<std::int32_t> tokens(2304);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(i * 7919 % Model::vocab_size);
  std::vector<std::int32_t> prompt(32768);
  for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = tokens[i % tokens.size()];
  for (const int chunk : {2048, 4096, 8192}) {
    cuda::Session<Model, bf16> session(weights, {.chunk = chunk});
    std::vector<double> times;
    for (int i = 0; i < 4; ++i) {
      session.reset();
      const auto start = Clock::now();
      session.prefill(prompt);
      if (i > 0) times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    std::printf("Samba-1.7B, prefill of %zu tokens in chunks of %d: %.1f tokens/ms\n",
                prompt.size(), chunk, static_cast<double>(prompt.size()) / median(times) * 1e-3);
  }
  for (const bool overlap : {false, true}) {
    cuda::Session<Model, bf16> session(weights, {.overlap = overlap});
    session.prefill(tokens);  // the window is full
    std::vector<double> times;
    bool finite = true;
    for (int i = -10; i < 200; ++i) {
      const auto start = Clock::now();
      const auto logits = session.step(tokens[static_cast<std::size_t>(i + 10)]);
      const double time = std::chrono::duration<double>(Clock::now() - start).count();
      if (i >= 0) times.push_back(time);
      finite &= std::isfinite(logits[0]) && std::isfinite(logits[Model::vocab_size - 1]);
    }
    const auto bytes = static_cast<double>(std::ssize(weights.memory()) + session.state_bytes());
    const double time = median(times), floor = bytes / bandwidth;
    std::printf(
        "Samba-1.7B, %s: a step takes %.3f ms (best %.3f), floor %.3f ms (%.3f GB), ratio %.2f%s\n",
        overlap ? "overlap" : "no overlap", time * 1e3,
        *std::min_element(times.begin(), times.end()) * 1e3, floor * 1e3, bytes * 1e-9,
        time / floor, finite ? "" : "; LOGITS ARE NOT FINITE");
  }
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::puts("no CUDA device");
    return 77;
  }
  bool all = false, some = false;
  for (int i = 1; i < argc; ++i) (std::strcmp(argv[i], "all") == 0 ? all : some) = true;
  const auto wanted = [&](const char* part) {
    for (int i = 1; i < argc; ++i)
      if (std::strcmp(argv[i], part) == 0) return true;
    return !some;
  };
  try {
    cudaDeviceProp properties{};
    cuda::check_call(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    std::printf("%s, CUDA runtime %d, cuBLASLt %zu\n", properties.name, CUDART_VERSION,
                cublasLtGetVersion());
    measure_copy();
    if (wanted("step")) measure_step();
    if (wanted("attention")) measure_attention();
    if (wanted("matrices")) measure_matrices(all);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 1;
  }
  return 0;
}
