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
}  // namespace detail

/// GGUF files with the architecture `llama`: Llama, Mistral, SmolLM2. Queries and keys are stored
/// for a rotation of adjacent pairs.
inline constexpr CheckpointFormat gguf_llama{.embedding = "token_embd.weight",
                                             .norm = "output_norm.weight",
                                             .head = "output.weight",
                                             .block = "blk.",
                                             .schedules = detail::gguf_schedules,
                                             .tensors = detail::gguf_llama_tensors};

}  // namespace samba::inline SAMBA_TARGET::formats
