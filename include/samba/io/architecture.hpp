#pragma once
/// \file
/// A model as the configuration in a file describes it, at run time: what a config.json or the
/// metadata of a GGUF file are converted to, and compared with the types of this library.
#include <samba/io/checkpoint_names.hpp>
#include <samba/layers/attention.hpp>
#include <samba/layers/mamba.hpp>
#include <samba/layers/rg_lru.hpp>
#include <samba/layers/swiglu.hpp>

#include <algorithm>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// A residual branch of an Architecture.
struct ArchitectureBranch {
  enum Layer { attention, mlp, mamba, recurrent } layer = attention;
  AttentionOptions heads = {};  ///< of attention; the sizes of heads are all given
  int window = 0;               ///< of attention; 0: all tokens
  int d_ff = 0;                 ///< of an MLP
  MlpGate gate = MlpGate::silu;
  bool bias = false;
  int d_state = 0;  ///< of Mamba
  MambaOptions scan = {};
  RgLruOptions lru = {};  ///< of RgLru; the width is given
  NormOptions norm = {};  ///< before the layer
  bool sandwich = false;  ///< and after it

  friend bool operator==(const ArchitectureBranch&, const ArchitectureBranch&) = default;
};

/// A model: embedding, branches in order, final norm, head.
struct Architecture {
  std::string family;  ///< as the file calls it: "llama", "gemma3_text"
  int d_model = 0;
  ModelOptions options = {};
  std::vector<ArchitectureBranch> branches = {};

  /// The line that structure<Model>() gives for a type of this architecture.
  [[gnu::cold]] std::string structure() const {
    return detail::structure_text(detail::model_text(d_model, options), branch_infos());
  }
  /// What branches<Model>() gives for such a type: names, options and kinds of the branches.
  [[gnu::cold]] std::vector<BranchInfo> branch_infos() const;

  /// The number of trainable numbers.
  [[gnu::cold]] std::int64_t parameters() const;
};

