#pragma once
#include <samba/core/arena.hpp>

#include <cstdint>
#include <string>

namespace samba::inline SAMBA_TARGET {

/// A copy of one sequence's state: a block of bytes with its position and properties. Made by
/// Session::snapshot; any session of the same model can restore it.
struct Snapshot {
  std::string structure;      ///< of the model, see structure()
  std::string dtypes;         ///< of the states and of keys and values
  std::int64_t capacity = 0;  ///< positions that full attention keeps; 0 if the model has none
  std::int64_t position = 0;  ///< tokens read so far
  Arena block;
};

}  // namespace samba::inline SAMBA_TARGET
