// config.json and architectures: published configurations against the presets and the numbers of
// parameters that transformers makes of them, golden cases, and what is refused.
#include <samba/io/config.hpp>
#include <samba/model/published.hpp>

#include <utility>

#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

using Json = nlohmann::json;

/// Calls f(name, std::type_identity<preset>) for every preset with a published configuration.
template <class F>
void each_published(F f) {
  using namespace presets;
  f("SmolLM2_135M", std::type_identity<SmolLM2_135M>{});
  f("SmolLM2_360M", std::type_identity<SmolLM2_360M>{});
  f("SmolLM2_1_7B", std::type_identity<SmolLM2_1_7B>{});
  f("Llama2_7B", std::type_identity<Llama2_7B>{});
  f("Llama2_13B", std::type_identity<Llama2_13B>{});
  f("Llama3_8B", std::type_identity<Llama3_8B>{});
  f("Llama3_1_8B", std::type_identity<Llama3_1_8B>{});
  f("Llama3_2_1B", std::type_identity<Llama3_2_1B>{});
  f("Llama3_2_3B", std::type_identity<Llama3_2_3B>{});
  f("Mistral_7B", std::type_identity<Mistral_7B>{});
  f("Phi3Mini_4K", std::type_identity<Phi3Mini_4K>{});
  f("Gemma_2B", std::type_identity<Gemma_2B>{});
  f("Gemma_7B", std::type_identity<Gemma_7B>{});
  f("Gemma3_270M", std::type_identity<Gemma3_270M>{});
  f("Gemma3_1B", std::type_identity<Gemma3_1B>{});
  f("RecurrentGemma_2B", std::type_identity<RecurrentGemma_2B>{});
  f("PileMamba_130M", std::type_identity<PileMamba_130M>{});
  f("PileMamba_370M", std::type_identity<PileMamba_370M>{});
  f("PileMamba_790M", std::type_identity<PileMamba_790M>{});
  f("PileMamba_1_4B", std::type_identity<PileMamba_1_4B>{});
  f("PileMamba_2_8B", std::type_identity<PileMamba_2_8B>{});
}

Json published() { return Json::parse(read_file(data_path("published.json"))).at("models"); }

template <class Model>
void check_golden() {
  CAPTURE(Model::folder);
  const Architecture a = architecture_of(golden::path<Model>(""));
  CHECK(a.structure() == structure<Model>());
  CHECK(a.parameters() == Model::parameters);
  check_architecture<Model>("config.json", a);
}

/// The message for llama3-tiny's configuration with a field set to another value.
std::string message_with(const char* field, const Json& value) {
  Json config = Json::parse(read_file(golden::path<golden::Llama3>("config.json")));
  config[field] = value;
  const std::string message =
      message_of([&] { architecture_of_config(config.dump(), "a/config.json"); });
  CHECK(message.starts_with("a/config.json: "));
  return message;
}

}  // namespace

TEST_CASE("config: the presets are what published configurations say") {
  const Json models = published();
  std::size_t seen = 0;
  each_published([&]<class Model>(const char* name, std::type_identity<Model>) {
    CAPTURE(name);
    ++seen;
    const Json& row = models.at(name);
    const Architecture a = architecture_of_config(row.at("config").dump(), name);
    CHECK(a.structure() == structure<Model>());
    CHECK(a.parameters() == Model::parameters);
    CHECK(row.at("parameters") == Model::parameters);
  });
  CHECK(seen == models.size());
}

TEST_CASE("config: golden cases") {
  check_golden<golden::Llama2>();
  check_golden<golden::Llama3>();
  check_golden<golden::Llama31>();
  check_golden<golden::Mistral>();
  check_golden<golden::Phi3>();
  check_golden<golden::Gemma>();
  check_golden<golden::Gemma2>();
  check_golden<golden::Gemma3>();
  check_golden<golden::Gemma3Linear>();
  check_golden<golden::Qwen3>();
  check_golden<golden::RecurrentGemma>();
  check_golden<golden::MambaTiny>();
  check_golden<golden::SambaTiny>();
  check_golden<golden::SambaOdd>();
  check_golden<golden::SambaBias>();
  check_golden<golden::SambaNope>();
  check_golden<golden::SambaBf16Rope>();
  check_golden<golden::MambaSwaMlp>();
  check_golden<golden::MambaMlp>();
  check_golden<golden::SwaMlp>();
  check_golden<golden::MambaOnly>();
  CHECK(architecture_of(SAMBA_DEMO_MODEL).structure() == structure<DemoModel>());
}

