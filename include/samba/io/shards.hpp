#pragma once
/// \file
/// Checkpoints that consist of one safetensors file, or of several and an index.
#include <samba/io/safetensors.hpp>

#include <forward_list>

namespace samba::inline SAMBA_TARGET {

/// Parses a `model.safetensors.index.json`, which maps each tensor to a file in the same folder.
/// `path` is for messages only.
[[gnu::cold]] inline TextPairs parse_shard_index(std::string_view text, std::string_view path) {
  if (text.size() > static_cast<std::size_t>(max_header_bytes))
    fail({path, ": an index has at most ", max_header_bytes, " bytes, found ", text.size()});
  TextPairs weight_map(text.size());
  bool has_map = false;
  JsonReader json(text, std::string(path));
  json.object([&](const std::string& field) {
    if (field == "metadata") {
      if (!json.null()) json.object([&](const std::string&) { json.skip(); });
    } else if (field == "weight_map") {
      has_map = true;
      json.object([&](const std::string& name) {
        const std::string shard = json.string();
        const bool plain = !shard.empty() && shard != "." &&
                           shard.find("..") == std::string::npos &&
                           shard.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
        if (!plain)
          json.error(
              {"expected the name of a file in the index's own folder, found ", Quoted{shard}});
        weight_map.add(name, shard);
      });
    } else {
      json.error({"unknown field; an index has metadata and weight_map"});
    }
  });
  json.end();
  if (!has_map) fail({path, ": an index of shards needs the field \"weight_map\""});
  weight_map.sort();
  return weight_map;
}

/// The tensors of a model, in one file or in shards. Move-only; views are valid as long as the
/// object, or the one it was moved into, exists.
class Checkpoint {
 public:
  /// Opens a safetensors file, an index of shards (any name that ends in .json), or a folder with
  /// `model.safetensors` or else `model.safetensors.index.json`. Throws Error unless every file is
  /// valid and the shards hold exactly the tensors that the index assigns to them.
  static Checkpoint open(std::string path) { return Checkpoint(std::move(path)); }

  /// All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }

  /// The tensor of this name, or null.
  const TensorView* find(std::string_view name) const {
    return detail::find_tensor(tensors_, name);
  }

  /// As MappedFile::drop, of all files.
  void drop(std::span<const std::byte> part) const {
    for (const SafetensorsFile& file : files_) file.drop(part);
  }

  /// The file or index that was opened.
  const std::string& path() const { return path_; }

 private:
  [[gnu::cold]] explicit Checkpoint(std::string path) : path_(std::move(path)) {
    if (is_directory(path_)) {
      std::string single = detail::join({path_, "/model.safetensors"});
      std::string index = detail::join({single, ".index.json"});
      if (!path_exists(single) && !path_exists(index))
        fail(
            {path_, ": expected model.safetensors or model.safetensors.index.json in this folder"});
      path_ = std::move(path_exists(single) ? single : index);
    }
    if (path_.ends_with(".json"))
      open_shards();
    else
      open_file(path_);
    detail::sort(tensors_, detail::by_name);
  }

  [[gnu::cold]] void open_file(const std::string& path) {
    files_.emplace_front(path);
    for (const TensorView& tensor : files_.front().tensors()) tensors_.push_back(tensor);
  }

  [[gnu::cold]] void open_shards() {
    const MappedFile index(path_);
    const auto weight_map = parse_shard_index(detail::as_text(index.bytes()), path_);
    const std::string folder = path_.substr(0, path_.find_last_of('/') + 1);
    const auto wrong = [&](std::string_view tensor, std::initializer_list<detail::Part> what) {
      fail({path_, ": tensor ", Quoted{tensor}, detail::join(what)});
    };
    for (const auto& [name, shard] : weight_map) {
      const std::string path = detail::join({folder, shard});
      const SafetensorsFile* file = nullptr;
      for (const SafetensorsFile& opened : files_)
        if (opened.path() == path) file = &opened;
      if (!file) {
        if (!path_exists(path))
          fail({path_, ": shard ", Quoted{shard}, ", listed for tensor ", Quoted{name},
                ", does not exist"});
        open_file(path);
        file = &files_.front();
      }
      if (!file->find(name))
        wrong(name, {" is not in shard ", Quoted{shard}, ", where the index places it"});
    }
    for (const TensorView& tensor : tensors_) {
      const std::string_view shard = tensor.file.substr(folder.size());
      const std::string_view* const placed = weight_map.find(tensor.name);
      if (!placed) wrong(tensor.name, {" in shard ", Quoted{shard}, " is not in the index"});
      if (*placed != shard)
        wrong(tensor.name, {" is in two shards, ", Quoted{*placed}, " and ", Quoted{shard}});
    }
  }

  std::string path_;
  std::forward_list<SafetensorsFile> files_;
  std::vector<TensorView> tensors_;  // of all files, sorted by name
};

}  // namespace samba::inline SAMBA_TARGET
