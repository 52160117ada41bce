#pragma once
// How the tests and benchmarks of CUDA begin and end.
#include <samba/cuda.cuh>

#include <cstdio>
#include <exception>

namespace samba_test {

/// Prints the device and does the work; returns the exit status: 1 after an exception, 77 if there is no
/// device.
template <class Work>
int run_on_device(Work&& work) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    std::puts("no CUDA device");
    return 77;
  }
  try {
    cudaDeviceProp properties{};
    samba::cuda::check_call(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    std::printf("%s, CUDA runtime %d, cuBLASLt %zu\n", properties.name, CUDART_VERSION,
                cublasLtGetVersion());
    work();
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace samba_test
