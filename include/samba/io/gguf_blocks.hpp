#pragma once
/// \file
/// The types of a GGUF file's tensors, and their conversion to float. Quantised rows consist of
/// blocks of 32 or 256 consecutive numbers. The layouts below are in bytes, in file order; f16 is a
/// little-endian IEEE half. Source of the layouts: ggml.
///
/// Every product below is exact in float: a scale has 11 significant bits, and the number it is
/// multiplied by at most 13. So results are rounded at most once, when an offset is subtracted or
/// added, and have the same bits whether or not the compiler fuses the two operations.
#include <samba/core/scalar.hpp>
#include <samba/io/safetensors.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace samba::inline SAMBA_TARGET {

/// Types of a tensor's elements, with their numbers in a file.
enum class GgmlType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q8_1 = 9,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  q8_k = 15,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41
};

namespace detail {

/// `to_floats` converts n blocks to floats; it is null for types that are only stored.
struct GgmlTypeRow {
  GgmlType type;
  const char* name;
  int block;  // elements
  int bytes;  // of a block
  void (*to_floats)(const std::uint8_t* __restrict blocks, std::int64_t n, float* __restrict out);
};

/// The half at p as a float, exactly.
inline float half_at(const std::uint8_t* p) {
  std::uint16_t half;
  std::memcpy(&half, p, 2);
  return f16_to_float(half);
}

/// out[i] = scale * (low four bits of q[i] - zero), and out[i + n] the same with the high four
/// bits.
template <int n, int zero>
void nibbles(const std::uint8_t* __restrict q, float scale, float* __restrict out) {
  for (int i = 0; i < n; ++i) out[i] = scale * static_cast<float>((q[i] & 15) - zero);
  for (int i = 0; i < n; ++i) out[n + i] = scale * static_cast<float>((q[i] >> 4) - zero);
}

// Blocks of 32. Nibbles: byte i has element i in its low four bits and element 16 + i in its high
// ones. Fifth bits: that of element i is bit i of a little-endian u32.

/// f16 d; i8 q[32]: d * q.
inline void q8_0_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i)
    out[i] = d * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
}

/// f16 d; u8 nibbles[16]: d * (q - 8).
inline void q4_0_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  nibbles<16, 8>(block + 2, half_at(block), out);
}

/// f16 d; f16 m; u8 nibbles[16]: d * q + m.
inline void q4_1_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const float m = half_at(block + 2);
  nibbles<16, 0>(block + 4, half_at(block), out);
  for (int i = 0; i < 32; ++i) out[i] += m;
}

/// q[i] = the 5-bit elements, from their fifth bits and nibbles.
inline void five_bits(const std::uint8_t* fifth, const std::uint8_t* __restrict low,
                      int* __restrict q) {
  std::uint32_t high;
  std::memcpy(&high, fifth, 4);
  for (int i = 0; i < 16; ++i) q[i] = (low[i] & 15) | static_cast<int>(high >> i & 1) << 4;
  for (int i = 0; i < 16; ++i)
    q[16 + i] = (low[i] >> 4) | static_cast<int>(high >> (16 + i) & 1) << 4;
}

/// f16 d; u32 fifth bits; u8 nibbles[16]: d * (q - 16).
inline void q5_0_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  int q[32];
  five_bits(block + 2, block + 6, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 16);
}

