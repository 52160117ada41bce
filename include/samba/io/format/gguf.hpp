#pragma once
#include <samba/io/checkpoint_names.hpp>

namespace samba::inline SAMBA_TARGET::formats {

namespace detail {
inline constexpr ScheduleRule gguf_schedules[] = {
    {2, {{{"swa", "attention"}, "attn_norm", no_prefix}, {{"mlp"}, "ffn_norm", no_prefix}}},
};
inline constexpr TensorRule gguf_llama_tensors[] = {
    {"attn.", StoredAs::heads_apart_in_pairs, {"attn_q.", "attn_k.", "attn_v."}},
    {"proj.", StoredAs::whole, {"attn_output."}},
    {"swiglu.w1.", StoredAs::whole, {"ffn_gate."}},
    {"swiglu.w2.", StoredAs::whole, {"ffn_up."}},
    {"swiglu.w3.", StoredAs::whole, {"ffn_down."}},
};
inline constexpr ScheduleRule gguf_gemma3_schedules[] = {
    {2,
     {{{"swa", "attention"}, "attn_norm", no_prefix, "post_attention_norm"},
      {{"mlp"}, "ffn_norm", no_prefix, "post_ffw_norm"}}},
};
inline constexpr TensorRule gguf_gemma3_tensors[] = {
    {"attn.", StoredAs::heads_apart, {"attn_q.", "attn_k.", "attn_v."}},
    {"proj.", StoredAs::whole, {"attn_output."}},
    {"q_norm.", StoredAs::whole, {"attn_q_norm."}},
    {"k_norm.", StoredAs::whole, {"attn_k_norm."}},
    {"swiglu.w1.", StoredAs::whole, {"ffn_gate."}},
    {"swiglu.w2.", StoredAs::whole, {"ffn_up."}},
    {"swiglu.w3.", StoredAs::whole, {"ffn_down."}},
};
}  // namespace detail

/// GGUF files with the architecture `llama`: Llama, Mistral, SmolLM2. Queries and keys are stored
/// for a rotation of adjacent pairs. `rope_freqs.weight` is what rotary frequencies are divided by.
inline constexpr CheckpointFormat gguf_llama{.name = "gguf_llama",
                                             .embedding = "token_embd.weight",
                                             .norm = "output_norm.weight",
                                             .head = "output.weight",
                                             .block = "blk.",
                                             .schedules = detail::gguf_schedules,
                                             .tensors = detail::gguf_llama_tensors,
                                             .gguf = true,
                                             .no_weights = "rope_freqs.weight"};

/// Of the architecture `gemma3`. The scales of norms are stored, not their weights.
inline constexpr CheckpointFormat gguf_gemma3{.name = "gguf_gemma3",
                                              .embedding = "token_embd.weight",
                                              .norm = "output_norm.weight",
                                              .head = "output.weight",
                                              .block = "blk.",
                                              .schedules = detail::gguf_gemma3_schedules,
                                              .tensors = detail::gguf_gemma3_tensors,
                                              .norm_scales = true,
                                              .gguf = true};

}  // namespace samba::inline SAMBA_TARGET::formats
