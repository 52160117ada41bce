#pragma once
/// \file
/// The names of a model's tensors in checkpoint files. A format is data: see io/format, and
/// docs/checkpoints.md.
#include <samba/core/callback.hpp>
#include <samba/model/structure.hpp>

namespace samba::inline SAMBA_TARGET {

/// Row row + i of a tensor of the model, i < rows, is row file_row + i * file_step of tensor `name`
/// in a file, which has file_rows rows; of a vector, plus `add`.
struct NamedRows {
  std::string name;
  std::int64_t row = 0, rows = 0, file_row = 0, file_rows = 0, file_step = 1;
  float add = 0;
};

/// How a file stores a tensor. In this library, fused rows of attention are grouped by key/value
/// head: its query heads, its key head, its value head.
enum class StoredAs {
  whole,
  heads_apart,  ///< queries, keys and values in three tensors
  /// The same, with the halves of each query and key head interleaved (rows 0, n, 1, n + 1, ... of
  /// a head of 2 n), for a rotation of adjacent pairs, as in GGUF files of Llama.
  heads_apart_in_pairs,
  heads_in_order,  ///< one tensor: all queries, then all keys, then all values
  first_half,      ///< the first half of the rows of a tensor
  second_half      ///< the second half
};

/// Renames the tensors of a branch whose names begin with `from`.
struct TensorRule {
  std::string_view from;
  StoredAs stored = StoredAs::whole;
  std::string_view to[3] = {};  ///< one prefix, or those of queries, keys and values
};

/// The prefix for layers whose tensors have none within their block.
inline constexpr std::string_view no_prefix = "/";

/// A branch of a block: the names of the layers that it may contain (none: any), and the prefixes
/// of its norm and its layer (empty: the layer's name; or no_prefix); and, for a sandwich, of the norm
/// after the layer (empty: "norm_after").
struct BranchRule {
  std::string_view layers[4] = {};
  std::string_view norm, layer = {}, norm_after = {};
};

/// A schedule of branches, block by block, for which a format has names.
struct ScheduleRule {
  std::size_t period = 1;
  BranchRule branches[3];
};

/// The rows of a table. (With -D_GLIBCXX_DEBUG, g++ 12 cannot make a span of an array in a constant
/// expression.)
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

/// A checkpoint format. The last of its schedules that the model follows applies, or else the first
/// one. A tensor is called `<block><number>.<prefix>.<name>`. A file has this format if it contains
/// the tensor `mark` or, if that is not given, the embedding or the norm.
struct CheckpointFormat {
  std::string_view name;  ///< in messages and options of programs
  std::string_view embedding, norm, head, block;
  std::string_view mark = {};
  Rules<ScheduleRule> schedules;
  Rules<TensorRule> tensors = {};
  bool norm_scales = false;          ///< norms with plus_one are stored as 1 + weight
  bool any_stack = false;            ///< the first schedule has names for every model
  bool gguf = false;                 ///< of GGUF files, which are not written
  std::string_view no_weights = {};  ///< a tensor that files may have and that holds no weights
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
  std::string_view no_weights() const { return format_->no_weights; }

  /// The name of a branch in messages; "the model" for embedding, norm and head.
  std::string owner(int branch) const {
    return branch < 0 ? "the model" : branches_[static_cast<std::size_t>(branch)].text();
  }

  /// The name of the file's tensor that holds a tensor, or of the first one that holds a part of
  /// it.
  [[gnu::cold]] std::string name(const TensorInfo& t) const {
    std::string first;
    parts(t, [&](const NamedRows& part) {
      if (first.empty()) first = part.name;
    });
    return first;
  }

  /// Throws Error, beginning with `who`, if files of this format are not written, or have no names for
  /// the branches of this model. structure: of the model.
  [[gnu::cold]] void check_branches(std::string_view who, const std::string& structure) const {
    if (format_->gguf)
      fail({who, ": the format ", format_->name, " is of GGUF files, which are not written"});
    if (format_->any_stack) return;
    const std::string fit = does_not_fit(who, structure);
    const std::size_t period = schedule_->period;
    for (std::size_t i = 0; i < branches_.size(); ++i) {
      const BranchRule& rule = schedule_->branches[i % period];
      if (fits(branches_[i], rule)) continue;
      std::string expected;
      for (const std::string_view layer : rule.layers)
        if (!layer.empty()) detail::append(expected, {expected.empty() ? "" : " or ", layer});
      fail({fit, "branch ", i, ": expected ", expected,
            rule.norm_after.empty() ? " with a norm before it" : " with norms before and after it",
            " and weights of its own, found ", owner(static_cast<int>(i)),
            branches_[i].shared ? " with shared weights" : ""});
    }
    if (branches_.size() % period != 0)
      fail({fit, "expected a multiple of ", period, " branches, found ", branches_.size()});
  }

  /// Throws Error if the format has no name for a tensor. Its rules list those of attention and MLPs;
  /// other layers keep their own names.
  [[gnu::cold]] void check_name(std::string_view who, const std::string& structure,
                                const TensorInfo& t) const {
    if (format_->any_stack) return;
    bool named = t.branch < 0 ? t.name != "norm_bias"
                              : t.attributes.of_branch && t.name.ends_with(".weight");
    if (t.branch >= 0 && !t.attributes.of_branch) {
      const BranchInfo& branch = branches_[static_cast<std::size_t>(t.branch)];
      named = branch.n_kv_heads == 0 && std::string_view(branch.layer) != "mlp";
      for (const TensorRule& rule : format_->tensors)
        named = named || t.name.starts_with(rule.from);
    }
    if (named) return;
    const std::string branch = t.branch < 0 ? "" : detail::join({"branch ", t.branch, ", "});
    fail({does_not_fit(who, structure), branch, owner(t.branch),
          ": there is no name for its tensor ", t.name});
  }

