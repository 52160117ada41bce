#pragma once
#include <samba/core/parallel.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace samba::inline SAMBA_TARGET {

/// The rows of one sequence in a chunk: `n_rows` tokens from `first_row`, the first at `position`.
struct Segment {
  std::int64_t position = 0, first_row = 0, n_rows = 0;
};

/// What a layer's forward is called with: the threads that call it together, and the tokens, which
/// may belong to several sequences. Segment i uses state i.
struct Chunk {
  Team team;
  std::span<const Segment> segments;
  std::int64_t rows = 0;  ///< sum of n_rows
};

/// One layer's states, one per segment.
template <class State>
class States {
 public:
  States(std::byte* first, std::ptrdiff_t stride) : first_(first), stride_(stride) {}

  State& operator[](std::size_t segment) const {
    return *reinterpret_cast<State*>(first_ + static_cast<std::ptrdiff_t>(segment) * stride_);
  }

  /// The states of a part: base class Part of every State.
  template <class Part>
  States<Part> part() const {
    return {reinterpret_cast<std::byte*>(static_cast<Part*>(&(*this)[0])), stride_};
  }
  /// The states of element i of every State, which is an array.
  auto element(std::size_t i) const {
    auto& x = (*this)[0][i];
    return States<std::remove_reference_t<decltype(x)>>{reinterpret_cast<std::byte*>(&x), stride_};
  }
  /// One tensor of every state: `tensor(&State::ssm)[segment]`.
  template <class Tensor>
  auto tensor(Tensor State::* member) const {
    return States<Tensor>{reinterpret_cast<std::byte*>(&((*this)[0].*member)), stride_};
  }

 private:
  std::byte* first_;
  std::ptrdiff_t stride_;
};

}  // namespace samba::inline SAMBA_TARGET
