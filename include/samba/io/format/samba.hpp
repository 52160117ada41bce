#pragma once
#include <samba/io/checkpoint_names.hpp>

namespace samba::inline SAMBA_TARGET::formats {

namespace detail {
inline constexpr ScheduleRule samba_schedules[] = {
    {1, {{{}, "norm"}}},  // any stack
    {2, {{{"mamba", "swa", "attention"}, "norm_1", "attn"}, {{"mlp"}, "norm_2", "mlp"}}},
    {3,
     {{{"mamba"}, "norm_m", "mb"},
      {{"swa", "attention"}, "norm_attn", "attn"},
      {{"mlp"}, "norm_2", "mlp"}}},
    {1, {{{"mamba"}, "norm", "mixer"}}},
};
}  // namespace detail

/// The public Samba code (github.com/microsoft/Samba), whose names follow from the schedule, and
/// every other stack in this library. Tensors have the names that the layers give them.
inline constexpr CheckpointFormat samba{.name = "samba",
                                        .embedding = "transformer.wte.weight",
                                        .norm = "transformer.ln_f.weight",
                                        .head = "lm_head.weight",
                                        .block = "transformer.h.",
                                        .schedules = detail::samba_schedules,
                                        .any_stack = true};

}  // namespace samba::inline SAMBA_TARGET::formats