  /// Calls f for each of the file's tensors that hold a tensor: one of the same shape, or parts of
  /// several.
  [[gnu::cold]] void parts(const TensorInfo& t, Callback<const NamedRows&> f) const {
    NamedRows whole{"", 0, t.shape[0], 0, t.shape[0]};
    if (format_->norm_scales && t.attributes.less_one) whole.add = -1;
    const std::string_view name = t.name;
    if (t.branch < 0) {
      const std::string_view last = norm();
      if (name == "norm_bias")  // the name of the bias beside a weight
        detail::append(whole.name, {last.substr(0, last.rfind('.')), ".bias"});
      else
        detail::append(whole.name, {name == "embedding" ? embedding()
                                    : name == "norm"    ? last
                                                        : head()});
      return f(whole);
    }
    const auto i = static_cast<std::size_t>(t.branch);
    const BranchInfo& branch = branches_[i];
    const BranchRule& rule = schedule_->branches[i % schedule_->period];
    detail::append(whole.name, {format_->block, i / schedule_->period, "."});
    std::string_view to, rest = name;
    if (t.attributes.of_branch) {  // "norm.weight", or "norm_after.weight" after the layer
      rest = name.substr(name.find('.'));
      to = name.substr(0, name.size() - rest.size());
      to = to == "norm"                                     ? rule.norm
           : to == "norm_after" && !rule.norm_after.empty() ? rule.norm_after
                                                            : to;
    } else {
      if (rule.layer != no_prefix)
        detail::append(whole.name, {rule.layer.empty() ? branch.layer : rule.layer, "."});
      for (const TensorRule& tensor : format_->tensors) {
        if (!name.starts_with(tensor.from)) continue;
        const bool second_half = tensor.stored == StoredAs::second_half;
        if (second_half || tensor.stored == StoredAs::first_half) {
          whole.file_rows = 2 * whole.rows;
          if (second_half) whole.file_row = whole.rows;
        } else if (tensor.stored != StoredAs::whole) {
          if (branch.n_kv_heads == 0) continue;
          return fused_heads(whole.name, tensor, name.substr(tensor.from.size()), branch, f);
        }
        to = tensor.to[0];
        rest = name.substr(tensor.from.size());
        break;
      }
    }
    detail::append(whole.name, {to, rest});
    f(whole);
  }

 private:
  [[gnu::cold]] bool follows(const ScheduleRule& schedule) const {
    if (branches_.size() % schedule.period != 0) return false;
    for (std::size_t i = 0; i < branches_.size(); ++i)
      if (!fits(branches_[i], schedule.branches[i % schedule.period])) return false;
    return true;
  }

  /// True if a rule has names for a branch: for its layer and its norms.
  [[gnu::cold]] bool fits(const BranchInfo& branch, const BranchRule& rule) const {
    bool fits = rule.layers[0].empty();
    for (const std::string_view layer : rule.layers) fits = fits || layer == branch.layer;
    const std::string_view kind = branch.kind, stem = kind.substr(0, kind.find_first_of("(:"));
    const bool normed = format_->any_stack        ? kind.empty()
                        : rule.norm_after.empty() ? stem.empty() || stem == "pre"
                                                  : stem == "sandwich";
    return fits && normed && !branch.shared;
  }

  [[gnu::cold]] std::string does_not_fit(std::string_view who, const std::string& structure) const {
    return detail::join(
        {who, ": the format ", format_->name, " does not fit the model ", structure, ": "});
  }

  /// The parts of rows that this library fuses.
  [[gnu::cold]] static void fused_heads(const std::string& prefix, const TensorRule& rule,
                                        std::string_view rest, const BranchInfo& branch,
                                        Callback<const NamedRows&> f) {
    const bool one_tensor = rule.stored == StoredAs::heads_in_order;
    const std::int64_t head = branch.head_dim, kv_heads = branch.n_kv_heads;
    const std::int64_t group = branch.n_heads / kv_heads, all = branch.n_heads + 2 * kv_heads;
    // Head h of the queries, keys or values.
    const auto part = [&](int which, std::int64_t row, std::int64_t h, std::int64_t heads) {
      const std::int64_t before = which == 0   ? 0
                                  : which == 1 ? branch.n_heads
                                               : branch.n_heads + kv_heads;
      NamedRows rows{detail::join({prefix, rule.to[one_tensor ? 0 : which], rest}),
                     row,
                     head,
                     (one_tensor ? before + h : h) * head,
                     (one_tensor ? all : heads) * head,
                     1};
      if (rule.stored != StoredAs::heads_apart_in_pairs || which == 2) return f(rows);
      rows.rows = head / 2;
      rows.file_step = 2;
      f(rows);
      rows.row += head / 2;
      ++rows.file_row;
      f(rows);
    };
    std::int64_t row = 0;
    for (std::int64_t g = 0; g < kv_heads; ++g) {
      for (std::int64_t h = 0; h < group; ++h, row += head)
        part(0, row, g * group + h, branch.n_heads);
      for (const int which : {1, 2}) {
        part(which, row, g, kv_heads);
        row += head;
      }
    }
  }

  const CheckpointFormat* format_;
  std::vector<BranchInfo> branches_;
  const ScheduleRule* schedule_ = nullptr;
};

}  // namespace samba::inline SAMBA_TARGET