namespace detail {

/// What is said of a branch in a structure line.
[[gnu::cold]] inline BranchInfo branch_info(const ArchitectureBranch& b) {
  BranchInfo info;
  const OptionLister add{info.options};
  switch (b.layer) {
    case ArchitectureBranch::attention:
      info.layer = b.window > 0 ? "swa" : "attention";
      info.n_heads = b.heads.n_heads;
      info.n_kv_heads = b.heads.n_kv_heads;
      info.head_dim = b.heads.head_dim;
      visit_attention_options(b.window, b.heads, add);
      break;
    case ArchitectureBranch::mlp:
      info.layer = "mlp";
      visit_mlp_options(b.d_ff, b.bias, b.gate, add);
      break;
    case ArchitectureBranch::mamba:
      info.layer = "mamba";
      visit_mamba_options(b.d_state, b.scan, add);
      break;
    case ArchitectureBranch::recurrent:
      info.layer = "recurrent";
      visit_rg_lru_options(b.lru, add);
      break;
  }
  std::string norms = norm_text(b.norm);
  if (b.sandwich && !norms.empty()) norms = join({norms, ", ", norms});
  info.kind = kind_text(b.sandwich ? "sandwich" : "", norms, 1);
  return info;
}

/// The number of trainable numbers of a branch.
[[gnu::cold]] inline std::int64_t parameters_of(const ArchitectureBranch& b, std::int64_t d_model) {
  const auto norm = [](const NormOptions& o, std::int64_t n) { return (o.bias ? 2 : 1) * n; };
  std::int64_t n = (b.sandwich ? 2 : 1) * norm(b.norm, d_model);
  switch (b.layer) {
    case ArchitectureBranch::attention: {
      const AttentionOptions& o = b.heads;
      const std::int64_t head = o.head_dim, q = o.n_heads * head, kv = o.n_kv_heads * head;
      n += (2 * q + 2 * kv) * d_model;
      if (o.bias || o.qkv_bias) n += q + 2 * kv;
      if (o.bias || o.proj_bias) n += d_model;
      if (o.qk_norm != QkNorm::off) n += o.qk_norm == QkNorm::head ? 2 * head : q + kv;
      if (o.sinks) n += o.n_heads;
      if (o.gate) n += q * d_model;
      break;
    }
    case ArchitectureBranch::mlp:
      n += std::int64_t{3} * b.d_ff * d_model + (b.bias ? 2 * b.d_ff + d_model : 0);
      break;
    case ArchitectureBranch::mamba: {
      const std::int64_t inner = b.scan.expand * d_model, rank = b.scan.dt_rank, N = b.d_state;
      n += 3 * inner * d_model;                          // in_proj, out_proj
      n += inner * (b.scan.d_conv + 1);                  // conv1d
      n += inner * (rank + 2 * N) + inner * (rank + 1);  // x_proj, dt_proj
      n += inner * N + inner;                            // A_log, D
      break;
    }
    case ArchitectureBranch::recurrent: {
      const std::int64_t width = b.lru.width, block = width / (std::max)(1, b.lru.n_heads);
      n += 3 * width * d_model + 2 * width + d_model;  // linear_x, linear_y, linear_out
      n += width * (b.lru.d_conv + 1);                 // conv_1d
      n += 2 * width * (block + 1) + width;            // the gates, recurrent_param
      break;
    }
  }
  return n;
}

/// The first place at which two lists of options "a=1, b=2" differ: the option's name, and its values
/// there; "" for an option that a list does not have.
struct OptionDifference {
  std::string_view name, expected, found;
};
[[gnu::cold]] inline OptionDifference first_difference(std::string_view expected,
                                                       std::string_view found) {
  const auto take = [](std::string_view& list) {
    const std::size_t end = list.find(", ");
    const std::string_view one = list.substr(0, end);
    list = end == list.npos ? std::string_view() : list.substr(end + 2);
    return one;
  };
  const auto name = [](std::string_view option) { return option.substr(0, option.find('=')); };
  const auto value = [](std::string_view option) { return option.substr(option.find('=') + 1); };
  while (!expected.empty() || !found.empty()) {
    const std::string_view a = take(expected), b = take(found);
    if (a == b) continue;
    if (name(a) == name(b)) return {name(a), value(a), value(b)};
    bool only_found = a.empty();  // or a is further on
    while (!only_found && !found.empty()) only_found = name(take(found)) == name(a);
    return only_found ? OptionDifference{name(b), "", value(b)}
                      : OptionDifference{name(a), value(a), ""};
  }
  return {};
}

[[gnu::cold]] inline void fail_difference(const std::string& path, const std::string& where,
                                          const OptionDifference& d) {
  fail({path, ": ", where, d.name, ": expected ", d.expected.empty() ? "none" : d.expected,
        " by the model, found ", d.found.empty() ? "none" : d.found});
}

/// Throws if a model's structure is not that of a file: with the first option that differs.
[[gnu::cold]] inline void check_architecture(const std::string& path, const Architecture& file,
                                             const std::string& model_line,
                                             const std::vector<BranchInfo>& model) {
  const std::string file_line = model_text(file.d_model, file.options);
  if (file_line != model_line) fail_difference(path, "", first_difference(model_line, file_line));
  const std::vector<BranchInfo> found = file.branch_infos();
  if (found.size() != model.size())
    fail({path, ": branches: expected ", model.size(), " by the model, found ", found.size()});
  for (std::size_t i = 0; i < model.size(); ++i) {
    const std::string expected_layer = model[i].kind + model[i].layer,
                      found_layer = found[i].kind + found[i].layer;
    if (expected_layer != found_layer)
      fail({path, ": branch ", i, ": expected ", expected_layer, " by the model, found ",
            found_layer});
    if (model[i].options != found[i].options)
      fail_difference(path, join({"branch ", i, ", ", found_layer, ": "}),
                      first_difference(model[i].options, found[i].options));
    if (!model[i].reads.empty() || model[i].shared)
      fail({path, ": branch ", i, ": the model shares weights or reads channels, ", file.family,
            " does not"});
  }
}

}  // namespace detail

inline std::vector<BranchInfo> Architecture::branch_infos() const {
  std::vector<BranchInfo> all;
  for (const ArchitectureBranch& branch : branches) all.push_back(detail::branch_info(branch));
  return all;
}

inline std::int64_t Architecture::parameters() const {
  std::int64_t n = std::int64_t{options.tie_embeddings ? 1 : 2} * options.vocab_size * d_model +
                   (options.final_norm.bias ? 2 : 1) * d_model;
  for (const ArchitectureBranch& branch : branches) n += detail::parameters_of(branch, d_model);
  return n;
}

/// Throws Error if a Model is not of the architecture that a file describes, with the first option
/// that differs, the value that the model expects and the one found. path: of the file.
template <class Model>
void check_architecture(const std::string& path, const Architecture& file) {
  detail::check_architecture(path, file, detail::model_line<Model>(), branches<Model>());
}

}  // namespace samba::inline SAMBA_TARGET
