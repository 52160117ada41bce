#pragma once
// What the tests of this folder have in common. Each is a program that prints what it compares.
#include <samba/cuda.cuh>

#include <cstdio>
#include <exception>
#include <vector>

namespace samba_test {

/// False once something was wrong.
inline bool right = true;

inline bool is_right(bool passed, const char* what) {
  if (!passed) std::printf("  WRONG: %s\n", what);
  right &= passed;
  return passed;
}

/// A copy of some numbers in the device's memory.
template <class X>
class DeviceCopy {
 public:
  explicit DeviceCopy(const std::vector<X>& from)
      : memory_(samba::cuda::to_device(std::as_bytes(std::span(from)), "a copy for a test")),
        n_(from.size()) {}
  X* data() const { return reinterpret_cast<X*>(memory_.data()); }
  std::vector<X> read() const {
    std::vector<X> to(n_);
    samba::cuda::check_call(cudaMemcpy(to.data(), data(), n_ * sizeof(X), cudaMemcpyDeviceToHost),
                            "cudaMemcpy");
    return to;
  }

 private:
  samba::Arena memory_;
  std::size_t n_;
};

/// Prints the device, runs the checks, and returns the exit status: 1 if something was wrong, 77 if
/// there is no device.
template <class Checks>
int run_checks(Checks&& checks) {
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
    checks();
  } catch (const std::exception& error) {
    is_right(false, error.what());
  }
  std::puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}

}  // namespace samba_test
