#pragma once
/// \file
/// Checkpoints of a run: folders `<dir>/step-<number>` with `model.safetensors`, the master weights
/// in the common format, and `training.safetensors`, everything else that a run needs to resume.
#include <samba/core/callback.hpp>
#include <samba/io/checkpoint.hpp>
#include <samba/io/file_record.hpp>
#include <samba/io/folder.hpp>
#include <samba/train/adamw.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// The step number in the name of a checkpoint's folder, or -1 for other names.
[[gnu::cold]] inline std::int64_t checkpoint_step(std::string_view name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return -1;
  name.remove_prefix(prefix.size());
  std::int64_t step = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), step);
  return code == std::errc{} && end == name.data() + name.size() ? step : -1;
}

/// Suffixes of folders: for one that is not a checkpoint yet, or no longer; and for one that is
/// being replaced by another of the same step, and remains a checkpoint until the new one has the
/// name.
inline constexpr const char *unfinished = ".unfinished", *replaced = ".replaced";

/// Records, once each, the paths that cannot be removed.
[[gnu::cold]] inline void stays(const std::string& path, int code, std::vector<std::string>& left) {
  const auto why = join({path, ": cannot remove: ", std::generic_category().message(code)});
  if (std::find(left.begin(), left.end(), why) == left.end()) left.push_back(why);
}

/// Adds the numbers of tensors to a hash, row by row as in files.
template <class R>
[[gnu::cold]] void add_tensors(ContentHash& hash, const std::vector<TensorRef<R>>& tensors) {
  std::vector<R> row;
  for (const TensorRef<R>& tensor : tensors) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      tensor.get_row(r, row.data());
      hash.add(std::as_bytes(std::span(row)));
    }
  }
}

/// Throws, naming the tensor, if one of its numbers is not finite.
template <class R>
[[gnu::cold]] void check_finite(const std::vector<std::string>& names,
                                const std::vector<TensorRef<R>>& tensors) {
  std::vector<R> row;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    row.resize(static_cast<std::size_t>(tensors[t].row_size));
    for (std::int64_t r = 0; r < tensors[t].rows; ++r) {
      tensors[t].get_row(r, row.data());
      if (const std::size_t k = first_not_finite<R>(row); k < row.size())
        fail({"tensor ", names[t], ": element ",
              r * tensors[t].row_size + static_cast<std::int64_t>(k), " is not finite"});
    }
  }
}

}  // namespace detail

/// The folders of all checkpoints in `dir`, by step. A folder gets its name when it is complete.
/// One that was being replaced when the program was killed has the suffix `.replaced`.
[[gnu::cold]] inline std::map<std::int64_t, std::string> checkpoints_in(const std::string& dir) {
  std::map<std::int64_t, std::string> found;
  for (const std::string& name : names_in_folder(dir)) {
    const std::string folder = detail::join({dir, "/", name});
    const std::size_t end = name.ends_with(detail::replaced) ? name.rfind('.') : name.size();
    const std::int64_t step = detail::checkpoint_step(std::string_view(name).substr(0, end));
    if (step < 0 || !is_directory(folder)) continue;
    if (end == name.size())
      found[step] = folder;
    else
      found.try_emplace(step, folder);
  }
  return found;
}

/// The folder of the newest checkpoint in `dir`, or "" if there is none.
[[gnu::cold]] inline std::string latest_checkpoint(const std::string& dir) {
  const auto all = checkpoints_in(dir);
  return all.empty() ? "" : all.rbegin()->second;
}

namespace detail {

/// Renames a checkpoint so that it no longer is one and clean_up removes it. (Removing it in place
/// could leave half a checkpoint.)
[[gnu::cold]] inline void retire(const std::string& folder, std::vector<std::string>& left) {
  if (std::rename(folder.c_str(), (folder + unfinished).c_str()) != 0) stays(folder, errno, left);
}

/// Removes all but the newest `keep` checkpoints in `dir` (0: removes none), and what killed
/// programs left behind. What cannot be removed stays, and a message about it is added to `left`,
/// once.
[[gnu::cold]] inline void clean_up(const std::string& dir, int keep,
                                   std::vector<std::string>& left) try {
  auto all = checkpoints_in(dir);
  for (auto& [step, folder] : all)
    if (folder.ends_with(replaced)) {  // but the new one was never completed
      const std::string name = folder.substr(0, folder.rfind('.'));
      if (std::rename(folder.c_str(), name.c_str()) != 0)
        stays(folder, errno, left);
      else
        folder = name;
    }
  for (; keep > 0 && std::ssize(all) > keep; all.erase(all.begin()))
    retire(all.begin()->second, left);
  for (const std::string& name : names_in_folder(dir))
    if (const std::string step = name.substr(0, name.find('.'));
        checkpoint_step(step) >= 0 &&
        (name == step + unfinished ||
         (name == step + replaced && path_exists(join({dir, "/", step})))))
      remove_folder(join({dir, "/", name}),
                    [&](const std::string& path, int code) { stays(path, code, left); });
} catch (const Error& error) {  // the folder cannot be read
  if (std::find(left.begin(), left.end(), error.what()) == left.end()) left.push_back(error.what());
}

}  // namespace detail

