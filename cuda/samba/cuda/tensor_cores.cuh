#pragma once
/// \file
/// What kernels need of tensor cores and asynchronous copies: mma.sync from sm_80 on, and wgmma where
/// code is compiled for sm_90a.
#include <samba/cuda/vectors.cuh>

#include <cstdint>

namespace samba::inline SAMBA_TARGET::cuda {

/// Copies 16 bytes to shared memory while the thread goes on; zeros if `valid` is false.
__device__ inline void copy_async(unsigned to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::); }
/// Waits for this thread's copies but those of the latest Left groups.
template <int Left>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

/// Loads four 8 x 8 matrices: lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(unsigned (&x)[4], unsigned from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(from)
               : "memory");
}
__device__ inline void load_matrices_transposed(unsigned (&x)[4], unsigned from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(from)
               : "memory");
}

__device__ inline void store_shared(unsigned to, unsigned x) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}

/// sum += a b: (16, 16) times (16, 8) in bf16, sums in float. sum[0] and sum[1] are columns
/// lane % 4 * 2 and the next of row lane / 4, sum[2] and sum[3] of the row 8 below.
__device__ inline void multiply_add(float* sum, const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// A tile in shared memory, (rows, columns) of bf16, at a multiple of 1024 bytes: columns in parts of
/// 64, each (rows, 64), and in every row of 128 bytes, eight chunks of 16, chunk c at c ^ row % 8, so
/// that no two rows of eight lie in the same banks.
template <int Rows>
__device__ int tile_place(int row, int chunk) {
  return chunk / 8 * (Rows * 128) + row * 128 + (chunk % 8 ^ row % 8) * 16;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// Products of warpgroups (four warps), which run while the threads go on.
#define SAMBA_WGMMA 1
#define SAMBA_WGMMA_SUMS(d)                                                                       \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),    \
      "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),  \
      "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),  \
      "+f"(d[29]), "+f"(d[30]), "+f"(d[31])

__device__ inline void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Left>
__device__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
/// Keeps the compiler from using the numbers before what stands above.
template <int N>
__device__ void wgmma_results(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
/// Makes what threads have copied to shared memory visible to wgmma.
__device__ inline void wgmma_operands_written() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Describes a part of a tile for wgmma: 64 columns, 8 rows every 1024 bytes.
__device__ inline std::uint64_t wgmma_tile(unsigned address) {
  return std::uint64_t{1} << 62 | std::uint64_t{1024 / 16} << 32 | std::uint64_t{1} << 16 |
         (address & 0x3ffffu) >> 4;
}

/// d = a b, or d += a b if `add`: (64, 16) times (16, 64). a: a part of a tile, (64, 16). b: a part of a
/// tile, (64, 16), a row for each column of b.
__device__ inline void wgmma(float (&d)[32], std::uint64_t a, std::uint64_t b, bool add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, 0, 0;\n}\n"
      : SAMBA_WGMMA_SUMS(d)
      : "l"(a), "l"(b), "r"(int{add}));
}
/// d += a b, (64, 16) times (16, 64): a in registers as for mma.sync, 16 rows a warp; b: a part of a
/// tile, (16, 64).
__device__ inline void wgmma(float (&d)[32], const unsigned (&a)[4], std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"
      : SAMBA_WGMMA_SUMS(d)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef SAMBA_WGMMA_SUMS
#endif

}  // namespace samba::inline SAMBA_TARGET::cuda
