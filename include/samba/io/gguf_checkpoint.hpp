#pragma once
/// \file
/// Reads weights from GGUF files.
#include <samba/io/checkpoint.hpp>
#include <samba/io/format/gguf.hpp>
#include <samba/io/gguf.hpp>

#include <cmath>

namespace samba::inline SAMBA_TARGET {

/// True if two tensors in a file have the same type and bytes.
[[gnu::cold]] inline bool same_numbers(const GgufTensor& a, const GgufTensor& b) {
  return a.type == b.type && a.shape == b.shape &&
         std::memcmp(a.data.data(), b.data.data(), a.data.size()) == 0;
}

/// out[i] = element first + i, row major, of a tensor of a type that read_rows supports. Throws as
/// read_rows does.
template <class R>
void read_floats(const GgufTensor& tensor, std::int64_t first, std::span<R> out) {
  const std::int64_t columns = tensor.columns(), n = std::ssize(out);
  if constexpr (std::is_same_v<R, float>)
    if (first % columns == 0 && n % columns == 0)
      return read_rows(tensor, first / columns, n / columns, out);
  std::vector<float> row(static_cast<std::size_t>(columns));
  if (n == 0) read_rows(tensor, 0, 0, {});  // throws for unsupported types
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t at = (first + i) % columns, some = (std::min)(columns - at, n - i);
    read_rows(tensor, (first + i) / columns, 1, row);
    for (std::int64_t k = 0; k < some; ++k)
      out[static_cast<std::size_t>(i + k)] = static_cast<R>(row[static_cast<std::size_t>(at + k)]);
    i += some;
  }
}

namespace detail {

/// The value of a layer's option, or NaN if it has no such option.
[[gnu::cold]] inline double option_of(const BranchInfo& branch, std::string_view name) {
  const std::string key = join({name, "="});
  for (std::size_t at = 0; (at = branch.options.find(key, at)) != branch.options.npos; ++at)
    if (at == 0 || branch.options[at - 1] == ' ')
      return std::strtod(branch.options.c_str() + at + key.size(), nullptr);
  return std::nan("");
}

/// Checks the metadata in a file against the model's type. Fields are those of the architecture
/// `llama`. An unknown field is an error, because it may change what the model computes.
class GgufConfig {
 public:
  [[gnu::cold]] GgufConfig(const GgufFile& file, const std::vector<BranchInfo>& branches,
                           int vocab_size, int d_model, float norm_eps)
      : file_(file) {
    const std::string_view architecture =
        file.metadata().get<std::string_view>("general.architecture");
    if (architecture != "llama")
      fail({file.path(), ": general.architecture: expected llama, the only one supported, found ",
            Quoted{architecture}});
    blocks_ = static_cast<std::int64_t>(branches.size()) / 2;
    compare("vocab_size", vocab_size);
    compare("block_count", static_cast<double>(blocks_));
    compare("embedding_length", d_model);
    compare("attention.layer_norm_rms_epsilon", static_cast<double>(norm_eps));
    for (const BranchInfo& branch : branches) {
      compare("feed_forward_length", option_of(branch, "d_ff"));
      compare("attention.head_count", option_of(branch, "n_heads"));
      compare("attention.head_count_kv", option_of(branch, "n_kv_heads"));
      compare("attention.key_length", option_of(branch, "head_dim"));
      compare("attention.value_length", option_of(branch, "head_dim"));
      compare("attention.sliding_window", option_of(branch, "window"));
      compare("rope.dimension_count", option_of(branch, "rotary"));
      compare("rope.freq_base", option_of(branch, "rope_theta"));
    }
    for (const GgufEntry& entry : file.metadata())
      if (entry.key.starts_with("llama.") && !known(entry.key.substr(6)))
        fail({file.path(), ": ", entry.key, ": this field is not supported"});
  }

 private:
  // Fields that do not concern the type: the length of texts in training.
  static constexpr std::string_view harmless[] = {"context_length"};

  [[gnu::cold]] bool known(std::string_view field) const {
    for (const std::string_view name : harmless)
      if (field == name) return true;
    for (const std::string& name : checked_)
      if (field == name) return true;
    return false;
  }
  /// Throws if the file has the field with a different number.
  [[gnu::cold]] void compare(const char* field, double expected) {
    if (std::isnan(expected)) return;
    const std::string key = join({"llama.", field});
    checked_.emplace_back(field);
    const GgufEntry* const entry = file_.metadata().find(key);
    if (!entry) return;
    const bool real = entry->type == GgufType::f32 || entry->type == GgufType::f64;
    const double found = real ? file_.metadata().get<double>(key)
                              : static_cast<double>(file_.metadata().get<std::int64_t>(key));
    if (static_cast<float>(found) != static_cast<float>(expected))
      fail({file_.path(), ": ", key, ": expected ", expected, " by the model, found ", found});
  }

  const GgufFile& file_;
  std::int64_t blocks_ = 0;
  std::vector<std::string> checked_;
};

}  // namespace detail

/// Reads the weights of a Model from a GGUF file of the architecture `llama` (Llama, Mistral,
/// SmolLM2): alternating attention and SwiGLU. Quantised tensors are converted to float and then to
/// T.
///
/// Throws Error before reading any weight if the file does not fit the type: its tensors, as in
/// load, or its metadata about sizes, heads, rotation, window and norms.
template <class Model, class T = float>
Weights<Model, T> load_gguf(const std::string& path) {
  const GgufFile file(path);
  const std::vector<BranchInfo> all = branches<Model>();
  const detail::GgufConfig config(file, all, Model::vocab_size, Model::d_model, Model::norm_eps);
  Weights<Model, T> weights;
  detail::load_tensors(file, formats::gguf_llama, structure<Model>(), all, Model::tie_embeddings,
                       weights.tensors());
  weights.derive();
  return weights;
}

}  // namespace samba::inline SAMBA_TARGET
