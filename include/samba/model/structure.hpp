#pragma once
/// \file
/// The parts of a model as data, for names in files, tables and messages.
#include <samba/core/error.hpp>
#include <samba/core/shape.hpp>
#include <samba/model/language_model.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// A tensor as it is in a file.
struct TensorInfo {
  int branch = -1;   ///< index of its residual branch; -1 for embedding, final norm and head
  std::string name;  ///< within its branch, e.g. "norm.weight" or "in_proj.weight"
  Shape shape;
  TensorAttributes attributes = {};  ///< how it is drawn, and whether it decays
};

/// A residual branch.
struct BranchInfo {
  const char* layer = "";                         ///< the layer's name
  std::string options;                            ///< its hyperparameters, "name=value, ..."
  std::string tensors;                            ///< names and shapes, those of the norms included
  int n_heads = 0, n_kv_heads = 0, head_dim = 0;  ///< if its layer is attention
  std::string kind;          ///< what precedes the layer's name: "", "no_norm:", "sandwich:" ...
  std::string reads;         ///< the channels that its layer reads, by the branches that write them
  std::uint64_t shared = 0;  ///< equal for branches that share weights
  int shared_number = 0;
  bool first_use = true;  ///< of the shared weights
  std::int64_t parameters = 0, state_bytes = 0, flops = 0, far_flops = 0;

  /// "name(option=value, ...)"
  std::string text() const { return detail::join({kind, layer, "(", options, ")"}); }
};

namespace detail {

// The functions that a generic visitor calls for each option or tensor take plain types and are not
// inlined, so that they are compiled once and their many callers stay cheap.
[[gnu::cold, gnu::noinline]] inline void add_option(std::string& options, const char* name,
                                                    Part value) {
  append(options, {options.empty() ? "" : ", ", name, "=", value});
}
[[gnu::cold, gnu::noinline]] inline void add_tensor(BranchInfo& info, std::string_view name,
                                                    const Shape& shape) {
  append(info.tensors, {" ", name, shape});
}

/// The text of a tensor's name as given by a layer: a literal, or something that converts to a
/// string.
constexpr std::string_view name_text(const char* name) { return name; }
std::string name_text(const auto& name) { return name; }

/// Collects options as "name=value, ...", and tensors.
struct OptionLister {
  std::string& options;
  void operator()(const char* name, auto value) const { add_option(options, name, value); }
};
struct TensorsOf {
  BranchInfo& info;
  template <class X>
  void operator()(const auto& name, const X&, const auto&...) const {
    add_tensor(info, name_text(name), X::shape);
  }
};

/// The prefix of a layer's name: the kind of its branch with the norms' options.
[[gnu::cold]] inline std::string kind_text(std::string_view kind, const std::string& options,
                                           float factor) {
  std::string text(kind);
  if (!options.empty()) append(text, {text.empty() ? "pre" : "", "(", options, ")"});
  if (!text.empty()) text += ":";
  return factor == 1 ? text : join({"scaled(factor=", factor, "):", text});
}

/// The smallest p that divides n such that item i equals item i - p: same(i, j) compares two.
template <class Same>
std::size_t period(std::size_t n, Same same) {
  for (std::size_t p = 1; p < n; ++p) {
    bool repeats = n % p == 0;
    for (std::size_t i = p; repeats && i < n; ++i) repeats = same(i, i - p);
    if (repeats) return p;
  }
  return n;
}

/// True if two branches look the same in a structure line.
[[gnu::cold]] inline bool same_text(const BranchInfo& a, const BranchInfo& b) {
  return a.kind == b.kind && std::string_view(a.layer) == b.layer && a.options == b.options &&
         (!a.options.empty() || a.tensors == b.tensors) && a.reads == b.reads &&
         a.shared == b.shared && a.shared_number == b.shared_number;
}

[[gnu::cold]] inline std::string structure_text(const std::string& model,
                                                const std::vector<BranchInfo>& branches) {
  const std::size_t p =
      period(branches.size(), [&](std::size_t i, std::size_t j) __attribute__((cold)) {
        return same_text(branches[i], branches[j]);
      });
  std::string text = join({model, "; ", branches.size() / p, " x ["});
  for (std::size_t i = 0; i < p; ++i) {
    const BranchInfo& b = branches[i];
    append(text, {i ? ", " : "", b.kind, b.layer, "(", b.options, ")"});
    if (b.options.empty()) append(text, {b.tensors});  // nothing else distinguishes such layers
    if (!b.reads.empty()) append(text, {" reads ", b.reads});
    if (!b.shared) continue;
    int key = 0;  // shared weights are numbered in order of first use
    for (std::size_t j = 0; branches[j].shared != b.shared; ++j)
      key += branches[j].shared && branches[j].first_use && branches[j].shared_number == 0;
    append(text, {"@", key, ".", b.shared_number});
  }
  append(text, {"]"});
  return text;
}

[[gnu::cold, gnu::noinline]] inline void add_read(std::string& reads, int branch) {
  if (!reads.empty()) append(reads, {", "});
  append(reads, {branch < 0 ? Part("embedding") : Part(branch)});
}
template <class Model, class... C>
void list_reads(Channels<C...>, std::string& reads) {
  for (const std::uint64_t key : {std::uint64_t{0}, type_key<C>()...})
    for (int i = 0; i < Model::channels.n; ++i)
      if (const auto& one = Model::channels.all[static_cast<std::size_t>(i)]; one.key == key)
        add_read(reads, one.branch);
}

template <class Model>
struct BranchLister {
  BranchInfo* next;
  SharedSeen seen = {};

