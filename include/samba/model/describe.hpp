#pragma once
#include <samba/model/structure.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// 1234567 as "1,234,567".
inline std::string grouped(std::int64_t n) {
  std::string s = std::to_string(n);
  for (auto i = static_cast<std::ptrdiff_t>(s.size()) - 3; i > 0; i -= 3)
    s.insert(static_cast<std::size_t>(i), 1, ',');
  return s;
}

/// Rows of cells in columns; the first two aligned to the left. (This and describe_text are
/// templates, of nothing: a program that describes no model does not compile them.)
template <int = 0>
std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> width(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string padding(width[c] - row[c].size(), ' ');
      out += (c ? "  " : "") + (c < 2 ? row[c] + padding : padding + row[c]);
    }
    out += "\n";
  }
  return out;
}

struct ModelSize {
  std::int64_t vocab_size, d_model, default_capacity, parameters, state_bytes, flops, far_flops;
  bool tied, has_capacity;
};

template <int = 0>
std::string describe_text(const ModelSize& m, const std::vector<BranchInfo>& branches) {
  std::vector<std::vector<std::string>> cells;  // one row a branch
  for (const BranchInfo& b : branches)
    cells.push_back({b.text() + (b.first_use ? "" : " (shared)"),
                     grouped(b.first_use ? b.parameters : 0), grouped(b.state_bytes),
                     grouped(b.flops), grouped(b.far_flops)});
  const std::size_t p = period(cells), times = cells.size() / p;

  const std::int64_t embedding = m.vocab_size * m.d_model;
  const std::string shape = join({" ", Shape{m.vocab_size, m.d_model}});
  std::vector<std::vector<std::string>> rows{
      {"branch", "layer", "parameters", "state bytes", "FLOPs/token at 0",
       "at " + std::to_string(m.default_capacity - 1)},
      {"", "embedding" + shape, grouped(embedding), "0", "0", "0"}};
  for (std::size_t i = 0; i < p; ++i) {
    std::vector<std::string> row{std::to_string(i) +
                                 (times > 1 ? " + " + std::to_string(p) + "i" : "")};
    for (const std::string& cell : cells[i]) row.push_back(cell);
    rows.push_back(row);
  }
  rows.push_back({"", "norm, head" + shape + (m.tied ? " (tied)" : ""),
                  grouped(m.d_model + (m.tied ? 0 : embedding)), "0", grouped(2 * embedding),
                  grouped(2 * embedding)});
  rows.push_back({"sum",
                  std::to_string(branches.size()) + " branches" +
                      (times > 1 ? ", i = 0 .. " + std::to_string(times - 1) : "") +
                      (m.has_capacity ? ", capacity " + std::to_string(m.default_capacity) : ""),
                  grouped(m.parameters), grouped(m.state_bytes), grouped(m.flops),
                  grouped(m.far_flops)});
  return table(rows);
}

}  // namespace detail

/// A table of the model, branch by branch: parameters, bytes of state (KV = float) and FLOPs of one
/// token at position 0 and far from it, then the sums. A schedule that repeats is shown once. A
/// program compiled for the least that its processors have says so in a last line.
template <class Model>
std::string describe() {
  std::string text = detail::describe_text(
      {Model::vocab_size, Model::d_model, Model::default_capacity, Model::parameters,
       Model::template state_bytes<float>, Model::flops_per_token(0),
       Model::flops_per_token(Model::default_capacity - 1), Model::tie_embeddings,
       Model::has_capacity},
      branches<Model>());
  if (std::string_view(target).starts_with("sse"))
    text +=
        detail::join({"compiled for ", target,
                      ", 4 floats at a time: -march=native (with CMake: samba::native) uses all "
                      "that this processor has\n"});
  return text;
}

}  // namespace samba::inline SAMBA_TARGET
