#pragma once
/// \file
/// The device Cuda, on which operations run if their context has it. Their launchers are in the
/// other headers of this folder.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <samba/core/arena.hpp>
#include <samba/core/context.hpp>
#include <samba/core/error.hpp>

#include <cstring>
#include <type_traits>
#include <utility>

namespace samba::inline SAMBA_TARGET {

namespace cuda {
struct Deferred;
}

/// A GPU: a stream, and what the libraries need. All work of a context goes to its stream, in
/// order. Nothing waits for it, so that a graph can capture it. Created by cuda::Device.
struct Cuda {
  cudaStream_t raw_stream = nullptr;  ///< without what is deferred
  cuda::Deferred* deferred = nullptr;
  cublasLtHandle_t blas = nullptr;
  void* workspace = nullptr;  ///< of matrix products, and of attention for few rows
  std::size_t workspace_bytes = 0;
  /// Kernels start while the one before still runs, up to cuda::wait_for_earlier(). For GPUs of compute
  /// capability 9 and later, and code compiled for them.
  bool overlap = false;

  /// The stream, to which all that was deferred has been submitted.
  cudaStream_t stream() const;
};

namespace detail {
/// Activations have the type of the matrices.
template <class E>
struct ActivationOf<RowMajor<E>, Cuda> {
  using type = E;
};
}  // namespace detail

namespace cuda {

/// Throws Error, naming the call, if it failed.
inline void check_call(cudaError_t result, const char* call) {
  if (result != cudaSuccess)
    fail({"CUDA: ", call, ": ", cudaGetErrorName(result), ": ", cudaGetErrorString(result)});
}
inline void check_call(cublasStatus_t result, const char* call) {
  if (result != CUBLAS_STATUS_SUCCESS) fail({"CUDA: ", call, ": ", cublasLtGetStatusName(result)});
}
/// Checks the launch of a kernel; call it right after the launch.
inline void check_launch(const char* kernel) { check_call(cudaGetLastError(), kernel); }

/// Throws Error if there is no GPU.
inline void check_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    cudaGetLastError();  // clears the error
    fail({"CUDA: there is no device that this program can use"});
  }
}

/// A zeroed block of device memory.
inline Arena allocate(std::int64_t bytes, const char* what) {
  void* data = nullptr;
  const auto size = static_cast<std::size_t>(bytes > 0 ? bytes : 1);
  if (cudaMalloc(&data, size) != cudaSuccess) {
    cudaGetLastError();
    std::size_t free = 0, all = 0;
    cudaMemGetInfo(&free, &all);
    fail({what, ": the device cannot provide the ", bytes,
          " bytes of memory that this takes: ", free, " of its ", all, " bytes are free"});
  }
  Arena arena(static_cast<std::byte*>(data), bytes, [](std::byte* p) { cudaFree(p); });
  check_call(cudaMemset(data, 0, size), "cudaMemset");
  check_call(cudaStreamSynchronize(nullptr), "cudaMemset");  // other streams do not wait for it
  return arena;
}

// A few operations have a kernel together: a product, and the sum or the gate that takes its result. The
// first of them is deferred until the next one is called. Whatever else goes to the stream, by
// Cuda::stream(), submits it as it is, so nobody else need know. Results do not depend on it.

/// The operations that wait for the next one, in order.
struct Deferred {
  struct Operation {
    void (*submit)(const Cuda&, const void* args) = nullptr;
    alignas(8) std::byte args[96];
  };
  Operation operations[2];
  int n = 0;
};

/// Submits an operation by launch_now(device, args), which is found where this is instantiated.
template <class Args>
void submit_deferred(const Cuda& device, const void* args) {
  launch_now(device, *static_cast<const Args*>(args));
}
/// Defers an operation; first submits the earlier ones, unless it goes with the only one of them.
template <class Args>
void defer(const Cuda& device, const Args& args, bool together = false) {
  static_assert(sizeof(Args) <= sizeof(Deferred::Operation::args) &&
                std::is_trivially_copyable_v<Args>);
  Deferred& all = *device.deferred;
  if (!together || all.n != 1) device.stream();
  Deferred::Operation& last = all.operations[all.n++];
  last.submit = &submit_deferred<Args>;
  std::memcpy(last.args, &args, sizeof(Args));
}
/// Operation i of n that are deferred, if it is of this kind; or null.
template <class Args>
const Args* deferred(const Cuda& device, int i, int n) {
  const Deferred::Operation& one = device.deferred->operations[i];
  return device.deferred->n == n && one.submit == &submit_deferred<Args>
             ? reinterpret_cast<const Args*>(one.args)
             : nullptr;
}
/// Forgets them: the caller computes them.
inline void take_deferred(const Cuda& device) { device.deferred->n = 0; }

}  // namespace cuda

inline cudaStream_t Cuda::stream() const {
  const int n = std::exchange(deferred->n, 0);
  for (int i = 0; i < n; ++i) {
    const cuda::Deferred::Operation one = deferred->operations[i];
    one.submit(*this, one.args);
  }
  return raw_stream;
}

