#pragma once
/// \file
/// An Architecture as the C++ that declares its type.
#include <samba/io/architecture.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace samba::inline SAMBA_TARGET {
namespace detail {

/// A float as a C++ literal, with the digits that it needs.
[[gnu::cold]] inline std::string float_literal(float x) {
  if (std::abs(x) < 1e9f && x == std::floor(x)) return std::to_string(static_cast<std::int64_t>(x));
  return join({x, "f"});
}

/// Collects ".name = value" for the members of an aggregate that are not their defaults.
struct CppMembers {
  std::string text;

  [[gnu::cold]] void add(const char* name, const std::string& value) {
    append(text, {text.empty() ? "" : ", ", ".", name, " = ", value});
  }
  void add(const char* name, int value, int unless) {
    if (value != unless) add(name, std::to_string(value));
  }
  void add(const char* name, float value, float unless) {
    if (value != unless) add(name, float_literal(value));
  }
  void add(const char* name, bool value) {
    if (value) add(name, std::string("true"));
  }
};

[[gnu::cold]] inline std::string norm_cpp(const NormOptions& o) {
  CppMembers m;
  if (o.kind == NormKind::layer) m.add("kind", std::string("NormKind::layer"));
  m.add("eps", o.eps, 0.f);
  m.add("plus_one", o.plus_one);
  m.add("bias", o.bias);
  return join({"NormOptions{", m.text, "}"});
}

[[gnu::cold]] inline std::string attention_cpp(const AttentionOptions& o, int window, int d_model) {
  const AttentionOptions d;
  CppMembers m;
  m.add("n_heads", std::to_string(o.n_heads));
  m.add("n_kv_heads", o.n_kv_heads, o.n_heads);
  m.add("head_dim", o.head_dim, d_model % o.n_heads == 0 ? d_model / o.n_heads : 0);
  if (!o.rope) m.add("rope", std::string("false"));
  m.add("rope_theta", o.rope_theta, d.rope_theta);
  m.add("rotary_fraction", o.rotary_fraction, d.rotary_fraction);
  if (o.rope_table != d.rope_table) m.add("rope_table", std::string("RopeTable::bfloat16"));
  m.add("bias", o.bias);
  m.add("qkv_bias", o.qkv_bias && !o.bias);
  m.add("proj_bias", o.proj_bias && !o.bias);
  if (o.rope_original_positions > 0) {
    m.add("rope_original_positions", o.rope_original_positions, 0);
    m.add("rope_factor", o.rope_factor, d.rope_factor);
    m.add("rope_low_freq_factor", o.rope_low_freq_factor, d.rope_low_freq_factor);
    m.add("rope_high_freq_factor", o.rope_high_freq_factor, d.rope_high_freq_factor);
  }
  m.add("rope_linear_factor", o.rope_linear_factor, d.rope_linear_factor);
  if (o.qk_norm != QkNorm::off)
    m.add("qk_norm", std::string(o.qk_norm == QkNorm::head ? "QkNorm::head" : "QkNorm::token"));
  m.add("qk_norm_plus_one", o.qk_norm_plus_one);
  m.add("scale_dim", o.scale_dim, 0.f);
  m.add("score_cap", o.score_cap, 0.f);
  m.add("sinks", o.sinks);
  m.add("gate", o.gate);
  const std::string options = join({"AttentionOptions{", m.text, "}"});
  return window > 0 ? join({"SWA<", window, ", ", options, ">"})
                    : join({"Attention<", options, ">"});
}

[[gnu::cold]] inline std::string layer_cpp(const ArchitectureBranch& b, int d_model) {
  switch (b.layer) {
    case ArchitectureBranch::attention: return attention_cpp(b.heads, b.window, d_model);
    case ArchitectureBranch::mlp: {
      const std::string bias = b.bias ? ", MlpOptions{.bias = true}" : "";
      if (b.gate == MlpGate::silu) return join({"SwiGLU<", d_model, ", ", b.d_ff, bias, ">"});
      const char* gate = b.gate == MlpGate::gelu ? ", MlpGate::gelu"
                         : b.bias                ? ", MlpGate::gelu_tanh"
                                                 : "";
      return join({"GeGLU<", d_model, ", ", b.d_ff, gate, bias, ">"});
    }
    case ArchitectureBranch::mamba: {
      const MambaOptions d;
      CppMembers m;
      m.add("d_conv", b.scan.d_conv, d.d_conv);
      m.add("expand", b.scan.expand, d.expand);
      m.add("dt_rank", b.scan.dt_rank, (d_model + 15) / 16);
      if (m.text.empty() && b.d_state == 16) return join({"Mamba<", d_model, ">"});
      if (m.text.empty()) return join({"Mamba<", d_model, ", ", b.d_state, ">"});
      return join({"Mamba<", d_model, ", ", b.d_state, ", MambaOptions{", m.text, "}>"});
    }
    case ArchitectureBranch::recurrent: {
      const RgLruOptions d;
      CppMembers m;
      m.add("width", b.lru.width, d_model);
      m.add("n_heads", b.lru.n_heads, d.n_heads);
      m.add("d_conv", b.lru.d_conv, d.d_conv);
      return m.text.empty() ? join({"RgLru<", d_model, ">"})
                            : join({"RgLru<", d_model, ", RgLruOptions{", m.text, "}>"});
    }
  }
  return "";
}

}  // namespace detail

