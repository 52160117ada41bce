#pragma once
#include <samba/core/arena.hpp>

#include <cstdint>
#include <string>

namespace samba::inline SAMBA_TARGET {

/// A copy of one sequence's state: a block of bytes with its position and what it belongs to.
/// Made by Session::snapshot, given back by Session::restore of any session of the same model.
struct Snapshot {
  std::string structure;      ///< of the model, see structure()
  std::string dtypes;         ///< of the states and of keys and values
  std::int64_t capacity = 0;  ///< positions that full attention keeps; 0 for a model without
  std::int64_t position = 0;  ///< tokens read so far
  Arena block;
};

}  // namespace samba::inline SAMBA_TARGET
