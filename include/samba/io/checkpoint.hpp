#pragma once
#include <samba/io/checkpoint_names.hpp>
#include <samba/io/safetensors.hpp>
#include <samba/model/weights.hpp>

#include <cstring>
#include <set>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Title and lines, at most 20 of them; nothing where there are none.
[[gnu::cold]] inline std::string list(const char* title, const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  std::string s = join("\n  ", title, " (", lines.size(), "):");
  for (std::size_t i = 0; i < lines.size() && i < 20; ++i) s += join("\n    ", lines[i]);
  if (lines.size() > 20) s += join("\n    and ", lines.size() - 20, " more");
  return s;
}

/// Finds every part of every tensor in the file, or throws with all that is wrong.
[[gnu::cold]] inline void check_fit(const Checkpoint& file, const CheckpointNaming& naming, const std::string& structure, bool tied,
                      const auto& tensors, const auto& find) {
  std::set<std::string> used;
  if (tied && file.find(naming.head())) used.insert(naming.head());
  std::vector<std::string> missing, unexpected, shapes;
  for (const auto& tensor : tensors)
    for (const NamedRows& part : naming(tensor)) {
      if (!used.insert(part.name).second) continue;
      std::vector<std::int64_t> shape = tensor.shape;
      shape[0] = part.file_rows;
      const TensorView* found = find(part.name);
      if (!found)
        missing.push_back(join(part.name, " ", shape, " of ", naming.owner(tensor.branch)));
      else if (found->shape != shape)
        shapes.push_back(join(part.name, ": expected ", shape, " by ", naming.owner(tensor.branch), ", found ", found->shape));
    }
  for (const std::string& name : file.names())
    if (!used.contains(name)) unexpected.push_back(join(name, " ", file.find(name)->shape));
  if (!missing.empty() || !unexpected.empty() || !shapes.empty())
    fail(file.path(), ": the checkpoint does not fit the model ", structure, list("missing", missing),
         list("unexpected", unexpected), list("wrong shape", shapes));

  const TensorView *embedding = file.find(naming.embedding()), *head = file.find(naming.head());
  if (tied && head && embedding &&
      (head->dtype != embedding->dtype || head->shape != embedding->shape ||
       std::memcmp(head->data.data(), embedding->data.data(), head->data.size()) != 0))
    fail(file.path(), ": the model ties head and embedding, but ", head->name, " and ", embedding->name, " differ");
}

/// Fills the tensors from a checkpoint.
template <class R>
[[gnu::cold]] void load_tensors(const std::string& path, const std::string& structure, std::vector<BranchInfo> branches, bool tied,
          const std::vector<TensorRef<R>>& tensors) {
  const Checkpoint file = Checkpoint::open(path);
  const bool fla = file.find("backbone.embeddings.weight") || file.find("backbone.norm_f.weight");
  const CheckpointNaming naming(fla ? CheckpointNames::fla : CheckpointNames::samba, std::move(branches));
  // A tied matrix may be there under either name, or both.
  const bool only_head = tied && !file.find(naming.embedding()) && file.find(naming.head());
  const auto find = [&](const std::string& name) {
    return file.find(only_head && name == naming.embedding() ? naming.head() : name);
  };
  check_fit(file, naming, structure, tied, tensors, find);

  std::vector<R> row;
  for (const TensorRef<R>& tensor : tensors) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    const bool vector = tensor.shape.size() == 1;  // one row, whose parts count elements
    for (const NamedRows& part : naming(tensor)) {
      const TensorView& stored = *find(part.name);
      const std::int64_t unit = vector ? 1 : tensor.row_size, step = vector ? part.rows : 1;
      for (std::int64_t r = 0; r < part.rows; r += step) {
        const auto values = vector ? std::span(row).subspan(static_cast<std::size_t>(part.row), static_cast<std::size_t>(part.rows))
                                   : std::span(row);
        const std::int64_t first = (part.file_row + r) * unit;
        read_floats(stored, first, values);
        for (std::size_t i = 0; i < values.size(); ++i)
          if (!is_finite(static_cast<float>(values[i])))
            fail(path, ": tensor ", stored.name, ": element ", first + static_cast<std::int64_t>(i), " is not finite");
        if (!vector) tensor.set_row(part.row + r, row.data());
      }
    }
    if (vector) tensor.set_row(0, row.data());
  }
}

template <class R>
[[gnu::cold]] void save_tensors(const std::string& path, std::vector<BranchInfo> branches, const std::vector<TensorRef<R>>& tensors, Dtype dtype) {
  if (dtype != Dtype::f32 && dtype != Dtype::bf16)
    fail(path, ": save: expected dtype F32 or BF16, found ", dtype_name(dtype));
  const CheckpointNaming naming(CheckpointNames::samba, std::move(branches));
  SafetensorsWriter writer(path, {{"format", "pt"}});
  const auto dtype_for = [&](const TensorRef<R>& t) { return t.is_matrix ? dtype : Dtype::f32; };
  for (const auto& tensor : tensors) writer.declare(naming(tensor)[0].name, dtype_for(tensor), tensor.shape);
  std::vector<R> row;
  std::vector<float> wide;
  std::vector<bf16> narrow;
  for (const auto& tensor : tensors) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    const std::string name = naming(tensor)[0].name;
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      tensor.get_row(r, row.data());
      wide.assign(row.begin(), row.end());
      if (dtype_for(tensor) == Dtype::bf16) {
        narrow.clear();
        for (const float x : wide) narrow.push_back(bf16(x));
        writer.write(name, std::as_bytes(std::span(narrow)));
      } else {
        writer.write(name, std::as_bytes(std::span(wide)));
      }
    }
  }
  writer.finish();
}

}  // namespace detail

/// Reads the weights of a Model from a checkpoint: a .safetensors file, a *.safetensors.index.json, or
/// a folder with model.safetensors or model.safetensors.index.json. Tensors may be float32, bfloat16,
/// float16 or float64, under the names of the public Samba code or of fla's Samba; a tied head may be
/// stored once or twice.
///
/// Throws Error before reading any weight where the file does not fit the type, with all missing and
/// unexpected tensors and wrong shapes in one message; also where a value is not finite.
template <class Model, class T = float>
Weights<Model, T> load(const std::string& path) {
  Weights<Model, T> weights;
  detail::load_tensors(path, structure<Model>(), branches<Model>(), Model::tie_embeddings, weights.tensors());
  weights.derive();
  return weights;
}

/// Writes weights as one safetensors file under the public code's names; a tied head once. dtype f32,
/// or bf16, which rounds matrices and embeddings and keeps the other tensors (norms, biases,
/// convolutions, A_log, D) in float32. Replaces an existing file only when all is written.
template <class Model, class T>
void save(const Weights<Model, T>& weights, const std::string& path, Dtype dtype = Dtype::f32) {
  detail::save_tensors(path, branches<Model>(), weights.tensors(), dtype);
}

}  // namespace samba::inline SAMBA_TARGET
