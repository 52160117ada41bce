#pragma once
/// \file
/// The functions that the library `samba::compiled` holds once per instruction set, in one order:
/// kernels.cpp has the addresses of those of simd/, choose.cpp calls them by their numbers. The two
/// see the same declarations in different inline namespaces. What passes between them are numbers,
/// pointers and structures of these, which are alike on both sides.
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/simd/attention.hpp>
#include <samba/kernels/simd/causal_conv1d.hpp>
#include <samba/kernels/simd/elementwise.hpp>
#include <samba/kernels/simd/matmul.hpp>
#include <samba/kernels/simd/rmsnorm.hpp>
#include <samba/kernels/simd/rope.hpp>
#include <samba/kernels/simd/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {
using simd::add;
using simd::attention;
using simd::causal_conv1d;
using simd::matmul;
using simd::rmsnorm;
using simd::rope;
using simd::selective_scan;
using simd::silu_mul;
}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
#endif

#include <cstddef>
#include <type_traits>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

/// A function of the list, whatever its type.
using Entry = void (*)();

template <auto>
struct Constant {};

/// Functions and their numbers.
template <auto... functions>
struct List {
  static constexpr std::size_t size = sizeof...(functions);

  template <auto function>
  static constexpr std::size_t number = [] {
    std::size_t n = 0;
    const bool found = ((std::is_same_v<Constant<function>, Constant<functions>> || !++n) || ...);
    return found ? n : size;
  }();

  static void copy_to(Entry* entries) { ((*entries++ = reinterpret_cast<Entry>(functions)), ...); }
};

using Kernels = List<  //
    &matmul<float>, &matmul<bf16>, &matmul<int8>, &attention<float>, &attention<bf16>,
    &selective_scan<4>, &selective_scan<8>, &selective_scan<16>, &selective_scan<32>,
    &selective_scan<64>, &selective_scan<128>, &causal_conv1d<2, true>, &causal_conv1d<3, true>,
    &causal_conv1d<4, true>, &causal_conv1d<5, true>, &causal_conv1d<6, true>,
    &causal_conv1d<2, false>, &causal_conv1d<3, false>, &causal_conv1d<4, false>,
    &causal_conv1d<5, false>, &causal_conv1d<6, false>, &silu_mul, &add, &rmsnorm, &rope>;

/// Fills in the functions of the instruction set that this was compiled for. (A function, not a
/// table: nothing compiled for an instruction set runs before the processor was asked for it.)
void list_kernels(Entry* entries);

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
