#pragma once
/// \file
/// config.json of transformers, of the original Mamba, of the public Samba code and of
/// flash-linear-attention's Samba. Not part of samba.hpp; needs nlohmann-json.
#include <samba/io/architecture.hpp>
#include <samba/io/mapped_file.hpp>
#include <samba/io/parse_json.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace samba::inline SAMBA_TARGET {
namespace detail {

/// The fields of a config.json. Every field is asked for, or is known to be harmless, or is an error,
/// because it may change what the model computes.
class ConfigFields {
 public:
  using Json = nlohmann::json;

  [[gnu::cold]] ConfigFields(std::string_view text, std::string source)
      : source_(std::move(source)), file_(parse_json(text, source_, "a config.json")) {
    if (!file_.is_object()) refuse("the file", "an object", file_);
  }

  const std::string& source() const { return source_; }

  [[noreturn]] [[gnu::cold]] void refuse(std::string_view field, std::string_view expected,
                                         const Json& found) const {
    fail({source_, ": ", field, ": expected ", expected, ", found ", json_text(found)});
  }

  bool has(const char* field) const { return file_.contains(field); }
  /// The value of a field; null if it is missing.
  [[gnu::cold]] const Json& value(const char* field) {
    static const Json null;
    known_.emplace_back(field);
    const auto found = file_.find(field);
    return found == file_.end() ? null : *found;
  }

  /// A whole number between 1 and 2^31 - 1. A fallback of 0: it must be there.
  [[gnu::cold]] int size(const char* field, int fallback = 0) {
    const Json& v = value(field);
    if (v.is_null() && fallback > 0) return fallback;
    return as_size(field, v);
  }
  [[gnu::cold]] int as_size(std::string_view field, const Json& v) const {
    if (!v.is_number_integer() || v < 1 || v > std::numeric_limits<int>::max())
      refuse(field, "a number from 1 to 2147483647", v);
    return v.get<int>();
  }
  [[gnu::cold]] float as_real(std::string_view field, const Json& v) const {
    if (!v.is_number()) refuse(field, "a number", v);
    return v.get<float>();
  }
  [[gnu::cold]] float real(const char* field, float fallback) {
    const Json& v = value(field);
    return v.is_null() ? fallback : as_real(field, v);
  }
  [[gnu::cold]] bool boolean(const char* field, bool fallback) {
    const Json& v = value(field);
    if (v.is_null()) return fallback;
    if (!v.is_boolean()) refuse(field, "true or false", v);
    return v.get<bool>();
  }
  [[gnu::cold]] std::string text(const char* field, const char* fallback) {
    const Json& v = value(field);
    if (v.is_null()) return fallback;
    if (!v.is_string()) refuse(field, "a string", v);
    return v.get<std::string>();
  }

  /// Throws unless the field is missing, null, or has this value.
  [[gnu::cold]] void expect(const char* field, const Json& expected) {
    const Json& v = value(field);
    if (!v.is_null() && v != expected) refuse(field, json_text(expected), v);
  }
  void ignore(std::initializer_list<const char*> fields) {
    known_.insert(known_.end(), fields.begin(), fields.end());
  }

  /// Throws if there is a field that was not asked for and is not harmless.
  [[gnu::cold]] void check_all_known() const {
    for (const auto& [key, v] : file_.items())
      if (std::find(known_.begin(), known_.end(), key) == known_.end() &&
          std::find(std::begin(harmless), std::end(harmless), key) == std::end(harmless))
        fail({source_, ": ", key, ": ", json_text(v), ": this field is not supported"});
  }

 private:
  // Fields that do not change what the weights compute: names, types in files, tokens, the first
  // training, caches. Dropout acts in training only.
  static constexpr std::string_view harmless[] = {"_name_or_path",
                                                  "architectures",
                                                  "attention_dropout",
                                                  "auto_map",
                                                  "bos_token_id",
                                                  "cache_implementation",
                                                  "dtype",
                                                  "embd_pdrop",
                                                  "eos_token_id",
                                                  "initializer_range",
                                                  "is_llama_config",
                                                  "max_position_embeddings",
                                                  "model_type",
                                                  "pad_token_id",
                                                  "resid_pdrop",
                                                  "torch_dtype",
                                                  "transformers.js_config",
                                                  "transformers_version",
                                                  "use_cache"};

