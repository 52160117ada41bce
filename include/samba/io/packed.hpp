#pragma once
/// \file
/// Weights in a file as they are in memory: opened by mapping, without reading or packing. It is a
/// safetensors file with one tensor, `samba.packed`. Its metadata has the properties that must
/// match: the model's structure, the type of the matrices and the width of a panel. The file is the
/// same for every instruction set.
#include <samba/io/file_record.hpp>
#include <samba/model/weights.hpp>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// The type entry in a packed file with matrices of T.
template <class T>
std::string packed_type() {
  static_assert(!std::is_same_v<T, double>, "packed weights are float, bf16, int8 or q4");
  if constexpr (std::is_same_v<T, int8>)
    return join({"int8 in groups of ", Int8Block::size});
  else if constexpr (std::is_same_v<T, q4>)
    return join({"q4 in groups of ", Q4Block::size, ", head in ", packed_type<HeadWeight<T>>()});
  else
    return std::is_same_v<T, bf16> ? "bf16" : "float";
}

// Templates only so that programs that do not use them need not compile them.

[[gnu::cold]] void save_packed(const auto& path, std::string_view structure,
                               const std::string& type, std::span<const std::byte> memory) {
  SafetensorsWriter writer(path, {{"samba.packed", "1"},
                                  {"samba.structure", std::string(structure)},
                                  {"samba.type", type},
                                  {"samba.panel_width", std::to_string(panel_width)}});
  writer.declare("samba.packed", Dtype::u8, {std::ssize(memory)});
  writer.write("samba.packed", memory);
  writer.finish();
}

[[gnu::cold]] Arena load_packed(const auto& path, std::string_view structure,
                                const std::string& type, std::int64_t bytes) {
  SafetensorsFile file = SafetensorsFile::open(path);
  const FileRecord record(file, "a file of packed weights (of save_packed)");
  const auto check_entry = [&](const char* what, const char* key, std::string_view expected) {
    const std::string found = record.text(key);
    if (found != expected)
      fail({path, ": packed weights with a different ", what, ": expected ", expected, ", found ",
            found});
  };
  check_entry("layout version", "packed", "1");
  check_entry("model", "structure", structure);
  check_entry("type", "type", type);
  check_entry("panel width", "panel_width", std::to_string(panel_width));
  const TensorView* const tensor = file.find("samba.packed");
  if (!tensor || tensor->dtype != Dtype::u8 || std::ssize(tensor->data) != bytes)
    fail({path, ": expected one tensor samba.packed, U8 ", Shape{bytes}, ", found ",
          tensor ? tensor->dtype_text() : "none", " ", tensor ? tensor->shape : Shape{}});
  const std::byte* const data = tensor->data.data();
  MappedFile map = std::move(file).release();
  const std::ptrdiff_t offset = data - map.bytes().data();
  if (offset % alignment != 0)
    fail({path, ": tensor samba.packed: expected at a multiple of ", alignment,
          " bytes of the file, found at ", offset});
  return std::move(map).to_arena(offset, bytes);
}

}  // namespace detail

/// Writes weights for load_packed. An existing file is replaced only once everything is written.
template <class Model, class T>
void save_packed(const Weights<Model, T>& weights, const std::string& path) {
  detail::save_packed(path, structure<Model>(), detail::packed_type<T>(), weights.memory());
}

/// Maps a file written by save_packed: pages are read when first used, and changes to the weights
/// stay in memory. Throws Error, naming both, if the file has a different model, type, group size
/// or panel width. The numbers themselves are not checked.
template <class Model, class T = float>
Weights<Model, T> load_packed(const std::string& path) {
  return Weights<Model, T>(detail::load_packed(path, structure<Model>(), detail::packed_type<T>(),
                                               Model::template weight_bytes<T>));
}

}  // namespace samba::inline SAMBA_TARGET
