#pragma once
#include <samba/io/checkpoint_names.hpp>

namespace samba::inline SAMBA_TARGET::formats {

namespace detail {
inline constexpr ScheduleRule llama_schedules[] = {
    {2,
     {{{"swa", "attention"}, "input_layernorm", "self_attn"},
      {{"mlp"}, "post_attention_layernorm", "mlp"}}},
};
inline constexpr ScheduleRule gemma2_schedules[] = {
    {2,
     {{{"swa", "attention"}, "input_layernorm", "self_attn", "post_attention_layernorm"},
      {{"mlp"}, "pre_feedforward_layernorm", "mlp", "post_feedforward_layernorm"}}},
};
inline constexpr ScheduleRule recurrent_gemma_schedules[] = {
    {2,
     {{{"recurrent", "swa", "attention"}, "temporal_pre_norm", "temporal_block"},
      {{"mlp"}, "channel_pre_norm", "mlp_block"}}},
};
inline constexpr TensorRule llama_tensors[] = {
    {"attn.", StoredAs::heads_apart, {"q_proj.", "k_proj.", "v_proj."}},
    {"proj.", StoredAs::whole, {"o_proj."}},
    {"q_norm.", StoredAs::whole, {"q_norm."}},
    {"k_norm.", StoredAs::whole, {"k_norm."}},
    {"swiglu.w1.", StoredAs::whole, {"gate_proj."}},
    {"swiglu.w2.", StoredAs::whole, {"up_proj."}},
    {"swiglu.w3.", StoredAs::whole, {"down_proj."}},
};
inline constexpr TensorRule phi3_tensors[] = {
    {"attn.", StoredAs::heads_in_order, {"qkv_proj."}},
    {"proj.", StoredAs::whole, {"o_proj."}},
    {"swiglu.w1.", StoredAs::first_half, {"gate_up_proj."}},
    {"swiglu.w2.", StoredAs::second_half, {"gate_up_proj."}},
    {"swiglu.w3.", StoredAs::whole, {"down_proj."}},
};
}  // namespace detail

/// Llama in transformers, and models with the same names (Mistral, SmolLM2, Qwen 3, Gemma):
/// alternating attention and MLPs.
inline constexpr CheckpointFormat llama{.name = "llama",
                                        .embedding = "model.embed_tokens.weight",
                                        .norm = "model.norm.weight",
                                        .head = "lm_head.weight",
                                        .block = "model.layers.",
                                        .schedules = detail::llama_schedules,
                                        .tensors = detail::llama_tensors};

/// Gemma 2 and 3 in transformers: like Llama, with norms before and after each layer.
inline constexpr CheckpointFormat gemma2{.name = "gemma2",
                                         .embedding = "model.embed_tokens.weight",
                                         .norm = "model.norm.weight",
                                         .head = "lm_head.weight",
                                         .block = "model.layers.",
                                         .mark = "model.layers.0.pre_feedforward_layernorm.weight",
                                         .schedules = detail::gemma2_schedules,
                                         .tensors = detail::llama_tensors};

/// RecurrentGemma in transformers.
inline constexpr CheckpointFormat recurrent_gemma{.name = "recurrent_gemma",
                                                  .embedding = "model.embed_tokens.weight",
                                                  .norm = "model.final_norm.weight",
                                                  .head = "lm_head.weight",
                                                  .block = "model.layers.",
                                                  .mark = "model.final_norm.weight",
                                                  .schedules = detail::recurrent_gemma_schedules,
                                                  .tensors = detail::llama_tensors};

/// Phi-3 in transformers: like Llama, with fused projections.
inline constexpr CheckpointFormat phi3{.name = "phi3",
                                       .embedding = "model.embed_tokens.weight",
                                       .norm = "model.norm.weight",
                                       .head = "lm_head.weight",
                                       .block = "model.layers.",
                                       .mark = "model.layers.0.self_attn.qkv_proj.weight",
                                       .schedules = detail::llama_schedules,
                                       .tensors = detail::phi3_tensors};

}  // namespace samba::inline SAMBA_TARGET::formats