/// The declaration of a model's type, `struct <name> : LanguageModel<...> {};`, for namespace scope
/// after `using namespace samba;`, and an assertion of its number of parameters. Layers that occur more
/// than once have names of their own.
[[gnu::cold]] inline std::string cpp_text(const Architecture& a, const std::string& name) {
  using detail::append, detail::join;
  // The kinds of branches in order of appearance, and which each branch is.
  std::vector<ArchitectureBranch> kinds;
  std::vector<std::size_t> order;
  for (const ArchitectureBranch& branch : a.branches) {
    std::size_t k = 0;
    while (k < kinds.size() && !(kinds[k] == branch)) ++k;
    if (k == kinds.size()) kinds.push_back(branch);
    order.push_back(k);
  }
  std::string text;
  std::vector<std::string> names;
  for (const ArchitectureBranch& kind : kinds) {
    const char* stem = kind.layer == ArchitectureBranch::mlp         ? "Mlp"
                       : kind.layer == ArchitectureBranch::mamba     ? "Mixer"
                       : kind.layer == ArchitectureBranch::recurrent ? "Recurrent"
                       : kind.window > 0                             ? "Local"
                                                                     : "Full";
    std::string own = join({name, "_", stem});
    const auto taken = [&] {
      for (const std::string& other : names)
        if (other == own) return true;
      return false;
    };
    for (int n = 2; taken(); ++n) own = join({name, "_", stem, n});
    names.push_back(own);
    std::string type = detail::layer_cpp(kind, a.d_model);
    if (kind.sandwich || !(kind.norm == NormOptions{})) {
      const std::string norm = join({"Norm<", detail::norm_cpp(kind.norm), ">"});
      // Attention takes its width from the stack, so the norms are said there.
      append(text, {"using ", names.back(), " = HybridStack<DModel<", a.d_model, ">, Norms<", norm,
                    kind.sandwich ? join({", ", norm}) : "", ">, ", type, ">;\n"});
    } else {
      append(text, {"using ", names.back(), " = ", type, ";\n"});
    }
  }

  // The shortest period of the order, whole ones and a rest.
  std::size_t p = 1;
  for (; p < order.size(); ++p) {
    bool repeats = true;
    for (std::size_t i = p; repeats && i < order.size(); ++i) repeats = order[i] == order[i % p];
    if (repeats) break;
  }
  const auto list = [&](std::size_t begin, std::size_t end) {
    std::string all;
    for (std::size_t i = begin; i < end; ++i) append(all, {i > begin ? ", " : "", names[order[i]]});
    return all;
  };
  const std::size_t times = order.empty() ? 0 : order.size() / p, rest = times * p;
  std::string stack = join({"HybridStack<DModel<", a.d_model, ">, ", list(0, p), ">"});
  if (times > 1) stack = join({"Repeat<", times, ", ", stack, ">"});
  if (rest < order.size())
    stack =
        join({"HybridStack<DModel<", a.d_model, ">, ", stack, ", ", list(rest, order.size()), ">"});

  const ModelOptions d;
  detail::CppMembers m;
  m.add("vocab_size", std::to_string(a.options.vocab_size));
  m.add("tie_embeddings", a.options.tie_embeddings);
  m.add("norm_eps", a.options.norm_eps, d.norm_eps);
  if (a.options.embedding_scale != EmbeddingScale::one)
    m.add("embedding_scale", std::string(a.options.embedding_scale == EmbeddingScale::sqrt_d_model
                                             ? "EmbeddingScale::sqrt_d_model"
                                             : "EmbeddingScale::sqrt_d_model_bf16"));
  if (!(a.options.final_norm == NormOptions{}))
    m.add("final_norm", detail::norm_cpp(a.options.final_norm));
  m.add("logit_cap", a.options.logit_cap, 0.f);
  return text + join({"struct ", name, "\n    : LanguageModel<", stack,
                      ",\n                    ModelOptions{", m.text, "}> {};\nstatic_assert(",
                      name, "::parameters == ", a.parameters(), ");\n"});
}

}  // namespace samba::inline SAMBA_TARGET
