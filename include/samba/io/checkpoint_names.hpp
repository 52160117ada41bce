#pragma once
/// \file
/// How the tensors of a model are called in checkpoint files. A format is data: see io/format, and
/// docs/checkpoints.md.
#include <samba/core/callback.hpp>
#include <samba/model/structure.hpp>

namespace samba::inline SAMBA_TARGET {

/// Rows [row, row + rows) of a tensor of the model are rows [file_row, file_row + rows) of tensor
/// `name` of a file, which has file_rows of them.
struct NamedRows {
  std::string name;
  std::int64_t row = 0, rows = 0, file_row = 0, file_rows = 0;
};

/// How a file has a tensor.
enum class StoredAs {
  whole,
  heads_apart  ///< of fused rows, grouped by key/value head: queries, keys and values in three tensors
};

/// What the tensors of a branch whose names begin with `from` are called instead.
struct TensorRule {
  std::string_view from;
  StoredAs stored = StoredAs::whole;
  std::string_view to[3] = {};  ///< one name, or those of queries, keys and values
};

/// A branch of a block: the layers that it may be, by name (none: any), and the prefixes of its norm and
/// of its layer (empty: the layer's name).
struct BranchRule {
  std::string_view layers[4] = {};
  std::string_view norm, layer = {};
};

/// A schedule of branches, block by block, that a format has names for.
struct ScheduleRule {
  std::size_t period = 1;
  BranchRule branches[3];
};

/// The rows of a table. (With -D_GLIBCXX_DEBUG g++ 12 makes no span of an array in a constant.)
template <class Rule>
class Rules {
 public:
  constexpr Rules() = default;
  template <std::size_t n>
  constexpr Rules(const Rule (&rules)[n]) : first_(rules), size_(n) {}
  constexpr const Rule* begin() const { return first_; }
  constexpr const Rule* end() const { return first_ + size_; }

 private:
  const Rule* first_ = nullptr;
  std::size_t size_ = 0;
};

/// A checkpoint format. Of its schedules the last that the model follows counts; the first is for all
/// models. A tensor is called `<block><number>.<prefix>.<name>`.
struct CheckpointFormat {
  std::string_view embedding, norm, head, block;
  Rules<ScheduleRule> schedules;
  Rules<TensorRule> tensors = {};
};

/// The names of a model's tensors in a checkpoint.
class CheckpointNaming {
 public:
  CheckpointNaming(const CheckpointFormat& format, std::vector<BranchInfo> branches)
      : format_(&format), branches_(std::move(branches)) {
    for (const ScheduleRule& schedule : format.schedules)
      if (schedule_ == nullptr || follows(schedule)) schedule_ = &schedule;
  }

  std::string_view embedding() const { return format_->embedding; }
  std::string_view head() const { return format_->head; }
  std::string_view norm() const { return format_->norm; }

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
    const std::string_view name = t.name;
    if (t.branch < 0) {
      whole.name = name == "embedding" ? embedding() : name == "norm" ? norm() : head();
      return f(whole);
    }
    const auto i = static_cast<std::size_t>(t.branch);
    const BranchInfo& branch = branches_[i];
    const BranchRule& rule = schedule_->branches[i % schedule_->period];
    const std::string block = detail::join({format_->block, i / schedule_->period, "."});
    if (t.said.of_branch) {  // "norm.weight", or of the norm behind the layer "norm_after.weight"
      const std::size_t dot = name.find('.');
      const std::string_view norm = name.substr(0, dot);
      whole.name = detail::join({block, norm == "norm" ? rule.norm : norm, name.substr(dot)});
      return f(whole);
    }
    const std::string prefix = detail::join(
        {block, rule.layer.empty() ? std::string_view(branch.layer) : rule.layer, "."});
    for (const TensorRule& tensor : format_->tensors) {
      if (!name.starts_with(tensor.from)) continue;
      const std::string_view rest = name.substr(tensor.from.size());
      if (tensor.stored == StoredAs::heads_apart) {
        if (branch.n_kv_heads == 0) continue;
        return heads_apart(prefix, tensor, rest, branch, f);
      }
      whole.name = detail::join({prefix, tensor.to[0], rest});
      return f(whole);
    }
    whole.name = prefix + std::string(name);
    f(whole);
  }

 private:
  [[gnu::cold]] bool follows(const ScheduleRule& schedule) const {
    if (branches_.size() % schedule.period != 0) return false;
    for (std::size_t i = 0; i < branches_.size(); ++i) {
      const BranchInfo& branch = branches_[i];
      const BranchRule& rule = schedule.branches[i % schedule.period];
      bool fits = rule.layers[0].empty();
      for (const std::string_view layer : rule.layers) fits = fits || layer == branch.layer;
      if (!fits || !branch.kind.empty() || branch.shared) return false;
    }
    return true;
  }

  [[gnu::cold]] static void heads_apart(const std::string& prefix, const TensorRule& rule,
                                        std::string_view rest, const BranchInfo& branch,
                                        Callback<const NamedRows&> f) {
    const std::int64_t head = branch.head_dim, kv_heads = branch.n_kv_heads;
    const std::int64_t q = branch.n_heads / kv_heads * head, group = q + 2 * head;
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      std::int64_t row = g * group;
      const auto part = [&](std::string_view name, std::int64_t rows) {
        f({detail::join({prefix, name, rest}), row, rows, g * rows, kv_heads * rows});
        row += rows;
      };
      part(rule.to[0], q);
      part(rule.to[1], head);
      part(rule.to[2], head);
    }
  }

  const CheckpointFormat* format_;
  std::vector<BranchInfo> branches_;
  const ScheduleRule* schedule_ = nullptr;
};

}  // namespace samba::inline SAMBA_TARGET