/// f16 d; f16 m; u32 fifth bits; u8 nibbles[16]: d * q + m.
inline void q5_1_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block), m = half_at(block + 2);
  int q[32];
  five_bits(block + 4, block + 8, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

// Blocks of 256.

/// The scales and offsets of the eight groups of 32 in a Q4_K or Q5_K block, 6 bits each, in 12
/// bytes. Bytes 0 to 3 have the scales of groups 0 to 3 in their low six bits, and in their high
/// two bits the upper two bits of the scales of groups 4 to 7. Bytes 4 to 7 have the offsets in the
/// same way. Bytes 8 to 11 have the low four bits of the scales (low) and offsets (high) of groups
/// 4 to 7.
struct GroupsOfK {
  float scale[8], offset[8];

  /// f16 d; f16 d of offsets; u8 packed[12].
  explicit GroupsOfK(const std::uint8_t* block) {
    const float d = half_at(block), d_offset = half_at(block + 2);
    const std::uint8_t *const p = block + 4, *const last = block + 12;
    for (int g = 0; g < 4; ++g) {
      scale[g] = d * static_cast<float>(p[g] & 63);
      offset[g] = d_offset * static_cast<float>(p[4 + g] & 63);
      scale[4 + g] = d * static_cast<float>((last[g] & 15) | (p[g] >> 6) << 4);
      offset[4 + g] = d_offset * static_cast<float>((last[g] >> 4) | (p[4 + g] >> 6) << 4);
    }
  }
};

/// f16 d, d_offset; u8 packed[12] (GroupsOfK); u8 nibbles[128]: scale * q - offset, by group. Byte
/// 32 g + i has element i of group 2 g in its low bits and of group 2 g + 1 in its high bits.
inline void q4_k_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const GroupsOfK groups(block);
  for (int g = 0; g < 8; ++g) {
    const std::uint8_t* const low = block + 16 + g / 2 * 32;
    const int shift = g % 2 * 4;
    const float scale = groups.scale[g], offset = groups.offset[g];
    for (int i = 0; i < 32; ++i)
      out[g * 32 + i] = scale * static_cast<float>(low[i] >> shift & 15) - offset;
  }
}

/// f16 d, d_offset; u8 packed[12]; u8 fifth[32]; u8 nibbles[128]: as Q4_K. The fifth bit of element
/// i of group g is bit g of fifth[i].
inline void q5_k_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const GroupsOfK groups(block);
  const std::uint8_t* const fifth = block + 16;
  for (int g = 0; g < 8; ++g) {
    const std::uint8_t* const low = block + 48 + g / 2 * 32;
    const int shift = g % 2 * 4;
    const float scale = groups.scale[g], offset = groups.offset[g];
    for (int i = 0; i < 32; ++i) {
      const int q = (low[i] >> shift & 15) | (fifth[i] >> g & 1) << 4;
      out[g * 32 + i] = scale * static_cast<float>(q) - offset;
    }
  }
}