TEST_CASE("config: the original Mamba") {
  constexpr const char* text =
      R"({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true,
          "residual_in_fp32": true, "fused_add_norm": true, "pad_vocab_size_multiple": 8})";
  CHECK(architecture_of_config(text, "config.json").structure() ==
        structure<presets::PileMamba_130M>());
  CHECK_MESSAGE_OF(architecture_of_config(R"({"d_model": 768, "n_layer": 24, "vocab_size": 50277,
                                              "ssm_cfg": {"layer": "Mamba2"}})",
                                          "config.json"),
                   "config.json: ssm_cfg: expected", "layer Mamba1", R"({"layer":"Mamba2"})");
}

TEST_CASE("config: Samba in flash-linear-attention") {
  // As this library writes the configuration of its defaults, with tied embeddings.
  const Json defaults = Json::parse(R"({
    "architectures": ["SambaForCausalLM"], "model_type": "samba", "transformers_version": "5.24.0",
    "hidden_size": 2304, "state_size": 16, "num_hidden_layers": 18, "norm_eps": 1e-05,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "expand": 2, "conv_kernel": 4,
    "use_bias": false, "use_conv_bias": true, "hidden_act": "swish", "initializer_range": 0.02,
    "residual_in_fp32": false, "time_step_rank": 144, "time_step_scale": 1.0,
    "time_step_min": 0.001, "time_step_max": 0.1, "time_step_init_scheme": "random",
    "time_step_floor": 0.0001, "max_position_embeddings": 2048, "intermediate_size": 4608,
    "attn": {"layers": [1, 3, 5, 7, 9, 11, 13, 15, 17], "num_heads": 18, "num_kv_heads": 18,
             "qkv_bias": false, "window_size": 2048, "rope_theta": 10000.0},
    "hidden_ratio": 4, "rescale_prenorm_residual": false, "use_cache": true, "fuse_norm": true,
    "fuse_swiglu": true, "fuse_cross_entropy": true, "fuse_linear_cross_entropy": false,
    "use_l2warp": false, "vocab_size": 32000, "tie_word_embeddings": true,
    "attnres_block_size": null})");
  const auto read = [](const Json& config) { return architecture_of_config(config.dump(), "c"); };
  CHECK(read(defaults).structure() == structure<presets::Samba1_3B>());
  CHECK(read(defaults).parameters() == presets::Samba1_3B::parameters);
  CHECK(read({{"model_type", "samba"}, {"hidden_size", 2304}, {"tie_word_embeddings", true}})
            .structure() == structure<presets::Samba1_3B>());

  // Two kinds of attention, one without a window; sizes that are no defaults.
  struct Small
      : LanguageModel<
            HybridStack<
                Mamba<64, 8, MambaOptions{.d_conv = 3, .expand = 3, .dt_rank = 5}>, SwiGLU<64, 256>,
                SWA<7,
                    AttentionOptions{
                        .n_heads = 4, .n_kv_heads = 2, .rope_theta = 5000, .qkv_bias = true}>,
                SwiGLU<64, 256>, Attention<AttentionOptions{.n_heads = 2}>, SwiGLU<64, 256>>,
            ModelOptions{.vocab_size = 50, .norm_eps = 1e-6f}> {};
  const Json windowed = {{"layers", {1}},    {"num_heads", 4},   {"num_kv_heads", 2},
                         {"qkv_bias", true}, {"window_size", 7}, {"rope_theta", 5000.0}},
             full = {{"layers", {2}},
                     {"num_heads", 2},
                     {"num_kv_heads", nullptr},
                     {"window_size", nullptr}};
  const Json small = {{"model_type", "samba"}, {"hidden_size", 64},       {"vocab_size", 50},
                      {"state_size", 8},       {"conv_kernel", 3},        {"expand", 3},
                      {"time_step_rank", 5},   {"norm_eps", 1e-6},        {"num_hidden_layers", 3},
                      {"hidden_ratio", 6},     {"attn", {windowed, full}}};
  CHECK(read(small).structure() == structure<Small>());
  CHECK(read(small).parameters() == Small::parameters);
  const auto structure_with = [&](const char* field, const Json& value) {
    Json config = small;
    config[field] = value;
    return read(config).structure();
  };
  CHECK(structure_with("hidden_ratio", 7).find("mlp(d_ff=512,") != std::string::npos);  // of 298
  CHECK(structure_with("time_step_rank", "auto").find("dt_rank=4)") != std::string::npos);
  CHECK(structure_with("attn", nullptr).find("swa") == std::string::npos);
  Json shallow = defaults;
  shallow["num_hidden_layers"] = 4;  // earlier versions wrote the layers of 18 blocks
  CHECK(read(shallow).branches.size() == 8);
  CHECK(read(shallow).branches[6].heads.n_heads == 18);

  const auto refused = [&](const char* field, const Json& value) {
    Json config = small;
    config[field] = value;
    return message_of([&] { read(config); });
  };
  CHECK(refused("hidden_act", "powlu") == "c: hidden_act: expected \"swish\", found \"powlu\"");
  CHECK(refused("attnres_block_size", 2) == "c: attnres_block_size: expected null, found 2");
  CHECK(refused("use_bias", true) == "c: use_bias: expected false, found true");
  CHECK(refused("use_conv_bias", false) == "c: use_conv_bias: expected true, found false");
  CHECK(refused("intermediate_size", 200) == "c: intermediate_size: expected 192, found 200");
  CHECK(refused("hidden_ratio", 2.5) ==
        "c: hidden_ratio: expected a number from 1 to 2147483647, found 2.5");
  CHECK(refused("num_experts", 8) == "c: num_experts: 8: this field is not supported");
  CHECK(refused("attn", 3) == "c: attn: expected an object, found 3");
  const auto attention = [&](const char* field, const Json& value) {
    Json spec = windowed;
    spec[field] = value;
    return refused("attn", spec);
  };
  CHECK(attention("qk_norm", true) == "c: attn.qk_norm: true: this field is not supported");
  CHECK(attention("qkv_bias", 1) == "c: attn.qkv_bias: 1: this field is not supported");
  CHECK(attention("num_heads", 5)
            .starts_with("c: attn.num_heads: expected a divisor of hidden_size, 64, found {"));
  CHECK(attention("num_kv_heads", 3)
            .starts_with("c: attn.num_kv_heads: expected a divisor of num_heads, 4, found {"));
  CHECK(attention("window_size", 0) ==
        "c: attn.window_size: expected a number from 1 to 2147483647, found 0");
  CHECK(attention("rope_theta", -1)
            .starts_with("c: attn.rope_theta: expected a positive number, found {"));
  CHECK(attention("layers", 1) == "c: attn.layers: expected a list of blocks, found 1");
  CHECK(attention("layers", {1, 3}) == "c: attn.layers: expected numbers from 0 to 2, found 3");
  CHECK(attention("layers", {1, "2"}) ==
        "c: attn.layers: expected numbers from 0 to 2, found \"2\"");
  CHECK(attention("layers", {1, 1}) == "c: attn.layers: expected each block once, found 1");
  CHECK(refused("attn", {windowed, windowed}) ==
        "c: attn[1].layers: expected each block once, found 1");
  CHECK_MESSAGE_OF(read({{"model_type", "samba"}}), "c: model_type: expected llama");
}

