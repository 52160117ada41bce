#pragma once
#include <samba/io/checkpoint_names.hpp>

namespace samba::inline SAMBA_TARGET::formats {

namespace detail {
inline constexpr ScheduleRule mamba_schedules[] = {{1, {{{"mamba"}, "norm", "mixer"}}}};
}  // namespace detail

/// Mamba in transformers: a mixer in every block.
inline constexpr CheckpointFormat mamba{.name = "mamba",
                                        .embedding = "backbone.embeddings.weight",
                                        .norm = "backbone.norm_f.weight",
                                        .head = "lm_head.weight",
                                        .block = "backbone.layers.",
                                        .mark = "backbone.layers.0.norm.weight",
                                        .schedules = detail::mamba_schedules};

/// Mamba as its authors published it (github.com/state-spaces/mamba).
inline constexpr CheckpointFormat original_mamba{.name = "original_mamba",
                                                 .embedding = "backbone.embedding.weight",
                                                 .norm = "backbone.norm_f.weight",
                                                 .head = "lm_head.weight",
                                                 .block = "backbone.layers.",
                                                 .mark = "backbone.embedding.weight",
                                                 .schedules = detail::mamba_schedules};

}  // namespace samba::inline SAMBA_TARGET::formats
