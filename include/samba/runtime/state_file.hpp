#pragma once
/// \file
/// The contents of a sequence's state, and its file: a safetensors file with a tensor called
/// "<branch>.<name>" for every tensor of the state (rings by slot = position % slots). Its metadata
/// has the model's structure and hash, the types, capacity and position. The same on every machine.
#include <samba/core/error.hpp>
#include <samba/core/hash.hpp>
#include <samba/io/file_record.hpp>
#include <samba/model/structure.hpp>

#include <cstring>

namespace samba::inline SAMBA_TARGET {

/// One tensor of a state, and its place in the state's block.
struct StateTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  std::int64_t offset = 0, bytes = 0;
};

/// The properties of a state.
struct StateInfo {
  std::string structure;      ///< of the model, see structure()
  std::string dtypes;         ///< of the states and of keys and values
  std::int64_t capacity = 0;  ///< positions that full attention keeps; 0 if the model has none
  std::int64_t bytes = 0;     ///< of the block

  /// Throws, with a message that starts with `where` and `what`, unless another state's properties
  /// match these. (Two parts, because restore must not allocate.)
  [[gnu::cold]] void check_fits(std::string_view where, const char* what,
                                const std::string& other_structure, const std::string& other_dtypes,
                                std::int64_t other_capacity, std::int64_t position) const {
    if (other_structure != structure)
      fail({where, what, " belongs to another model: expected ", structure, ", found ",
            other_structure});
    if (other_dtypes != dtypes)
      fail({where, what, " has other types: expected ", dtypes, ", found ", other_dtypes});
    if (other_capacity != capacity)
      fail({where, what, " has a different capacity: expected ", capacity, ", found ",
            other_capacity});
    // Far from overflow.
    if (position < 0 || position > (capacity ? capacity : std::int64_t{1} << 62))
      fail({where, what, " has an impossible position: ", position});
  }
};

/// StateInfo::dtypes for a state in R with keys and values in KV.
template <class R, class KV>
[[gnu::cold]] std::string state_dtypes() {
  return detail::join(
      {"state ", dtype_name(dtype_of<R>), ", keys and values ", dtype_name(dtype_of<KV>)});
}

// Templates only so that programs that do not use them need not compile them.

[[gnu::cold]] void save_state(const auto& path, const StateInfo& info,
                              const std::vector<StateTensor>& tensors, const std::byte* block,
                              std::int64_t position) {
  SafetensorsWriter writer(path, {{"samba.state", "1"},
                                  {"samba.structure", info.structure},
                                  {"samba.hash", std::to_string(fnv1a(info.structure))},
                                  {"samba.dtypes", info.dtypes},
                                  {"samba.capacity", std::to_string(info.capacity)},
                                  {"samba.position", std::to_string(position)}});
  for (const StateTensor& t : tensors) writer.declare(t.name, t.dtype, t.shape);
  for (const StateTensor& t : tensors)
    writer.write(t.name, {block + t.offset, static_cast<std::size_t>(t.bytes)});
  writer.finish();
}

/// Fills the block from a file and returns the position. Throws, and changes nothing, if the file
/// does not fit.
[[gnu::cold]] std::int64_t load_state(const auto& path, const StateInfo& info,
                                      const std::vector<StateTensor>& tensors, std::byte* block) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const FileRecord record(file, "a state file");
  if (record.text("state") != "1")
    fail({path, ": layout version of the state: expected 1, found ", record.text("state")});
  if (record.text("hash") != std::to_string(fnv1a(record.text("structure"))))
    fail({path, ": \"samba.hash\" is not the hash of \"samba.structure\""});
  const std::int64_t position = record.number<std::int64_t>("position");
  info.check_fits(path, "", record.text("structure"), record.text("dtypes"),
                  record.number<std::int64_t>("capacity"), position);

  for (const StateTensor& t : tensors) {
    const TensorView* found = file.find(t.name);
    if (!found)
      fail(
          {path, ": tensor ", t.name, " is missing, expected ", dtype_name(t.dtype), " ", t.shape});
    if (found->dtype != t.dtype || found->shape != t.shape)
      fail({path, ": tensor ", t.name, ": expected ", dtype_name(t.dtype), " ", t.shape, ", found ",
            found->dtype_text(), " ", found->shape});
  }
  if (file.tensors().size() != tensors.size())
    fail({path, ": expected ", tensors.size(), " tensors, found ", file.tensors().size()});
  for (const StateTensor& t : tensors)
    std::memcpy(block + t.offset, file.find(t.name)->data.data(),
                static_cast<std::size_t>(t.bytes));
  return position;
}

}  // namespace samba::inline SAMBA_TARGET