  void operator()(auto branch, Use use) {
    using B = typename decltype(branch)::type;
    using L = typename B::Layer;
    using N = typename B::Node;
    BranchInfo& info = *next++;
    info.layer = L::name;
    if constexpr (requires { L::n_heads, L::n_kv_heads, L::head_dim; }) {
      info.n_heads = L::n_heads;
      info.n_kv_heads = L::n_kv_heads;
      info.head_dim = L::head_dim;
    }
    OptionLister options{info.options};
    if constexpr (requires { L::visit_options(options); }) L::visit_options(options);
    std::string of_node;
    OptionLister node_options{of_node};
    if constexpr (requires { N::visit_options(node_options); }) N::visit_options(node_options);
    info.kind = kind_text(N::kind, of_node, factor_of<N>);
    list_reads<Model>(typename ReadsOf<L>::type{}, info.reads);
    info.shared = use.shared;
    info.shared_number = use.number;
    info.first_use = seen.first(use);
    const typename B::template Weights<float> weights{};
    TensorsOf tensors{info};
    B::template Weights<float>::visit(weights, tensors);
    info.parameters = branch_parameters<B>();
    info.state_bytes = branch_state_bytes<B, Policy<float>>(Model::default_capacity);
    info.flops = branch_flops<B>(0);
    info.far_flops = branch_flops<B>(Model::default_capacity - 1);
  }
};

}  // namespace detail

namespace detail {

/// The options of norms, as in a structure line: those that are not their defaults.
[[gnu::cold]] inline std::string norm_text(const NormOptions& o) {
  std::string text;
  visit_norm_options(o, OptionLister{text});
  return text;
}

/// A structure line's first part.
[[gnu::cold]] inline std::string model_text(int d_model, const ModelOptions& o) {
  std::string text = join({"vocab_size=", o.vocab_size, ", d_model=", d_model,
                           ", tie_embeddings=", o.tie_embeddings, ", norm_eps=", o.norm_eps});
  if (o.embedding_scale != EmbeddingScale::one)
    append(text, {", embedding_scale=", o.embedding_scale == EmbeddingScale::sqrt_d_model
                                            ? "sqrt_d_model"
                                            : "sqrt_d_model_bf16"});
  if (const std::string norm = norm_text(o.final_norm); !norm.empty())
    append(text, {", final_norm(", norm, ")"});
  if (o.logit_cap > 0) append(text, {", logit_cap=", o.logit_cap});
  return text;
}
template <class Model>
std::string model_line() {
  using FinalNorm = typename Model::FinalNorm;
  return model_text(Model::d_model,
                    {.vocab_size = Model::vocab_size,
                     .tie_embeddings = Model::tie_embeddings,
                     .norm_eps = Model::norm_eps,
                     .embedding_scale = Model::embedding_scale,
                     .final_norm = {.kind = FinalNorm::is_rms ? NormKind::rms : NormKind::layer,
                                    .eps = FinalNorm::own_eps,
                                    .plus_one = FinalNorm::plus_one,
                                    .bias = FinalNorm::bias},
                     .logit_cap = Model::logit_cap});
}

}  // namespace detail

/// The residual branches of a model in order; state_bytes for KV = float and the default capacity,
/// far_flops at the last position before it.
template <class Model>
[[gnu::cold]] std::vector<BranchInfo> branches() {
  std::vector<BranchInfo> all(Model::depth);
  detail::BranchLister<Model> list{all.data()};
  for_each_branch<typename Model::Stack>(list);
  return all;
}

/// A canonical one-line description of a model: vocabulary, width and every branch with its
/// options, without C++ names. Models with the same line have the same weights and states.
template <class Model>
std::string structure() {
  return detail::structure_text(detail::model_line<Model>(), branches<Model>());
}

}  // namespace samba::inline SAMBA_TARGET