TEST_CASE("config: linear scaling of positions") {
  Json config = Json::parse(read_file(golden::path<golden::Llama3>("config.json")));
  const auto structure_with = [&](const char* field, const Json& value) {
    config[field] = value;
    return architecture_of_config(config.dump(), "config.json").structure();
  };
  struct Scaled
      : LanguageModel<Repeat<2, HybridStack<Attention<AttentionOptions{.n_heads = 4,
                                                                       .n_kv_heads = 2,
                                                                       .rope_theta = 500000,
                                                                       .rope_linear_factor = 2.5f}>,
                                            SwiGLU<64, 112>>>,
                      golden::untied(128)> {};
  config.erase("rope_parameters");
  CHECK(structure_with("rope_scaling", {{"type", "linear"}, {"factor", 2.5}}) ==
        structure<Scaled>());
  CHECK(structure_with("rope_scaling", {{"rope_type", "linear"}, {"factor", 2.5}}) ==
        structure<Scaled>());
  CHECK(structure_with("rope_scaling", {{"rope_type", "linear"}, {"factor", 1}}) ==
        structure<golden::Llama3>());
  CHECK(structure_with("rope_scaling", nullptr) == structure<golden::Llama3>());
  CHECK_MESSAGE_OF(
      check_architecture<Scaled>("file", architecture_of(golden::path<golden::Llama3>(""))),
      "file: branch 0, attention: rope_linear_factor: expected 2.5 by the model, found none");

  // Earlier configurations of Gemma 3 have one rope_scaling, for the layers without a window.
  config = Json::parse(read_file(golden::path<golden::Gemma3Linear>("config.json")));
  config.erase("rope_parameters");
  config["rope_theta"] = 1000000.0;
  config["rope_local_base_freq"] = 10000.0;
  CHECK(structure_with("rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}) ==
        structure<golden::Gemma3Linear>());
}

TEST_CASE("config: fields that are not understood are named with their values") {
  CHECK(message_with("logit_scale", 0.5) ==
        "a/config.json: logit_scale: 0.5: this field is not supported");
  CHECK(message_with("model_type", "gpt2") ==
        "a/config.json: model_type: expected llama, mistral, phi3, qwen3, gemma, gemma2, "
        "gemma3_text, "
        "recurrent_gemma, mamba or samba, found \"gpt2\"");
  CHECK(message_with("hidden_act", "relu") ==
        "a/config.json: hidden_act: expected silu, gelu or gelu_pytorch_tanh, found \"relu\"");
  CHECK(message_with("hidden_size", 0) ==
        "a/config.json: hidden_size: expected a number from 1 to 2147483647, found 0");
  CHECK(message_with("hidden_size", nullptr) ==
        "a/config.json: hidden_size: expected a number from 1 to 2147483647, found null");
  CHECK(message_with("hidden_size", 1e300).starts_with("a/config.json: hidden_size: expected"));
  CHECK(message_with("rms_norm_eps", "small") ==
        "a/config.json: rms_norm_eps: expected a number, found \"small\"");
  CHECK(message_with("attention_bias", 1) ==
        "a/config.json: attention_bias: expected true or false, found 1");
  CHECK(message_with("pretraining_tp", 2) == "a/config.json: pretraining_tp: expected 1, found 2");
  const std::string ropes =
      "a/config.json: rope_scaling: expected rope_type default, linear with factor, or llama3 with "
      "factor and original_max_position_embeddings, found ";
  const auto rope = [](const Json& value) { return message_with("rope_scaling", value); };
  CHECK(rope({{"rope_type", "yarn"}}) == ropes + R"({"rope_type":"yarn"})");
  CHECK(rope({{"type", "linear"}}) == ropes + R"({"type":"linear"})");
  CHECK(rope({{"type", "linear"}, {"factor", 0}}) == ropes + R"({"factor":0,"type":"linear"})");
  CHECK(rope({{"rope_type", "llama3"}, {"factor", 8}}) ==
        ropes + R"({"factor":8,"rope_type":"llama3"})");
  CHECK(
      rope({{"rope_type", "llama3"}, {"original_max_position_embeddings", 64}}).starts_with(ropes));
  CHECK(message_with("rope_scaling", {{"rope_type", "default"}, {"beta_fast", 32}}) ==
        "a/config.json: rope_scaling.beta_fast: 32: this field is not supported");
  CHECK(message_with("layer_types", {"full_attention"})
            .starts_with("a/config.json: layer_types: expected a list of 2 layers, found"));
  CHECK(message_with("layer_types", {"full_attention", "linear_attention"}) ==
        "a/config.json: layer_types: expected full_attention or sliding_attention, found "
        "\"linear_attention\"");
  CHECK(message_with("layer_types", {"full_attention", "sliding_attention"})
            .starts_with(
                "a/config.json: sliding_window: expected a number, as layers have a window"));
  CHECK_MESSAGE_OF(architecture_of_config("[1]", "c"),
                   "c: the file: expected an object, found [1]");
  CHECK_MESSAGE_OF(architecture_of_config("{", "c"), "c: expected a config.json", "parser says");
  CHECK_MESSAGE_OF(architecture_of_config(R"({"a": 1, "a": 2})", "c"), "c: duplicate key \"a\"");
  CHECK_MESSAGE_OF(architecture_of("/nowhere"), "config.json");
}

TEST_CASE("architectures: the first option in which a model differs is named") {
  const Architecture llama3 = architecture_of(golden::path<golden::Llama3>(""));
  const auto message = [&]<class Model>(std::type_identity<Model>) {
    return message_of([&] { check_architecture<Model>("file", llama3); });
  };
  CHECK(message(std::type_identity<golden::Llama31>{}) ==
        "file: tie_embeddings: expected true by the model, found false");
  struct Longer
      : LanguageModel<Repeat<3, HybridStack<Attention<golden::heads_4_2>, SwiGLU<64, 112>>>,
                      golden::untied(128)> {};
  CHECK(message(std::type_identity<Longer>{}) ==
        "file: branches: expected 6 by the model, found 4");
  CHECK(message(std::type_identity<golden::Mistral>{}) ==
        "file: branch 0: expected swa by the model, found attention");
  struct OtherBase
      : LanguageModel<Repeat<2, HybridStack<Attention<golden::heads_4_2>, SwiGLU<64, 112>>>,
                      golden::untied(128)> {};
  CHECK(message(std::type_identity<OtherBase>{}) ==
        "file: branch 0, attention: rope_theta: expected 10000 by the model, found 5e+05");
  struct Gelu : LanguageModel<
                    Repeat<2, HybridStack<Attention<AttentionOptions{
                                              .n_heads = 4, .n_kv_heads = 2, .rope_theta = 500000}>,
                                          GeGLU<64, 112>>>,
                    golden::untied(128)> {};
  CHECK(message(std::type_identity<Gelu>{}) ==
        "file: branch 1, mlp: gate: expected gelu_tanh by the model, found none");
}
