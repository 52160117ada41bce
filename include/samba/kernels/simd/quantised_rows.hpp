#pragma once
/// \file
/// Rows of numbers quantised to 8 bits, the second factor of products with weights of 8 and 4 bits.
#include <samba/kernels/simd/operand.hpp>

namespace samba::inline SAMBA_TARGET::kernels::simd {

/// 32 numbers of a row: q times the scale. A block with a number that is not finite has a scale of
/// NaN, which shows in its products.
struct QuantisedBlock {
  static constexpr int size = 32;

  alignas(alignment) std::int32_t q[size] = {};
  std::int32_t sum = 0;  ///< of q
  float scale;

  /// Quantises by the largest magnitude.
  explicit QuantisedBlock(const float* values) {
    constexpr int vecs = size / lanes;
    vec value[vecs];
    ints most(0), total(0);
    unroll<vecs>([&](auto v) __attribute__((always_inline)) {
      value[v] = load(values + v * lanes);
      // Bits are ordered as magnitudes are.
      most = (xsimd::max)(most, std::bit_cast<ints>(value[v]) & ints(0x7fffffff));
    });
    const Int8Scale by(std::bit_cast<float>(greatest(most)));
    if (by.is_finite())
      unroll<vecs>([&](auto v) __attribute__((always_inline)) {
        const ints part = nearest_ints(value[v] * vec(by.inverse));
        part.store_unaligned(q + v * lanes);
        total += part;
      });
    sum = simd::sum(total);
    scale = by.value;
  }
};

/// Calls f with the blocks of n values, the last one padded with zeros.
template <class F>
void for_each_quantised_block(const float* values, std::int64_t n, F&& f) {
  std::int64_t k = 0;
  for (; k + QuantisedBlock::size <= n; k += QuantisedBlock::size) f(QuantisedBlock(values + k));
  if (k == n) return;
  alignas(alignment) float rest[QuantisedBlock::size] = {};
  std::copy_n(values + k, n - k, rest);
  f(QuantisedBlock(rest));
}

}  // namespace samba::inline SAMBA_TARGET::kernels::simd
