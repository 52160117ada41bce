#pragma once
#include <samba/core/config.hpp>

#include <bit>
#include <cstdint>

namespace samba::inline SAMBA_TARGET {

/// SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"): the
/// same numbers for the same seed on every platform.
class SplitMix64 {
 public:
  constexpr explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  constexpr std::uint64_t operator()() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// A multiple of 2^-53 in [0, 1).
  constexpr double uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// A random permutation of 0, ..., n - 1 without a table: element i is computed from the seed. A
/// Feistel network permutes the numbers with an even count of bits; results of n or more go through
/// it again (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
class Permutation {
 public:
  constexpr Permutation(std::int64_t n, std::uint64_t seed)
      : n_(static_cast<std::uint64_t>(n)),
        half_bits_((static_cast<int>(std::bit_width(n_ > 1 ? n_ - 1 : 1)) + 1) / 2) {
    SplitMix64 random(seed);
    for (std::uint64_t& key : keys_) key = random();
  }

  /// i in [0, n).
  constexpr std::int64_t operator()(std::int64_t i) const {
    auto x = static_cast<std::uint64_t>(i);
    do x = network(x);
    while (x >= n_);
    return static_cast<std::int64_t>(x);
  }

 private:
  constexpr std::uint64_t network(std::uint64_t x) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = x >> half_bits_, right = x & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t next = left ^ (SplitMix64(key ^ right)() & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  std::uint64_t n_;
  int half_bits_;
  std::uint64_t keys_[8]{};
};

}  // namespace samba::inline SAMBA_TARGET