/// Adds the folder of a step to `dir`, completely or not at all: write(folder) writes the files to
/// disk (as FileWriter does) in a folder with a temporary name, which is then renamed and replaces
/// any folder for this step. Returns the folder. If anything fails, throws Error, and what was
/// there stays.
///
/// Afterwards all but the newest `keep` folders are removed (0: none are), with their files but not
/// with folders in them; links are removed, never followed. A failure to remove something is not an
/// error: it stays, and a message about it is added to `left`, if given, once.
[[gnu::cold]] inline std::string write_checkpoint(const std::string& dir, std::int64_t step,
                                                  int keep, Callback<const std::string&> write,
                                                  std::vector<std::string>* left = nullptr) {
  std::vector<std::string> unsaid;
  if (!left) left = &unsaid;
  const std::string number = std::to_string(step);
  const std::string folder = detail::join(
      {dir, "/step-", std::string(8 - std::min<std::size_t>(8, number.size()), '0'), number});
  const std::string temporary = folder + detail::unfinished, former = folder + detail::replaced;
  try {
    make_folders(dir);
    detail::clean_up(dir, 0, *left);
    make_folders(temporary);
    write(temporary);
    if (is_directory(folder)) rename_folder(folder, former);
    rename_folder(temporary, folder);
    sync_folder(dir);
  } catch (const std::exception& error) {
    if (!path_exists(folder)) std::rename(former.c_str(), folder.c_str());
    remove_folder(temporary, [](const std::string&, int) {});
    fail({folder, ": cannot write the checkpoint: ", error.what()});
  }
  detail::clean_up(dir, keep, *left);
  return folder;
}

/// A checkpoint, opened for reading.
class RunCheckpoint {
 public:
  static constexpr const char* model_file = "/model.safetensors";
  static constexpr const char* training_file = "/training.safetensors";

  /// Throws if the folder or a part of it is missing, or if the training part is damaged.
  [[gnu::cold]] explicit RunCheckpoint(std::string folder)
      : folder_(std::move(folder)), file_(open(folder_)) {
    if (record().text("training") != version)
      fail({file_.path(), ": layout version: expected ", version, ", found ",
            record().text("training")});
  }

  /// Writes a checkpoint with the weights, the means, entries (names and values) and a block of
  /// states; see write_checkpoint.
  template <class Model, class R>
  [[gnu::cold]] static std::string write(const std::string& dir, std::int64_t step, int keep,
                                         const Weights<Model, Master<R>>& weights,
                                         const typename AdamW<Model, R>::State& optimiser,
                                         std::map<std::string, std::string> entries,
                                         std::span<const std::byte> states = {},
                                         std::vector<std::string>* left = nullptr) {
    const auto write = [&](const std::string& folder) {
      detail::check_finite(tensor_names(weights), weights.tensors());
      save(weights, folder + model_file, dtype_of<R>);
      write_training(folder, structure<Model>(), tensor_names(weights), weights.tensors(),
                     optimiser.mean.tensors(), optimiser.square.tensors(), optimiser.steps, entries,
                     states);
    };
    return write_checkpoint(dir, step, keep, write, left);
  }

  const std::string& folder() const { return folder_; }
  FileRecord record() const { return {file_, "the training part of a checkpoint"}; }

  /// Throws unless the checkpoint is for this model, with master weights in R.
  template <class Model, class R>
  [[gnu::cold]] void check_model() const {
    expect("model", "structure", structure<Model>());
    expect("type of the master weights", "dtype", dtype_name(dtype_of<R>));
  }
  /// Throws, naming what differs, unless an entry has this value.
  [[gnu::cold]] void expect(const char* what, std::string_view key,
                            std::string_view expected) const {
    const std::string found = record().text(key);
    if (found != expected)
      fail({folder_, ": the checkpoint has a different ", what, ": expected ", expected, ", found ",
            found});
  }

  /// Fills weights and means. Throws Error if they are not what was written.
  template <class Model, class R>
  [[gnu::cold]] void restore(Weights<Model, Master<R>>& weights,
                             typename AdamW<Model, R>::State& optimiser) const {
    check_model<Model, R>();
    detail::load_tensors(folder_ + model_file, structure<Model>(), branches<Model>(),
                         Model::tie_embeddings, weights.tensors());
    read_means(tensor_names(weights), weights.tensors(), optimiser.mean.tensors(),
               optimiser.square.tensors());
    weights.derive();
    optimiser.steps = record().number<std::int64_t>("optimiser_steps");
  }

