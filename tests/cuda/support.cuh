#pragma once
// What the tests of this folder have in common. Each is a program that prints what it compares.
#include <vector>

#include "tests/cuda/program.cuh"

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

/// Runs the checks on the device; returns the exit status: 1 if something was wrong, 77 if there is no
/// device.
template <class Checks>
int run_checks(Checks&& checks) {
  const int status = run_on_device(checks);
  if (status != 77) std::puts(right && status == 0 ? "right" : "WRONG");
  return right ? status : 1;
}

}  // namespace samba_test