/// u8 low[128]; u8 high[64]; i8 scales[16]; f16 d: d * scale * (q - 32), one scale per 16 elements.
/// Group g of 32 elements, the k-th of half h (g = 4 h + k): element i has its low four bits in
/// low[64 h + 32 (k % 2) + i], in the low nibble if k < 2, and its upper two in bits 2 k and 2 k +
/// 1 of high[32 h + i].
inline void q6_k_to_floats(const std::uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block + 208);
  for (int g = 0; g < 8; ++g) {
    const int h = g / 4, k = g % 4, shift = k / 2 * 4;
    const std::uint8_t *const low = block + 64 * h + 32 * (k % 2), *const high =
                                                                       block + 128 + 32 * h;
    for (int half = 0; half < 2; ++half) {
      const auto factor = static_cast<std::int8_t>(block[192 + 2 * g + half]);
      const float scale = d * static_cast<float>(factor);
      for (int i = 16 * half; i < 16 * half + 16; ++i) {
        const int q = (low[i] >> shift & 15) | (high[i] >> 2 * k & 3) << 4;
        out[g * 32 + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

/// n blocks of `bytes` bytes, one after the other.
template <int block, int bytes, void (*to_floats)(const std::uint8_t*, float*)>
void each_block(const std::uint8_t* __restrict blocks, std::int64_t n, float* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) to_floats(blocks + i * bytes, out + i * block);
}

// Single elements.

inline void f32_to_floats(const std::uint8_t* __restrict data, std::int64_t n,
                          float* __restrict out) {
  if (n > 0) std::memcpy(out, data, static_cast<std::size_t>(n) * 4);
}
inline void f16_to_floats(const std::uint8_t* __restrict data, std::int64_t n,
                          float* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = half_at(data + 2 * i);
}
inline void bf16_to_floats(const std::uint8_t* __restrict data, std::int64_t n,
                           float* __restrict out) {
  for (std::int64_t i = 0; i < n; ++i) {
    bf16 x;
    std::memcpy(&x.bits, data + 2 * i, 2);
    out[i] = float(x);
  }
}

inline constexpr std::array ggml_type_table{
    GgmlTypeRow{GgmlType::f32, "F32", 1, 4, f32_to_floats},
    GgmlTypeRow{GgmlType::f16, "F16", 1, 2, f16_to_floats},
    GgmlTypeRow{GgmlType::q4_0, "Q4_0", 32, 18, each_block<32, 18, q4_0_to_floats>},
    GgmlTypeRow{GgmlType::q4_1, "Q4_1", 32, 20, each_block<32, 20, q4_1_to_floats>},
    GgmlTypeRow{GgmlType::q5_0, "Q5_0", 32, 22, each_block<32, 22, q5_0_to_floats>},
    GgmlTypeRow{GgmlType::q5_1, "Q5_1", 32, 24, each_block<32, 24, q5_1_to_floats>},
    GgmlTypeRow{GgmlType::q8_0, "Q8_0", 32, 34, each_block<32, 34, q8_0_to_floats>},
    GgmlTypeRow{GgmlType::q8_1, "Q8_1", 32, 36, nullptr},
    GgmlTypeRow{GgmlType::q2_k, "Q2_K", 256, 84, nullptr},
    GgmlTypeRow{GgmlType::q3_k, "Q3_K", 256, 110, nullptr},
    GgmlTypeRow{GgmlType::q4_k, "Q4_K", 256, 144, each_block<256, 144, q4_k_to_floats>},
    GgmlTypeRow{GgmlType::q5_k, "Q5_K", 256, 176, each_block<256, 176, q5_k_to_floats>},
    GgmlTypeRow{GgmlType::q6_k, "Q6_K", 256, 210, each_block<256, 210, q6_k_to_floats>},
    GgmlTypeRow{GgmlType::q8_k, "Q8_K", 256, 292, nullptr},
    GgmlTypeRow{GgmlType::iq2_xxs, "IQ2_XXS", 256, 66, nullptr},
    GgmlTypeRow{GgmlType::iq2_xs, "IQ2_XS", 256, 74, nullptr},
    GgmlTypeRow{GgmlType::iq3_xxs, "IQ3_XXS", 256, 98, nullptr},
    GgmlTypeRow{GgmlType::iq1_s, "IQ1_S", 256, 50, nullptr},
    GgmlTypeRow{GgmlType::iq4_nl, "IQ4_NL", 32, 18, nullptr},
    GgmlTypeRow{GgmlType::iq3_s, "IQ3_S", 256, 110, nullptr},
    GgmlTypeRow{GgmlType::iq2_s, "IQ2_S", 256, 82, nullptr},
    GgmlTypeRow{GgmlType::iq4_xs, "IQ4_XS", 256, 136, nullptr},
    GgmlTypeRow{GgmlType::i8, "I8", 1, 1, nullptr},
    GgmlTypeRow{GgmlType::i16, "I16", 1, 2, nullptr},
    GgmlTypeRow{GgmlType::i32, "I32", 1, 4, nullptr},
    GgmlTypeRow{GgmlType::i64, "I64", 1, 8, nullptr},
    GgmlTypeRow{GgmlType::f64, "F64", 1, 8, nullptr},
    GgmlTypeRow{GgmlType::iq1_m, "IQ1_M", 256, 56, nullptr},
    GgmlTypeRow{GgmlType::bf16, "BF16", 1, 2, bf16_to_floats},
    GgmlTypeRow{GgmlType::tq1_0, "TQ1_0", 256, 54, nullptr},
    GgmlTypeRow{GgmlType::tq2_0, "TQ2_0", 256, 66, nullptr},
    GgmlTypeRow{GgmlType::mxfp4, "MXFP4", 32, 17, nullptr},
    GgmlTypeRow{GgmlType::nvfp4, "NVFP4", 64, 36, nullptr},
    GgmlTypeRow{GgmlType::q1_0, "Q1_0", 128, 18, nullptr}};

/// The type's row, or null for an unknown type.
constexpr const GgmlTypeRow* find_ggml_type(GgmlType type) {
  for (const GgmlTypeRow& row : ggml_type_table)
    if (row.type == type) return &row;
  return nullptr;
}

}  // namespace detail
}  // namespace samba::inline SAMBA_TARGET