  std::string source_;
  Json file_;
  std::vector<std::string> known_;
};

/// The rotary embedding of some layers, from rope_parameters or rope_scaling.
[[gnu::cold]] inline void read_rope(const ConfigFields& fields, const std::string& name,
                                    const nlohmann::json& rope, AttentionOptions& heads) {
  if (rope.is_null()) return;
  if (!rope.is_object()) fields.refuse(name, "an object", rope);
  std::string type = "default";
  float factor = 0;
  for (const auto& [key, value] : rope.items()) {
    const std::string field = name + "." + key;
    if (key == "rope_type" || key == "type")
      type = value.is_string() ? value.get<std::string>() : json_text(value);
    else if (key == "rope_theta")
      heads.rope_theta = fields.as_real(field, value);
    else if (key == "partial_rotary_factor")
      heads.rotary_fraction = fields.as_real(field, value);
    else if (key == "factor")
      factor = fields.as_real(field, value);
    else if (key == "low_freq_factor")
      heads.rope_low_freq_factor = fields.as_real(field, value);
    else if (key == "high_freq_factor")
      heads.rope_high_freq_factor = fields.as_real(field, value);
    else if (key == "original_max_position_embeddings")
      heads.rope_original_positions = fields.as_size(field, value);
    else
      fail({fields.source(), ": ", field, ": ", json_text(value), ": this field is not supported"});
  }
  const bool llama3 = type == "llama3" && heads.rope_original_positions > 0;
  if (type != "default" && (!(factor > 0) || (type != "linear" && !llama3)))
    fields.refuse(name,
                  "rope_type default, linear with factor, or llama3 with factor and "
                  "original_max_position_embeddings",
                  rope);
  if (!llama3) heads.rope_original_positions = 0;
  if (llama3) heads.rope_factor = factor;
  heads.rope_linear_factor = type == "linear" ? factor : 1;
}

[[gnu::cold]] inline MlpGate mlp_gate(const ConfigFields& fields, const std::string& activation) {
  if (activation == "silu" || activation == "swish") return MlpGate::silu;
  if (activation == "gelu_pytorch_tanh" || activation == "gelu_new") return MlpGate::gelu_tanh;
  if (activation == "gelu") return MlpGate::gelu;
  fields.refuse("hidden_act", "silu, gelu or gelu_pytorch_tanh", activation);
}

/// Transformers of one kind of block: Llama, Mistral, Phi-3, Qwen 3, Gemma 1 to 3.
[[gnu::cold]] inline Architecture transformer_of(ConfigFields& fields, const std::string& type) {
  const bool gemma1 = type == "gemma", gemma2 = type == "gemma2", gemma3 = type == "gemma3_text";
  const bool gemma = gemma1 || gemma2 || gemma3, qwen3 = type == "qwen3";
  Architecture a{.family = type};
  a.d_model = fields.size("hidden_size");
  a.options.vocab_size = fields.size("vocab_size");
  a.options.tie_embeddings = fields.boolean("tie_word_embeddings", gemma);
  a.options.norm_eps = fields.real("rms_norm_eps", 1e-6f);

  ArchitectureBranch full{.layer = ArchitectureBranch::attention};
  ArchitectureBranch mlp{.layer = ArchitectureBranch::mlp};
  AttentionOptions& heads = full.heads;
  heads.n_heads = fields.size("num_attention_heads");
  heads.n_kv_heads = fields.size("num_key_value_heads", heads.n_heads);
  heads.head_dim = fields.size("head_dim", gemma   ? 256
                                           : qwen3 ? 128
                                                   : (std::max)(1, a.d_model / heads.n_heads));
  heads.bias = fields.boolean("attention_bias", false);
  mlp.d_ff = fields.size("intermediate_size");
  mlp.bias = fields.boolean("mlp_bias", false);
  std::string activation = fields.text("hidden_act", gemma ? "gelu_pytorch_tanh" : "silu");
  if (gemma) {  // Gemma's first files say gelu in hidden_act, and mean its tanh form
    const std::string newer = fields.text("hidden_activation", "");
    activation = !newer.empty() ? newer : activation == "gelu" ? "gelu_pytorch_tanh" : activation;
  }
  mlp.gate = mlp_gate(fields, activation);
  fields.expect("pretraining_tp", 1);

  if (gemma) {
    a.options.embedding_scale = EmbeddingScale::sqrt_d_model;
    a.options.final_norm.plus_one = full.norm.plus_one = mlp.norm.plus_one = true;
    full.sandwich = mlp.sandwich = !gemma1;
    fields.expect("use_bidirectional_attention", false);
  }
  if (gemma2 || gemma3) {
    a.options.logit_cap = fields.real("final_logit_softcapping", gemma2 ? 30.f : 0.f);
    heads.score_cap = fields.real("attn_logit_softcapping", gemma2 ? 50.f : 0.f);
    const float scalar = fields.real("query_pre_attn_scalar", 256);
    if (scalar != static_cast<float>(heads.head_dim)) heads.scale_dim = scalar;
  }
  if (gemma3 || qwen3) {
    heads.qk_norm = QkNorm::head;
    heads.qk_norm_plus_one = gemma3;
  }

  // The rotary embedding; Gemma 3 has one for layers with a window, and one for those without.
  heads.rope_theta = fields.real("rope_theta", gemma3 ? 1e6f : 10000.f);
  heads.rotary_fraction = fields.real("partial_rotary_factor", 1);
  read_rope(fields, "rope_scaling", fields.value("rope_scaling"), heads);
  ArchitectureBranch local = full;
  if (gemma3) {  // rope_scaling is of the layers without a window
    local.heads.rope_theta = fields.real("rope_local_base_freq", 10000);
    local.heads.rope_original_positions = 0;
    local.heads.rope_linear_factor = 1;
  }
  if (const auto& rope = fields.value("rope_parameters"); gemma3 && rope.is_object()) {
    for (const auto& [key, value] : rope.items())
      if (key == "full_attention")
        read_rope(fields, "rope_parameters.full_attention", value, heads);
      else if (key == "sliding_attention")
        read_rope(fields, "rope_parameters.sliding_attention", value, local.heads);
      else
        fields.refuse("rope_parameters", "full_attention and sliding_attention", rope);
  } else {
    read_rope(fields, "rope_parameters", rope, heads);
    if (!gemma3) local.heads = heads;
  }
  if (type == "phi3") fields.ignore({"original_max_position_embeddings"});

  // The layers that have a window: all, those that layer_types names, or by the family's pattern.
  const int layers = fields.size("num_hidden_layers");
  int window = 0;
  if (const auto& v = fields.value("sliding_window"); !v.is_null())
    window = fields.as_size("sliding_window", v);
  if (qwen3) {
    fields.ignore({"max_window_layers"});
    if (!fields.boolean("use_sliding_window", false)) window = 0;
  }
  local.window = window;
  const int pattern = gemma3 ? fields.size("sliding_window_pattern", 6) : gemma2 ? 2 : 1;
  if (gemma3) fields.ignore({"_sliding_window_pattern"});
  std::vector<bool> has_window(static_cast<std::size_t>(layers), window > 0);
  for (int i = 0; pattern > 1 && i < layers; ++i)
    has_window[static_cast<std::size_t>(i)] = (i + 1) % pattern != 0;
  if (const auto& types = fields.value("layer_types"); !types.is_null()) {
    if (!types.is_array() || types.size() != has_window.size())
      fields.refuse("layer_types", join({"a list of ", layers, " layers"}), types);
    for (std::size_t i = 0; i < has_window.size(); ++i) {
      if (types[i] != "full_attention" && types[i] != "sliding_attention")
        fields.refuse("layer_types", "full_attention or sliding_attention", types[i]);
      has_window[i] = types[i] == "sliding_attention";
    }
  }
  if (window == 0 && std::find(has_window.begin(), has_window.end(), true) != has_window.end())
    fields.refuse("sliding_window", "a number, as layers have a window", nullptr);
  for (const bool windowed : has_window)
    a.branches.insert(a.branches.end(), {windowed ? local : full, mlp});
  return a;
}

/// RecurrentGemma: blocks of RG-LRU or windowed attention, each with an MLP.
[[gnu::cold]] inline Architecture recurrent_gemma_of(ConfigFields& fields) {
  Architecture a{.family = "recurrent_gemma"};
  a.d_model = fields.size("hidden_size");
  a.options = {.vocab_size = fields.size("vocab_size"),
               .tie_embeddings = fields.boolean("tie_word_embeddings", true),
               .norm_eps = fields.real("rms_norm_eps", 1e-6f),
               .embedding_scale = EmbeddingScale::sqrt_d_model_bf16,
               .final_norm = {.plus_one = true},
               .logit_cap = fields.real("logits_soft_cap", 30)};
  fields.expect("embeddings_scale_by_sqrt_dim", true);
  ArchitectureBranch recurrent{.layer = ArchitectureBranch::recurrent, .norm = {.plus_one = true}};
  ArchitectureBranch attention{.layer = ArchitectureBranch::attention, .norm = {.plus_one = true}};
  ArchitectureBranch mlp{
      .layer = ArchitectureBranch::mlp, .bias = true, .norm = {.plus_one = true}};
  AttentionOptions& heads = attention.heads;
  heads.n_heads = fields.size("num_attention_heads");
  heads.n_kv_heads = fields.size("num_key_value_heads", heads.n_heads);
  heads.head_dim = fields.size("head_dim", (std::max)(1, a.d_model / heads.n_heads));
  heads.rope_theta = fields.real("rope_theta", 10000);
  heads.rotary_fraction = fields.real("partial_rotary_factor", 0.5f);
  read_rope(fields, "rope_scaling", fields.value("rope_scaling"), heads);
  read_rope(fields, "rope_parameters", fields.value("rope_parameters"), heads);
  heads.bias = fields.boolean("attention_bias", false);
  heads.proj_bias = true;
  attention.window = fields.size("attention_window_size", 2048);
  recurrent.lru = {.width = fields.size("lru_width", a.d_model),
                   .n_heads = heads.n_heads,
                   .d_conv = fields.size("conv1d_width", 4)};
  mlp.gate = mlp_gate(fields, fields.text("hidden_activation", "gelu_pytorch_tanh"));
  mlp.d_ff = fields.size("intermediate_size") / 2;
  fields.ignore({"w_init_variance_scale", "final_w_init_variance_scale"});
  const auto& types = fields.value("block_types");
  const auto standard = nlohmann::json{"recurrent", "recurrent", "attention"};
  const auto& pattern = types.is_null() ? standard : types;
  if (!pattern.is_array() || pattern.empty())
    fields.refuse("block_types", "a list of recurrent and attention", pattern);
  const int layers = fields.size("num_hidden_layers");
  for (int i = 0; i < layers; ++i) {
    const auto& type = pattern[static_cast<std::size_t>(i) % pattern.size()];
    if (type != "recurrent" && type != "attention")
      fields.refuse("block_types", "recurrent or attention", type);
    a.branches.insert(a.branches.end(), {type == "recurrent" ? recurrent : attention, mlp});
  }
  return a;
}

/// A mixer of Mamba under the names of transformers, which flash-linear-attention has too.
[[gnu::cold]] inline ArchitectureBranch mamba_branch(ConfigFields& fields, int d_model) {
  ArchitectureBranch mixer{.layer = ArchitectureBranch::mamba};
  mixer.d_state = fields.size("state_size", 16);
  mixer.scan = {.d_conv = fields.size("conv_kernel", 4),
                .expand = fields.size("expand", 2),
                .dt_rank = (d_model + 15) / 16};
  if (const auto& rank = fields.value("time_step_rank"); !rank.is_null() && rank != "auto")
    mixer.scan.dt_rank = fields.as_size("time_step_rank", rank);
  fields.expect("intermediate_size", mixer.scan.expand * d_model);
  fields.expect("use_bias", false);
  fields.expect("use_conv_bias", true);
  fields.ignore({"rescale_prenorm_residual", "residual_in_fp32", "time_step_floor",
                 "time_step_init_scheme", "time_step_max", "time_step_min", "time_step_scale"});
  return mixer;
}

/// Mamba in transformers.
[[gnu::cold]] inline Architecture mamba_of(ConfigFields& fields) {
  Architecture a{.family = "mamba"};
  a.d_model = fields.size("hidden_size");
  a.options.vocab_size = fields.size("vocab_size");
  a.options.tie_embeddings = fields.boolean("tie_word_embeddings", true);
  a.options.norm_eps = fields.real("layer_norm_epsilon", 1e-5f);
  const ArchitectureBranch mixer = mamba_branch(fields, a.d_model);
  fields.expect("hidden_act", "silu");
  fields.ignore({"use_associative_scan", "use_mambapy", "d_inner", "d_model", "fused_add_norm",
                 "n_layer", "rms_norm", "ssm_cfg", "pad_vocab_size_multiple"});
  a.branches.assign(static_cast<std::size_t>(fields.size("num_hidden_layers")), mixer);
  return a;
}

/// Mamba as its authors published it: no model_type; the vocabulary is padded in the weights.
[[gnu::cold]] inline Architecture original_mamba_of(ConfigFields& fields) {
  Architecture a{.family = "the original Mamba"};
  a.d_model = fields.size("d_model");
  const std::int64_t vocab = fields.size("vocab_size"),
                     multiple = fields.size("pad_vocab_size_multiple", 8);
  a.options.vocab_size = fields.as_size("vocab_size", round_up(vocab, multiple));
  a.options.tie_embeddings = fields.boolean("tie_embeddings", true);
  ArchitectureBranch mixer{.layer = ArchitectureBranch::mamba};
  mixer.d_state = 16;
  mixer.scan.dt_rank = (a.d_model + 15) / 16;
  if (const auto& ssm = fields.value("ssm_cfg"); !ssm.is_null()) {
    if (!ssm.is_object()) fields.refuse("ssm_cfg", "an object", ssm);
    for (const auto& [key, value] : ssm.items()) {
      if (key == "d_state")
        mixer.d_state = fields.as_size("ssm_cfg.d_state", value);
      else if (key == "d_conv")
        mixer.scan.d_conv = fields.as_size("ssm_cfg.d_conv", value);
      else if (key == "expand")
        mixer.scan.expand = fields.as_size("ssm_cfg.expand", value);
      else if (key != "layer" || value != "Mamba1")
        fields.refuse("ssm_cfg", "d_state, d_conv, expand or layer Mamba1", ssm);
    }
  }
  fields.expect("rms_norm", true);
  fields.expect("d_intermediate", 0);
  fields.expect("attn_layer_idx", nlohmann::json::array());
  fields.expect("attn_cfg", nlohmann::json::object());
  fields.ignore({"residual_in_fp32", "fused_add_norm"});
  a.branches.assign(static_cast<std::size_t>(fields.size("n_layer")), mixer);
  return a;
}

/// The public Samba code: blocks of a mixer and an MLP, or as mamba and mamba_swa_mlp say.
[[gnu::cold]] inline Architecture samba_of(ConfigFields& fields) {
  Architecture a{.family = "samba"};
  a.d_model = fields.size("n_embd");
  const int layers = fields.size("n_layer"), vocab = fields.size("vocab_size", 32000),
            multiple = fields.size("padding_multiple", 64);
  a.options.vocab_size = fields.size(
      "padded_vocab_size",
      fields.as_size("vocab_size", round_up(std::int64_t{vocab}, std::int64_t{multiple})));
  a.options.norm_eps = fields.real("norm_eps", 1e-5f);
  const bool only_mamba = fields.boolean("mamba", false);
  a.options.tie_embeddings = fields.boolean("mamba_init", false) || only_mamba;

  ArchitectureBranch mixer{.layer = ArchitectureBranch::mamba};
  ArchitectureBranch mlp{.layer = ArchitectureBranch::mlp};
  ArchitectureBranch full{.layer = ArchitectureBranch::attention};
  mixer.d_state = fields.size("d_state", 16);
  mixer.scan = {.d_conv = fields.size("d_conv", 4),
                .expand = fields.size("expand", 2),
                .dt_rank = fields.size("dt_rank", (a.d_model + 15) / 16)};
  AttentionOptions& heads = full.heads;
  heads.n_heads = fields.size("n_head", 1);
  heads.n_kv_heads = fields.size("n_query_groups", heads.n_heads);
  heads.head_dim = fields.size("head_size", (std::max)(1, a.d_model / heads.n_heads));
  heads.rope = !fields.boolean("nope", false);
  heads.rotary_fraction = fields.real("rotary_percentage", 1);
  heads.bias = mlp.bias = fields.boolean("bias", false);
  if (const std::string table = fields.text("rope_table", "exact"); table == "bfloat16")
    heads.rope_table = RopeTable::bfloat16;
  else if (table != "exact")
    fields.refuse("rope_table", "exact or bfloat16", table);
  const bool has_mlp = fields.boolean("mlp", true) && !only_mamba;
  if (has_mlp) mlp.d_ff = fields.size("intermediate_size");

  int window = 0;  // -1: none
  if (const auto& v = fields.value("local_window"); !v.is_null() && v != -1)
    window = fields.as_size("local_window", v);
  ArchitectureBranch local = full;
  local.window = window;
  const int full_per_layer = fields.size("full_per_layer", 1000000);
  int mamba_every = 0;  // -1: never
  if (const auto& v = fields.value("mb_per_layer"); !v.is_null() && v != -1)
    mamba_every = fields.as_size("mb_per_layer", v);
  const bool three = fields.boolean("mamba_swa_mlp", false);
  std::vector<int> attend;  // the blocks that do, if they are listed
  const std::string listed = fields.text("attn_layer_pos", "");
  if (!listed.empty())
    for (const auto& block :
         parse_json(listed, fields.source() + ": attn_layer_pos", "a list of blocks"))
      attend.push_back(block == 0 ? 0 : fields.as_size("attn_layer_pos", block));
  for (int i = 0; i < layers; ++i) {
    const bool in_window = window > 0 && i % full_per_layer < full_per_layer - 1;
    const ArchitectureBranch& attention = in_window ? local : full;
    const bool is_mamba = listed.empty()
                              ? mamba_every > 0 && i % mamba_every == 0
                              : std::find(attend.begin(), attend.end(), i) == attend.end();
    if (three && !only_mamba)
      a.branches.insert(a.branches.end(), {mixer, attention});
    else
      a.branches.push_back(only_mamba || is_mamba ? mixer : attention);
    if (has_mlp) a.branches.push_back(mlp);
  }
  fields.expect("condense_ratio", 1);
  fields.expect("parallel_residual", false);
  fields.expect("shared_attention_norm", false);
  fields.expect("_norm_class", "FusedRMSNorm");
  if (has_mlp) fields.expect("_mlp_class", "LLaMAMLP");
  fields.ignore({"_mlp_class", "name", "org", "block_size", "intermediate_size"});
  return a;
}

/// Sets the mixers of the blocks that one specification in flash-linear-attention's `attn` lists.
[[gnu::cold]] inline void read_fla_attention(const ConfigFields& fields, const std::string& name,
                                             const nlohmann::json& spec, int d_model,
                                             std::vector<ArchitectureBranch>& mixers) {
  if (!spec.is_object()) fields.refuse(name, "an object", spec);
  ArchitectureBranch attention{.layer = ArchitectureBranch::attention};
  AttentionOptions& heads = attention.heads;
  const nlohmann::json* layers = nullptr;
  for (const auto& [key, value] : spec.items()) {
    const std::string field = name + "." + key;
    if (key == "layers")
      layers = &value;
    else if (key == "num_heads")
      heads.n_heads = fields.as_size(field, value);
    else if (key == "num_kv_heads")
      heads.n_kv_heads = value.is_null() ? 0 : fields.as_size(field, value);
    else if (key == "window_size")  // counts the token itself, as here
      attention.window = value.is_null() ? 0 : fields.as_size(field, value);
    else if (key == "rope_theta")
      heads.rope_theta = fields.as_real(field, value);
    else if (key == "qkv_bias" && value.is_boolean())
      heads.qkv_bias = value.get<bool>();
    else
      fail({fields.source(), ": ", field, ": ", json_text(value), ": this field is not supported"});
  }
  if (heads.n_heads == 0 || d_model % heads.n_heads != 0)
    fields.refuse(name + ".num_heads", join({"a divisor of hidden_size, ", d_model}), spec);
  if (heads.n_kv_heads == 0) heads.n_kv_heads = heads.n_heads;
  if (heads.n_heads % heads.n_kv_heads != 0)
    fields.refuse(name + ".num_kv_heads", join({"a divisor of num_heads, ", heads.n_heads}), spec);
  if (!(heads.rope_theta > 0)) fields.refuse(name + ".rope_theta", "a positive number", spec);
  heads.head_dim = d_model / heads.n_heads;
  if (!layers || !layers->is_array())
    fields.refuse(name + ".layers", "a list of blocks", layers ? *layers : nlohmann::json());
  for (const auto& layer : *layers) {
    const int blocks = static_cast<int>(mixers.size());
    if (!layer.is_number_integer() || layer < 0 || layer >= blocks)
      fields.refuse(name + ".layers", join({"numbers from 0 to ", blocks - 1}), layer);
    ArchitectureBranch& mixer = mixers[layer.get<std::size_t>()];
    if (mixer.layer == ArchitectureBranch::attention)
      fields.refuse(name + ".layers", "each block once", layer);
    mixer = attention;
  }
}

/// Samba in flash-linear-attention: blocks of a mixer, Mamba or attention, and an MLP.
[[gnu::cold]] inline Architecture fla_samba_of(ConfigFields& fields) {
  Architecture a{.family = "samba"};
  a.d_model = fields.size("hidden_size");
  a.options.vocab_size = fields.size("vocab_size", 32000);
  a.options.tie_embeddings = fields.boolean("tie_word_embeddings", false);
  a.options.norm_eps = fields.real("norm_eps", 1e-5f);
  ArchitectureBranch mamba = mamba_branch(fields, a.d_model);
  ArchitectureBranch mlp{.layer = ArchitectureBranch::mlp};
  // Two thirds of hidden_ratio times the width, in steps of 256; intermediate_size is Mamba's.
  const std::int64_t ratio = fields.size("hidden_ratio", 4);
  mlp.d_ff = fields.as_size("hidden_ratio", round_up(ratio * a.d_model * 2 / 3, std::int64_t{256}));
  fields.expect("hidden_act", "swish");
  fields.expect("attnres_block_size", nullptr);
  fields.ignore({"fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy",
                 "use_l2warp"});

  const int blocks = fields.size("num_hidden_layers", 18);
  std::vector<ArchitectureBranch> mixers(static_cast<std::size_t>(blocks), mamba);
  const auto standard = nlohmann::json::parse(
      R"({"layers": [1, 3, 5, 7, 9, 11, 13, 15, 17], "num_heads": 18, "num_kv_heads": 18,
          "qkv_bias": false, "window_size": 2048, "rope_theta": 10000.0})");
  nlohmann::json attn = fields.has("attn") ? fields.value("attn") : standard;
  if (attn == standard) {  // of as many blocks as there are
    auto& layers = attn["layers"];
    while (!layers.empty() && layers.back() >= blocks) layers.erase(layers.size() - 1);
  }
  if (attn.is_array())
    for (std::size_t i = 0; i < attn.size(); ++i)
      read_fla_attention(fields, join({"attn[", i, "]"}), attn[i], a.d_model, mixers);
  else if (!attn.is_null())
    read_fla_attention(fields, "attn", attn, a.d_model, mixers);
  for (const ArchitectureBranch& mixer : mixers) a.branches.insert(a.branches.end(), {mixer, mlp});
  return a;
}

}  // namespace detail

