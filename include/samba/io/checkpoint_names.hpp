#pragma once
/// \file
/// How the tensors of a model are called in checkpoint files: the public Samba code's names, which
/// follow from the schedule, and those of flash-linear-attention (fla). See docs/checkpoints.md.
#include <samba/model/structure.hpp>

#include <algorithm>

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
  [[gnu::cold]] CheckpointNaming(CheckpointNames whose, std::vector<BranchInfo> branches)
      : whose_(whose), branches_(std::move(branches)) {
    const auto mamba = [](const BranchInfo& b) { return b.layer == "mamba"; };
    const auto attention = [](const BranchInfo& b) { return b.layer == "swa" || b.layer == "attention"; };
    const auto mlp = [](const BranchInfo& b) { return b.layer == "mlp"; };
    const auto repeats = [&](std::size_t period, auto&& fits) {
      bool ok = branches_.size() % period == 0;
      for (std::size_t i = 0; i < branches_.size(); ++i)
        ok = ok && branches_[i].normed && !branches_[i].shared && fits(i % period, branches_[i]);
      return ok;
    };
    if (repeats(1, [&](std::size_t, const BranchInfo& b) { return mamba(b); }))
      members_ = {{"norm", "mixer"}};
    else if (repeats(3, [&](std::size_t i, const BranchInfo& b) { return i == 0 ? mamba(b) : i == 1 ? attention(b) : mlp(b); }))
      members_ = {{"norm_m", "mb"}, {"norm_attn", "attn"}, {"norm_2", "mlp"}};
    else if (repeats(2, [&](std::size_t i, const BranchInfo& b) { return i == 0 ? mamba(b) || attention(b) : mlp(b); }))
      members_ = {{"norm_1", "attn"}, {"norm_2", "mlp"}};
  }

  std::string embedding() const {
    return whose_ == CheckpointNames::fla ? "backbone.embeddings.weight" : "transformer.wte.weight";
  }
  static std::string head() { return "lm_head.weight"; }
  std::string norm() const {
    return whose_ == CheckpointNames::fla ? "backbone.norm_f.weight" : "transformer.ln_f.weight";
  }

  /// What a branch is called in messages; "the model" for embedding, norm and head.
  std::string owner(int branch) const {
    return branch < 0 ? "the model" : branches_[static_cast<std::size_t>(branch)].text();
  }

  /// The file tensors that hold a tensor: one of the same shape, or parts of several.
  [[gnu::cold]] std::vector<NamedRows> operator()(const TensorInfo& t) const {
    const std::int64_t rows = t.shape[0];
    if (t.branch < 0) {
      const std::string name = t.name == "embedding" ? embedding() : t.name == "norm" ? norm() : head();
      return {{name, 0, rows, 0, rows}};
    }
    const auto i = static_cast<std::size_t>(t.branch);
    const BranchInfo& branch = branches_[i];
    const std::size_t period = std::max<std::size_t>(members_.size(), 1);
    const std::string block = detail::join(i / period, ".");
    const bool norm = t.name == "norm.weight";
    if (whose_ == CheckpointNames::fla) return fla(detail::join("backbone.layers.", block), branch, i % period, t);
    const Member member = members_.empty() ? Member{"norm", branch.layer} : members_[i % period];
    const std::string name = norm ? detail::join("transformer.h.", block, member.norm, ".weight")
                                  : detail::join("transformer.h.", block, member.layer, ".", t.name);
    return {{name, 0, rows, 0, rows}};
  }

 private:
  struct Member {
    std::string norm, layer;
  };

  /// fla has q, k and v apart; the fused rows here are grouped by key/value head.
  [[gnu::cold]] static std::vector<NamedRows> fla(const std::string& block, const BranchInfo& branch, std::size_t place,
                                    const TensorInfo& t) {
    const std::int64_t rows = t.shape[0];
    if (t.name == "norm.weight") return {{detail::join(block, place == 0 ? "mixer_norm.weight" : "mlp_norm.weight"), 0, rows, 0, rows}};
    if (t.name.starts_with("attn.")) {
      const std::string suffix = t.name.substr(4);
      const std::int64_t heads = branch.option("n_heads"), kv_heads = branch.option("n_kv_heads");
      const std::int64_t head = branch.option("head_dim"), q = heads / kv_heads * head, group = q + 2 * head;
      std::vector<NamedRows> parts;
      for (std::int64_t g = 0; g < kv_heads; ++g) {
        parts.push_back({detail::join(block, "mixer.q_proj", suffix), g * group, q, g * q, heads * head});
        parts.push_back({detail::join(block, "mixer.k_proj", suffix), g * group + q, head, g * head, kv_heads * head});
        parts.push_back({detail::join(block, "mixer.v_proj", suffix), g * group + q + head, head, g * head, kv_heads * head});
      }
      return parts;
    }
    std::string name = detail::join(t.name.starts_with("proj.") ? "mixer.o_" : "mixer.", t.name);
    const std::pair<std::string_view, const char*> mlp[] = {
        {"swiglu.w1.", "mlp.gate_proj."}, {"swiglu.w2.", "mlp.up_proj."}, {"swiglu.w3.", "mlp.down_proj."}};
    for (const auto& [ours, theirs] : mlp)
      if (t.name.starts_with(ours)) name = detail::join(theirs, t.name.substr(ours.size()));
    return {{detail::join(block, name), 0, rows, 0, rows}};
  }

  CheckpointNames whose_;
  std::vector<BranchInfo> branches_;
  std::vector<Member> members_;  // of a block of the public code; empty for any other schedule
};

}  // namespace samba::inline SAMBA_TARGET
