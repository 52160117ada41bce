#pragma once
#include <samba/kernels/heads.hpp>

#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

/// Precision of the rotary cosines and sines: `exact`, or rounded to bfloat16 with angles in
/// float32 (the public Samba checkpoints were trained with these).
enum class RopeTable { exact, bfloat16 };

namespace kernels {

/// Lower frequencies, for contexts longer than the `original` positions of the first training
/// (Llama 3.1): a frequency f with wavelength L = 2 pi / f becomes f / factor where L > original /
/// low, is unchanged where L < original / high, and is interpolated in between. original = 0: all
/// are divided by `linear`, as if positions were (arXiv 2306.15595).
struct RopeScaling {
  int original = 0;
  float factor = 1, low = 1, high = 4;
  float linear = 1;

  double operator()(double frequency) const {
    if (original == 0) return frequency / static_cast<double>(linear);
    const double turns = original * frequency / (2 * std::numbers::pi);  // original / L
    if (turns > high) return frequency;
    const double slow = frequency / factor;
    if (turns < low) return slow;
    const double part = (turns - low) / (high - low);
    return (1 - part) * slow + part * frequency;
  }
};

/// Cosines and sines of the rotary embedding (Su et al. 2021) at any position: angle i of position
/// p is p * theta^(-2 i / Rotary), i < Rotary / 2, with the frequency scaled if there is a
/// RopeScaling.
///
/// Exact angles: a position is split into digits of 6 bits. The cos and sin of every digit's angle
/// are tabulated in double, and their complex product gives those of the position. The results are
/// accurate to 6e-8 + position * 2^-52 (a float's precision up to 2^28), need no trigonometry below
/// 2^30, and depend on nothing but the position.
template <int Rotary>
class RotaryTable {
 public:
  static constexpr int half = Rotary / 2;

  [[gnu::cold]] RotaryTable(float theta, RopeTable kind, RopeScaling scaling = {}) : kind_(kind) {
    for (int i = 0; i < half; ++i) {
      frequency_[i] = scaling(1.0 / std::pow(static_cast<double>(theta), 2.0 * i / Rotary));
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(Rotary);
      const float rounded = 1.f / std::pow(theta, exponent);
      rounded_frequency_[i] = static_cast<float>(scaling(static_cast<double>(rounded)));
      for (int level = 0; level < levels; ++level)
        for (int digit = 0; digit < radix; ++digit) {
          const double angle = std::ldexp(digit, level * bits) * frequency_[i];
          digits_[level][digit][i] = {std::cos(angle), std::sin(angle)};
        }
    }
  }

  /// What a device computes angles from: the frequencies, exact, or rounded for RopeTable::bfloat16.
  RopeTable kind() const { return kind_; }
  const double* frequencies() const { return frequency_; }
  const float* rounded_frequencies() const { return rounded_frequency_; }

  /// Fills cos and sin, each (Rotary / 2), for one position.
  template <class R>
  void at(std::int64_t position, R* cos, R* sin) const {
    if (kind_ == RopeTable::bfloat16) {
      for (int i = 0; i < half; ++i) {
        const float angle = static_cast<float>(position) * rounded_frequency_[i];
        cos[i] = static_cast<R>(bf16(std::cos(angle)));
        sin[i] = static_cast<R>(bf16(std::sin(angle)));
      }
      return;
    }
    const std::int64_t rest = position >> (levels * bits);
    for (int i = 0; i < half; ++i) {
      Turn t = digits_[0][position % radix][i];
      for (int level = 1; level < levels; ++level) {
        const auto digit = (position >> (level * bits)) % radix;
        if (digit) t = product(t, digits_[level][digit][i]);
      }
      if (rest) {
        const double angle = std::ldexp(static_cast<double>(rest), levels * bits) * frequency_[i];
        t = product(t, {std::cos(angle), std::sin(angle)});
      }
      cos[i] = static_cast<R>(t.cos);
      sin[i] = static_cast<R>(t.sin);
    }
  }

 private:
  static constexpr int bits = 6, radix = 1 << bits, levels = 5;
  struct Turn {
    double cos, sin;
  };
  /// Written with fma to leave compilers no choice: the same bits on every instruction set.
  static Turn product(Turn a, Turn b) {
    return {std::fma(a.cos, b.cos, -(a.sin * b.sin)), std::fma(a.sin, b.cos, a.cos * b.sin)};
  }

  RopeTable kind_;
  double frequency_[half];
  float rounded_frequency_[half];
  Turn digits_[levels][radix][half];
};

/// The queries and keys of a chunk, or their gradients, rotated by the position of their row. k may
/// be null.
template <int Rotary, class E>
struct RopeArgs {
  const RotaryTable<Rotary>* angles;
  HeadRows<E> q, k;
  int n_kv_heads, group, head_dim;
};
template <int Rotary, class E>
struct RopeBackwardArgs : RopeArgs<Rotary, E> {};

/// The arguments of rope and rope_backward.
template <class P, int Rotary, int KvHeads, int Group, int HeadDim>
struct Rope {
  static_assert(Rotary % 2 == 0 && Rotary <= HeadDim,
                "rope: Rotary must be even and at most HeadDim");
  const RotaryTable<Rotary>& angles;
  Heads<Act<P>, KvHeads, Group, HeadDim> q;             ///< rotated in place
  Optional<Heads<Act<P>, KvHeads, 1, HeadDim>> k = {};  ///< rotated in place
};

/// Rotates query and key heads in place (Su et al. 2021): the first Rotary channels of each, by the
/// row's absolute position.
template <int Rotary, int KvHeads, int Group, int HeadDim, class P>
void rope(const Context<P>& c,
          const std::type_identity_t<Rope<P, Rotary, KvHeads, Group, HeadDim>>& a) {
  samba::detail::launch_on(c,
                           RopeArgs<Rotary, Act<P>>{&a.angles, a.q, a.k, KvHeads, Group, HeadDim});
}

/// Replaces the gradients of rope's results by those of its inputs.
template <int Rotary, int KvHeads, int Group, int HeadDim, class P>
void rope_backward(const Context<P>& c,
                   const std::type_identity_t<Rope<P, Rotary, KvHeads, Group, HeadDim>>& a) {
  samba::detail::launch_on(
      c, RopeBackwardArgs<Rotary, Act<P>>{{&a.angles, a.q, a.k, KvHeads, Group, HeadDim}});
}

}  // namespace kernels
}  // namespace samba::inline SAMBA_TARGET
