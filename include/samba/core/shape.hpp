#pragma once
#include <samba/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

namespace samba::inline SAMBA_TARGET {

/// The extents of a tensor in a file; a scalar has none. At most max_rank of them, stored in place,
/// so that lists of tensors are plain data.
class Shape {
 public:
  static constexpr std::size_t max_rank = 8;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> extents)
      : Shape(extents.begin(), extents.size()) {}
  /// Throws Error if there are more than max_rank.
  constexpr Shape(std::span<const std::int64_t> extents) : Shape(extents.data(), extents.size()) {}

  /// Adds an extent. Returns false, changing nothing, if there are max_rank already.
  constexpr bool push_back(std::int64_t extent) {
    if (rank_ == max_rank) return false;
    extents_[rank_++] = extent;
    return true;
  }

  constexpr std::size_t size() const { return rank_; }
  constexpr std::int64_t* begin() { return extents_; }
  constexpr std::int64_t* end() { return extents_ + rank_; }
  constexpr const std::int64_t* begin() const { return extents_; }
  constexpr const std::int64_t* end() const { return extents_ + rank_; }
  constexpr std::int64_t& operator[](std::size_t i) { return extents_[i]; }
  constexpr std::int64_t operator[](std::size_t i) const { return extents_[i]; }
  /// Extents beyond the rank are zero.
  friend constexpr bool operator==(const Shape&, const Shape&) = default;

 private:
  // A pointer and a count: with -D_GLIBCXX_DEBUG, g++ 12 cannot make a span of a list in a constant
  // expression.
  constexpr Shape(const std::int64_t* extents, std::size_t n) {
    if (n > max_rank) fail({"a shape has at most ", max_rank, " extents, found ", n});
    for (std::size_t i = 0; i < n; ++i) push_back(extents[i]);
  }

  std::size_t rank_ = 0;
  std::int64_t extents_[max_rank] = {};
};

inline detail::Part::Part(const Shape& s) : Part(Kind::shape, s.begin(), s.size()) {}

}  // namespace samba::inline SAMBA_TARGET
