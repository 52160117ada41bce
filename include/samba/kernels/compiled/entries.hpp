#pragma once
/// \file
/// The list of functions that the library `samba::compiled` contains once per instruction set.
/// kernels.cpp takes their addresses, in simd/; choose.cpp calls them by their index in the list.
/// The two see the same declarations in different inline namespaces. Only numbers, pointers and
/// structs of these pass between them, and both sides lay these out alike.
#ifdef SAMBA_COMPILED
#include <samba/kernels/compiled.hpp>
#else
#include <samba/kernels/compiled/sizes.hpp>
#include <samba/kernels/simd/attention_backward.hpp>
#include <samba/kernels/simd/causal_conv1d.hpp>
#include <samba/kernels/simd/cross_entropy.hpp>
#include <samba/kernels/simd/elementwise.hpp>
#include <samba/kernels/simd/layernorm.hpp>
#include <samba/kernels/simd/matmul_backward.hpp>
#include <samba/kernels/simd/rg_lru.hpp>
#include <samba/kernels/simd/rmsnorm.hpp>
#include <samba/kernels/simd/rope.hpp>
#include <samba/kernels/simd/selective_scan.hpp>

namespace samba::inline SAMBA_TARGET::kernels::compiled {
using simd::add;
using simd::add_scaled;
using simd::attention;
using simd::attention_backward;
using simd::causal_conv1d;
using simd::causal_conv1d_backward;
using simd::cross_entropy;
using simd::gelu_mul;
using simd::gelu_mul_backward;
using simd::layernorm;
using simd::layernorm_backward;
using simd::layernorm_backward_weight;
using simd::matmul;
using simd::matmul_backward_input;
using simd::matmul_backward_weight;
using simd::rg_lru;
using simd::rg_lru_backward;
using simd::rms_inverse;
using simd::rmsnorm;
using simd::rmsnorm_backward;
using simd::rmsnorm_backward_weight;
using simd::rope;
using simd::rope_backward;
using simd::row_statistics;
using simd::selective_scan;
using simd::selective_scan_backward;
using simd::sigmoid_mul;
using simd::sigmoid_mul_backward;
using simd::silu_mul;
using simd::silu_mul_backward;
using simd::soft_cap;
using simd::soft_cap_backward;
}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
#endif

#include <cstddef>
#include <type_traits>

namespace samba::inline SAMBA_TARGET::kernels::compiled {

/// A function of the list, its type erased.
using Entry = void (*)();

template <auto>
struct Constant {};

/// A list of functions.
template <auto... functions>
struct List {
  static constexpr std::size_t size = sizeof...(functions);

  /// The index of a function; `size` if the list does not contain it.
  template <auto function>
  static constexpr std::size_t index = [] {
    std::size_t n = 0;
    const bool found = ((std::is_same_v<Constant<function>, Constant<functions>> || !++n) || ...);
    return found ? n : size;
  }();

  static void copy_to(Entry* entries) { ((*entries++ = reinterpret_cast<Entry>(functions)), ...); }
};

template <auto... a, auto... b>
constexpr List<a..., b...> operator+(List<a...>, List<b...>) {
  return {};
}

/// The kernels that are instantiated for each size in a list.
template <int... N>
constexpr auto scans(std::integer_sequence<int, N...>) {
  return List<&selective_scan<N>..., &selective_scan_backward<N>...>{};
}
template <bool Silu, int... Taps>
constexpr auto convolutions(std::integer_sequence<int, Taps...>) {
  return List<&causal_conv1d<Taps, Silu>..., &causal_conv1d_backward<Taps, Silu>...>{};
}

using Kernels = decltype(  //
    List<&matmul<float>, &matmul<bf16>, &matmul<int8>, &matmul<q4>, &matmul_backward_input<float>,
         &matmul_backward_input<bf16>, &matmul_backward_weight<float>,
         &matmul_backward_weight<bf16>, &attention<float>, &attention<bf16>,
         &attention_backward<float>, &attention_backward<bf16>, &silu_mul, &silu_mul_backward,
         &gelu_mul, &gelu_mul_backward, &sigmoid_mul, &sigmoid_mul_backward, &soft_cap,
         &soft_cap_backward, &add, &add_scaled, &rms_inverse, &rmsnorm, &rmsnorm_backward,
         &rmsnorm_backward_weight, &row_statistics, &layernorm, &layernorm_backward,
         &layernorm_backward_weight, &rope, &rope_backward, &rg_lru, &rg_lru_backward,
         &cross_entropy>{} +
    scans(DStates{}) + convolutions<true>(DConvs{}) + convolutions<false>(DConvs{}));

/// Fills in the functions of the instruction set that this was compiled for. (A function, not a
/// table: no code compiled for an instruction set may run before the processor has been checked.)
void list_kernels(Entry* entries);

}  // namespace samba::inline SAMBA_TARGET::kernels::compiled
