#pragma once
// What the benchmarks of this folder have in common.
#include <algorithm>
#include <vector>

#include "tests/cuda/program.cuh"

namespace samba_bench {

using samba_test::run_on_device;

/// The median of some times.
inline double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + std::ssize(times) / 2, times.end());
  return times[times.size() / 2];
}

/// Seconds of the stream for what work() submits: the median of `repeats`, after some that do not count.
template <class Work>
double seconds(const samba::cuda::Device& device, Work&& work, int repeats = 21) {
  using samba::cuda::check_call;
  cudaEvent_t begin, end;
  check_call(cudaEventCreate(&begin), "cudaEventCreate");
  check_call(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int i = -3; i < repeats; ++i) {
    check_call(cudaEventRecord(begin, device.get().stream()), "cudaEventRecord");
    work();
    check_call(cudaEventRecord(end, device.get().stream()), "cudaEventRecord");
    device.synchronize();
    float ms = 0;
    check_call(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (i >= 0) times.push_back(ms / 1e3);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return median(times);
}

/// The same for a replay of the work as a graph.
template <class Work>
double graph_seconds(const samba::cuda::Device& device, Work&& work, int repeats = 11) {
  const samba::cuda::Graph graph(device, work);
  return seconds(device, [&] { graph.replay(); }, repeats);
}

/// Bytes per second that a copy of 1 GiB reads and writes; printed.
inline double copy_bandwidth() {
  const samba::cuda::Device device;
  constexpr std::int64_t bytes = std::int64_t{1} << 30;
  const samba::Arena from = samba::cuda::allocate(bytes, "copy"),
                     to = samba::cuda::allocate(bytes, "copy");
  const double rate =
      2. * bytes / graph_seconds(device, [&] {
        samba::cuda::check_call(cudaMemcpyAsync(to.data(), from.data(), bytes,
                                                cudaMemcpyDeviceToDevice, device.get().stream()),
                                "cudaMemcpyAsync");
      });
  std::printf("a copy of 1 GiB: %.2f TB/s, read and written\n", rate / 1e12);
  return rate;
}

template <class E>
__global__ void fill_numbers(E* to, std::int64_t n, float low, float high) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    unsigned h = static_cast<unsigned>(i) * 2654435761u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    samba::cuda::store(to + i, low + (high - low) * static_cast<float>(h >> 8) / 16777216.f);
  }
}
/// n numbers in [low, high), the same in every run.
template <class E>
void fill(E* to, std::int64_t n, float low = -1, float high = 1) {
  fill_numbers<<<1024, 256>>>(to, n, low, high);
  samba::cuda::check_launch("fill_numbers");
  samba::cuda::check_call(cudaDeviceSynchronize(), "fill_numbers");
}

}  // namespace samba_bench