/// The architecture that the text of a config.json describes. Known are the model types llama,
/// mistral, phi3, qwen3, gemma, gemma2, gemma3_text, recurrent_gemma and mamba of transformers, the
/// original Mamba, the public Samba code, and Samba in flash-linear-attention. Throws Error, naming
/// source, field and value, for other types and for fields that this library does not implement.
[[gnu::cold]] inline Architecture architecture_of_config(std::string_view text,
                                                         const std::string& source) {
  detail::ConfigFields fields(text, source);
  Architecture a;
  const std::string type = fields.text("model_type", "");
  constexpr std::string_view transformers[] = {"llama", "mistral", "phi3",       "qwen3",
                                               "gemma", "gemma2",  "gemma3_text"};
  if (std::find(std::begin(transformers), std::end(transformers), type) != std::end(transformers))
    a = detail::transformer_of(fields, type);
  else if (type == "recurrent_gemma")
    a = detail::recurrent_gemma_of(fields);
  else if (type == "mamba")
    a = detail::mamba_of(fields);
  else if (type.empty() && fields.has("ssm_cfg"))
    a = detail::original_mamba_of(fields);
  else if ((type.empty() || type == "samba") && fields.has("n_embd"))
    a = detail::samba_of(fields);
  else if (type == "samba" && fields.has("hidden_size"))
    a = detail::fla_samba_of(fields);
  else
    fields.refuse(
        "model_type",
        "llama, mistral, phi3, qwen3, gemma, gemma2, gemma3_text, recurrent_gemma, mamba or samba",
        type);
  fields.check_all_known();
  return a;
}

/// The architecture of the checkpoint at `path`: a folder with config.json, or a file beside one.
[[gnu::cold]] inline Architecture architecture_of(const std::string& path) {
  const std::string folder = is_directory(path) ? path + "/" : path.substr(0, path.rfind('/') + 1);
  const MappedFile file(folder + "config.json");
  return architecture_of_config(
      {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, file.path());
}

}  // namespace samba::inline SAMBA_TARGET