  /// The block of states that was written; empty if there was none.
  std::span<const std::byte> states() const {
    const TensorView* const found = file_.find(states_name);
    return found ? found->data : std::span<const std::byte>();
  }

 private:
  static constexpr const char *version = "2", *states_name = "states";

  static SafetensorsFile open(const std::string& folder) {
    if (!is_directory(folder)) fail({folder, ": expected the folder of a checkpoint"});
    for (const char* part : {model_file, training_file})
      if (!path_exists(folder + part))
        fail({folder, part, ": this part of the checkpoint is missing"});
    return SafetensorsFile::open(folder + training_file);
  }

  /// Calls f(name in the file, tensor) for the means.
  template <class R>
  static void each_mean(const std::vector<std::string>& names,
                        const std::vector<TensorRef<R>>& mean,
                        const std::vector<TensorRef<R>>& square, auto&& f) {
    for (std::size_t t = 0; t < names.size(); ++t) f("mean." + names[t], mean[t]);
    for (std::size_t t = 0; t < names.size(); ++t) f("square." + names[t], square[t]);
  }

  template <class R>
  [[gnu::cold]] static std::string hash_of(const std::map<std::string, std::string>& metadata,
                                           const std::vector<TensorRef<R>>& weights,
                                           const std::vector<TensorRef<R>>& mean,
                                           const std::vector<TensorRef<R>>& square,
                                           std::span<const std::byte> states) {
    ContentHash hash;
    for (const auto& [key, value] : metadata) {
      const std::string line = detail::join({key, "=", value, "\n"});
      hash.add(std::as_bytes(std::span(line)));
    }
    for (const auto* tensors : {&weights, &mean, &square}) detail::add_tensors(hash, *tensors);
    hash.add(states);
    return std::to_string(hash.value());
  }

  template <class R>
  [[gnu::cold]] static void write_training(const std::string& folder, const std::string& structure,
                                           const std::vector<std::string>& names,
                                           const std::vector<TensorRef<R>>& weights,
                                           const std::vector<TensorRef<R>>& mean,
                                           const std::vector<TensorRef<R>>& square,
                                           std::int64_t steps,
                                           const std::map<std::string, std::string>& entries,
                                           std::span<const std::byte> states) {
    std::map<std::string, std::string> metadata{
        {"samba.training", version},
        {"samba.structure", structure},
        {"samba.dtype", std::string(dtype_name(dtype_of<R>))},
        {"samba.optimiser_steps", std::to_string(steps)}};
    for (const auto& [name, value] : entries) metadata["samba." + name] = value;
    metadata["samba.hash"] = hash_of(metadata, weights, mean, square, states);
    SafetensorsWriter writer(folder + training_file, metadata);
    each_mean(names, mean, square, [&](const std::string& name, const TensorRef<R>& tensor) {
      writer.declare(name, dtype_of<R>, tensor.shape);
    });
    if (!states.empty()) writer.declare(states_name, Dtype::u8, {std::ssize(states)});
    each_mean(names, mean, square, [&](const std::string& name, const TensorRef<R>& tensor) {
      detail::write_rows(writer, name, tensor, dtype_of<R>);
    });
    if (!states.empty()) writer.write(states_name, states);
    writer.finish();
  }

  template <class R>
  [[gnu::cold]] void read_means(const std::vector<std::string>& names,
                                const std::vector<TensorRef<R>>& weights,
                                const std::vector<TensorRef<R>>& mean,
                                const std::vector<TensorRef<R>>& square) const {
    std::vector<R> row;
    each_mean(names, mean, square, [&](const std::string& name, const TensorRef<R>& tensor) {
      const TensorView* const found = file_.find(name);
      if (!found || found->dtype != dtype_of<R> || found->shape != tensor.shape)
        fail({file_.path(), ": tensor ", name, ": expected ", dtype_name(dtype_of<R>), " ",
              tensor.shape, ", found ", found ? found->dtype_text() : "none", " ",
              found ? found->shape : Shape{}});
      row.resize(static_cast<std::size_t>(tensor.row_size));
      for (std::int64_t r = 0; r < tensor.rows; ++r) {
        read_floats(*found, r * tensor.row_size, std::span(row));
        tensor.set_row(r, row.data());
      }
    });
    auto metadata = file_.metadata();
    metadata.erase("samba.hash");
    if (hash_of(metadata, weights, mean, square, states()) != record().text("hash"))
      fail({folder_, ": damaged: its contents are not what was written"});
  }

  std::string folder_;
  SafetensorsFile file_;
};

}  // namespace samba::inline SAMBA_TARGET
