#pragma once
/// \file
/// How the tensors of a model are called in checkpoint files: the public Samba code's names, which
/// follow from the schedule, and those of flash-linear-attention (fla). See docs/checkpoints.md.
#include <samba/core/callback.hpp>
#include <samba/model/structure.hpp>

namespace samba::inline SAMBA_TARGET {

/// Whose names a checkpoint uses.
enum class CheckpointNames { samba, fla };

/// Rows [row, row + rows) of a tensor of the model are rows [file_row, file_row + rows) of tensor
/// `name` of a file, which has file_rows of them.
struct NamedRows {
  std::string name;
  std::int64_t row = 0, rows = 0, file_row = 0, file_rows = 0;
};

/// The names of a model's tensors in a checkpoint.
class CheckpointNaming {
 public:
  CheckpointNaming(CheckpointNames whose, std::vector<BranchInfo> branches)
      : fla_(whose == CheckpointNames::fla), branches_(std::move(branches)) {
    for (const Schedule& schedule : schedules)
      if (follows(schedule)) schedule_ = &schedule;
  }

  const char* embedding() const {
    return fla_ ? "backbone.embeddings.weight" : "transformer.wte.weight";
  }
  static const char* head() { return "lm_head.weight"; }
  const char* norm() const { return fla_ ? "backbone.norm_f.weight" : "transformer.ln_f.weight"; }

  /// What a branch is called in messages; "the model" for embedding, norm and head.
  std::string owner(int branch) const {
    return branch < 0 ? "the model" : branches_[static_cast<std::size_t>(branch)].text();
  }

  /// The name of the file tensor that holds a tensor, or of the first that holds a part of it.
  [[gnu::cold]] std::string name(const TensorInfo& t) const {
    std::string first;
    parts(t, [&](const NamedRows& part) {
      if (first.empty()) first = part.name;
    });
    return first;
  }

  /// Calls f for each of the file tensors that hold a tensor: one of the same shape, or parts of
  /// several.
  [[gnu::cold]] void parts(const TensorInfo& t, Callback<const NamedRows&> f) const {
    NamedRows whole{"", 0, t.shape[0], 0, t.shape[0]};
    if (t.branch < 0) {
      whole.name = t.name == "embedding" ? embedding() : t.name == "norm" ? norm() : head();
      return f(whole);
    }
    const auto i = static_cast<std::size_t>(t.branch), period = schedule_->period;
    const BranchInfo& branch = branches_[i];
    const std::string block =
        detail::join({fla_ ? "backbone.layers." : "transformer.h.", i / period, "."});
    const std::string_view name = t.name;
    const bool is_norm = name == "norm.weight", is_norm_after = name.starts_with("norm_after.");
    if (!fla_) {
      const Member& member = schedule_->members[i % period];
      whole.name =
          is_norm ? detail::join({block, member.norm, ".weight"})
          : is_norm_after
              ? detail::join({block, name})
              : detail::join({block, member.layer ? member.layer : branch.layer, ".", name});
      return f(whole);
    }
    if (name.starts_with("attn.") && branch.n_kv_heads > 0)
      return fla_attention(block, branch, name.substr(4), f);
    const bool is_mlp = name.starts_with("swiglu.w") && name.size() > 8;
    constexpr const char* mlp[] = {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    if (is_norm)
      whole.name = detail::join({block, i % period == 0 ? "mixer_norm.weight" : "mlp_norm.weight"});
    else if (is_mlp && name[8] >= '1' && name[8] <= '3')
      whole.name = detail::join({block, mlp[name[8] - '1'], name.substr(9)});
    else
      whole.name = detail::join({block, name.starts_with("proj.") ? "mixer.o_" : "mixer.", name});
    f(whole);
  }

 private:
  struct Member {
    const char *norm, *layer;  // layer: null for the layer's own name
  };
  /// A block of the public code: which layers follow each other, one letter each, and what they are
  /// called. M: Mamba; A: attention; X: either; S: MLP; ?: anything.
  struct Schedule {
    std::size_t period;
    char layers[4];
    Member members[3];
  };
  static constexpr Schedule schedules[] = {
      {1, "?", {{"norm", nullptr}}},
      {2, "XS", {{"norm_1", "attn"}, {"norm_2", "mlp"}}},
      {3, "MAS", {{"norm_m", "mb"}, {"norm_attn", "attn"}, {"norm_2", "mlp"}}},
      {1, "M", {{"norm", "mixer"}}},
  };

  [[gnu::cold]] bool follows(const Schedule& schedule) const {
    if (schedule.layers[0] == '?') return true;
    bool fits = branches_.size() % schedule.period == 0;
    for (std::size_t i = 0; i < branches_.size(); ++i) {
      const BranchInfo& b = branches_[i];
      const std::string_view layer = b.layer;
      const char letter = layer == "mamba"                         ? 'M'
                          : layer == "swa" || layer == "attention" ? 'A'
                          : layer == "mlp"                         ? 'S'
                                                                   : '-';
      const char wanted = schedule.layers[i % schedule.period];
      fits = fits && b.kind.empty() && !b.shared &&
             (wanted == letter || (wanted == 'X' && (letter == 'M' || letter == 'A')));
    }
    return fits;
  }

  /// fla has q, k and v apart; the fused rows here are grouped by key/value head.
  [[gnu::cold]] static void fla_attention(const std::string& block, const BranchInfo& branch,
                                          std::string_view suffix, Callback<const NamedRows&> f) {
    const std::int64_t head = branch.head_dim, kv_heads = branch.n_kv_heads;
    const std::int64_t q = branch.n_heads / kv_heads * head, group = q + 2 * head;
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      f({detail::join({block, "mixer.q_proj", suffix}), g * group, q, g * q,
         branch.n_heads * head});
      f({detail::join({block, "mixer.k_proj", suffix}), g * group + q, head, g * head,
         kv_heads * head});
      f({detail::join({block, "mixer.v_proj", suffix}), g * group + q + head, head, g * head,
         kv_heads * head});
    }
  }

  bool fla_;
  std::vector<BranchInfo> branches_;
  const Schedule* schedule_ = nullptr;
};

}  // namespace samba::inline SAMBA_TARGET
