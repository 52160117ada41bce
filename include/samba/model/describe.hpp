#pragma once
#include <samba/model/structure.hpp>

#include <algorithm>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Formats 1234567 as "1,234,567".
inline std::string grouped(std::int64_t n) {
  std::string s = std::to_string(n);
  for (auto i = static_cast<std::ptrdiff_t>(s.size()) - 3; i > 0; i -= 3)
    s.insert(static_cast<std::size_t>(i), 1, ',');
  return s;
}

/// Breaks text between words into lines of at most `width` characters; all but the first are
/// indented. (This function, table and describe_text are templates only so that programs that do
/// not use them need not compile them.)
template <int = 0>
std::vector<std::string> lines_of(std::string_view text, std::size_t width) {
  std::vector<std::string> lines{""};
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = (std::min)(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    if (at > 0 && lines.back().size() + 1 + word.size() > width)
      lines.push_back("  ");
    else if (at > 0)
      lines.back() += ' ';
    lines.back() += word;
    at = end + 1;
  }
  return lines;
}

/// Formats rows of cells as columns, the first two left-aligned. The second is narrowed so that
/// lines fit in 100 characters.
template <int = 0>
std::string table(const std::vector<std::vector<std::string>>& rows) {
  constexpr std::size_t longest = 100, narrowest = 24;
  std::vector<std::size_t> width(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) width[c] = (std::max)(width[c], row[c].size());
  std::size_t others = 0;
  for (std::size_t c = 0; c < width.size(); ++c) others += c == 1 ? 2 : width[c] + 2;
  width[1] = (std::min)(width[1], (std::max)(narrowest, longest + 2 - (std::min)(longest, others)));
  std::string out;
  for (const auto& row : rows) {
    const std::vector<std::string> lines = lines_of(row[1], width[1]);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string& cell = c == 1 ? lines.front() : row[c];
      const std::string padding(width[c] - (std::min)(width[c], cell.size()), ' ');
      out += (c ? "  " : "") + (c < 2 ? cell + padding : padding + cell);
    }
    out += "\n";
    for (std::size_t i = 1; i < lines.size(); ++i)
      out += std::string(width[0] + 2, ' ') + lines[i] + "\n";
  }
  return out;
}

struct ModelSize {
  std::int64_t vocab_size, d_model, default_capacity, parameters, norm_parameters, state_bytes,
      flops, far_flops;
  bool tied, has_capacity;
};

template <int = 0>
std::string describe_text(const ModelSize& m, const std::vector<BranchInfo>& branches) {
  std::vector<std::vector<std::string>> cells;  // one row per branch
  for (const BranchInfo& b : branches)
    cells.push_back({b.text() + (b.first_use ? "" : " (shared)"),
                     grouped(b.first_use ? b.parameters : 0), grouped(b.state_bytes),
                     grouped(b.flops), grouped(b.far_flops)});
  const auto same = [&](std::size_t i, std::size_t j) { return cells[i] == cells[j]; };
  const std::size_t p = period(cells.size(), same), times = cells.size() / p;

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
                  grouped(m.norm_parameters + (m.tied ? 0 : embedding)), "0",
                  grouped(2 * embedding), grouped(2 * embedding)});
  rows.push_back({"sum",
                  std::to_string(branches.size()) + " branches" +
                      (times > 1 ? ", i = 0 .. " + std::to_string(times - 1) : "") +
                      (m.has_capacity ? ", capacity " + std::to_string(m.default_capacity) : ""),
                  grouped(m.parameters), grouped(m.state_bytes), grouped(m.flops),
                  grouped(m.far_flops)});
  return table(rows);
}

}  // namespace detail

/// A table of the model, branch by branch: parameters, bytes of state (KV = float), FLOPs of one
/// token at position 0 and at the last position before the default capacity; then the sums. A
/// schedule that repeats is shown once. Lines have at most 100 characters, unless a layer's name or
/// one of its options is longer. If the program is compiled for SSE only, a last line says so.
template <class Model>
std::string describe() {
  std::string text = detail::describe_text(
      {Model::vocab_size, Model::d_model, Model::default_capacity, Model::parameters,
       (Model::FinalNorm::bias ? 2 : 1) * std::int64_t{Model::d_model},
       Model::template state_bytes<float>, Model::flops_per_token(0),
       Model::flops_per_token(Model::default_capacity - 1), Model::tie_embeddings,
       Model::has_capacity},
      branches<Model>());
  if (std::string_view(target).starts_with("sse"))
    detail::append(text, {"compiled for ", target,
                          ", 4 floats at a time: -march=native (with CMake: samba::native) may use "
                          "more\n"});
  return text;
}

}  // namespace samba::inline SAMBA_TARGET