namespace cuda {

/// A zeroed block of host memory that graphs can copy from and to.
inline Arena allocate_pinned(std::int64_t bytes, const char* what) {
  void* data = nullptr;
  const auto size = static_cast<std::size_t>(bytes > 0 ? bytes : 1);
  if (cudaMallocHost(&data, size) != cudaSuccess) {
    cudaGetLastError();
    fail({what, ": the system cannot provide the ", bytes,
          " bytes of pinned memory that this takes"});
  }
  std::memset(data, 0, size);
  return Arena(static_cast<std::byte*>(data), bytes, [](std::byte* p) { cudaFreeHost(p); });
}

/// A copy in device memory.
inline Arena to_device(std::span<const std::byte> bytes, const char* what) {
  Arena arena = allocate(static_cast<std::int64_t>(bytes.size()), what);
  check_call(cudaMemcpy(arena.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice),
             "cudaMemcpy");
  check_call(cudaStreamSynchronize(nullptr), "cudaMemcpy");  // it may return before its end
  return arena;
}

/// Lets the kernel after this one start. It waits for this one's end before it reads or writes what
/// kernels share, so a kernel calls this first.
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
/// Waits until everything before this kernel has been done. Every thread of a kernel that
/// launch_kernel starts calls it before the first access to memory that another kernel writes, or that
/// this kernel writes: weights are all that may be read earlier.
__device__ inline void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
/// Both, for kernels that have nothing to do before.
__device__ inline void start() {
  let_next_start();
  wait_for_earlier();
}

/// Starts a kernel on the device's stream. If the device overlaps kernels, it starts before the end of
/// the kernel that was submitted before, so it must call wait_for_earlier().
template <class... Parameters, class... Arguments>
void launch_kernel(const Cuda& device, const char* name, void (*kernel)(Parameters...), dim3 grid,
                   dim3 block, std::size_t shared, const Arguments&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = device.stream();
  config.attrs = &attribute;
  config.numAttrs = device.overlap ? 1 : 0;
  check_call(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}

/// A kernel that is never started; it tells for what this program was compiled.
template <int = 0>
__global__ void compiled_for() {}

/// Whether kernels can overlap here. Code for an earlier GPU that is translated for this one does not
/// wait, so it must not.
inline bool can_overlap() {
  cudaFuncAttributes attributes{};
  if (cudaFuncGetAttributes(&attributes, compiled_for<0>) != cudaSuccess) {
    cudaGetLastError();  // clears the error
    return false;
  }
  return attributes.ptxVersion >= 90 && attributes.binaryVersion >= 90;
}

/// A new stream on the current GPU, and a workspace. Throws Error if there is no GPU.
class Device {
 public:
  /// overlap: see Cuda; where it is not possible, it is ignored.
  explicit Device(bool overlap = true) {
    check_device();
    check_call(cudaStreamCreateWithFlags(&cuda_.raw_stream, cudaStreamNonBlocking),
               "cudaStreamCreate");
    check_call(cublasLtCreate(&cuda_.blas), "cublasLtCreate");
    cuda_.deferred = &deferred_;
    cuda_.overlap = overlap && can_overlap();
    workspace_ = allocate(std::int64_t{32} << 20, "the workspace for matrix products");
    cuda_.workspace = workspace_.data();
    cuda_.workspace_bytes = static_cast<std::size_t>(workspace_.bytes());
  }
  ~Device() {
    cublasLtDestroy(cuda_.blas);
    cudaStreamDestroy(cuda_.raw_stream);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Cuda& get() const { return cuda_; }
  void synchronize() const {
    check_call(cudaStreamSynchronize(cuda_.stream()), "cudaStreamSynchronize");
  }

 private:
  Cuda cuda_;
  Deferred deferred_;
  Arena workspace_;
};

/// Work captured from a stream, which can be replayed as a whole. It reads segments, tokens and
/// states from memory, so their contents may change between replays.
class Graph {
 public:
  /// Captures what work() submits to the device's stream.
  template <class Work>
  Graph(const Device& device, Work&& work) : stream_(device.get().stream()) {
    check_call(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
               "cudaStreamBeginCapture");
    cudaGraph_t graph = nullptr;
    try {
      work();
      device.get().stream();  // what is deferred
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check_call(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    const cudaError_t result = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check_call(result, "cudaGraphInstantiate");
  }
  ~Graph() { cudaGraphExecDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay() const { check_call(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

// Reading and writing numbers on the device.

__device__ inline float number(float x) { return x; }
__device__ inline float number(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ inline void store(float* to, float x) { *to = x; }
/// Rounds to nearest, ties to even, as on the CPU.
__device__ inline void store(bf16* to, float x) {
  const unsigned u = __float_as_uint(x);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  to->bits =
      static_cast<std::uint16_t>((nan ? u | 0x400000u : u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
/// As a number of this type.
template <class T>
__device__ float rounded(float x) {
  T stored;
  store(&stored, x);
  return number(stored);
}
__device__ inline float silu(float x) { return x / (1.f + expf(-x)); }
__device__ inline float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }
__device__ inline float softplus(float x) { return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x))); }

/// The sum, and the maximum, of a number of every thread, for all of them. partial: Threads / 32
/// floats of shared memory; all threads of the block must call.
template <int Threads>
__device__ float block_sum(float x, float* partial) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  __syncthreads();  // an earlier result has been read
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = 0;
  for (int i = 0; i < Threads / 32; ++i) x += partial[i];
  return x;
}
template <int Threads>
__device__ float block_max(float x, float* partial) {
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  x = partial[0];
  for (int i = 1; i < Threads / 32; ++i) x = fmaxf(x, partial[i]);
  return x;
}

/// The elements in one state, like ArrayData::of.
template <class R>
__device__ R* of(const ArrayData<R>& all, std::int64_t state) {
  return reinterpret_cast<R*>(reinterpret_cast<char*>(all.data) + state * all.stride);
}

/// The number of blocks of `size` that cover n.
constexpr unsigned blocks(std::int64_t n, std::int64_t size) {
  return static_cast<unsigned>((n + size - 1) / size);
}

}  // namespace cuda
}  // namespace samba::inline SAMBA_TARGET
