#pragma once
#include <samba/io/checkpoint_names.hpp>

namespace samba::inline SAMBA_TARGET::formats {

namespace detail {
inline constexpr ScheduleRule fla_schedules[] = {
    {2, {{{"mamba", "swa", "attention"}, "mixer_norm", "mixer"}, {{"mlp"}, "mlp_norm", "mlp"}}},
};
inline constexpr TensorRule fla_tensors[] = {
    {"attn.", StoredAs::heads_apart, {"q_proj.", "k_proj.", "v_proj."}},
    {"proj.", StoredAs::whole, {"o_proj."}},
    {"swiglu.w1.", StoredAs::whole, {"gate_proj."}},
    {"swiglu.w2.", StoredAs::whole, {"up_proj."}},
    {"swiglu.w3.", StoredAs::whole, {"down_proj."}},
};
}  // namespace detail

/// Samba in flash-linear-attention (github.com/fla-org/flash-linear-attention): alternating mixers
/// and MLPs.
inline constexpr CheckpointFormat fla{.name = "fla",
                                      .embedding = "backbone.embeddings.weight",
                                      .norm = "backbone.norm_f.weight",
                                      .head = "lm_head.weight",
                                      .block = "backbone.layers.",
                                      .schedules = detail::fla_schedules,
                                      .tensors = detail::fla_tensors};

}  // namespace samba::inline SAMBA_TARGET::formats
