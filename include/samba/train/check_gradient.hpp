#pragma once
#include <samba/core/random.hpp>
#include <samba/io/tensor_names.hpp>
#include <samba/model/initialize.hpp>
#include <samba/train/gradient.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct GradientCheckOptions {
  std::vector<int> lengths = {20, 45};  ///< of the sequences that go through the model together
  double step = 1e-5;                   ///< of the central differences
  double tolerance = 1e-6;              ///< relative
  std::uint64_t seed = 0;               ///< for weights, tokens and directions
};

/// The result of one check.
struct GradientCheck {
  std::string what;                ///< a tensor, by its name in files, or a law
  double expected = 0, found = 0;  ///< for a law: 0, and the relative error of all gradients
  bool right = false;
};

struct GradientReport {
  std::vector<GradientCheck> checks = {};

  bool right() const { return wrong().empty(); }
  /// One line for each failed check.
  std::string wrong() const {
    std::string lines;
    for (const GradientCheck& c : checks)
      if (!c.right)
        detail::append(lines, {c.what, ": expected ", c.expected, ", found ", c.found, "\n"});
    return lines;
  }
};

namespace detail {

/// Sequences of random tokens, in which each token's target is the next token.
struct CheckText {
  std::vector<std::vector<std::int32_t>> sequences;

  CheckText(const std::vector<int>& lengths, int vocab_size, SplitMix64& random) {
    if (lengths.empty()) fail({"GradientCheckOptions::lengths: expected at least one, found none"});
    for (const int n : lengths) {
      check_at_least("GradientCheckOptions::lengths", n, 1);
      auto& ids = sequences.emplace_back(static_cast<std::size_t>(n) + 1);
      for (auto& id : ids)
        id = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size));
    }
  }

  std::size_t longest() const {
    std::size_t n = 0;
    for (const auto& ids : sequences) n = (std::max)(n, ids.size() - 1);
    return n;
  }
  /// Tokens [begin, end) of every sequence, as far as they exist.
  std::vector<Example> examples(std::size_t begin, std::size_t end) const {
    std::vector<Example> all;
    for (const auto& ids : sequences) {
      const std::size_t first = (std::min)(begin, ids.size() - 1),
                        n = (std::min)(end, ids.size() - 1) - first;
      all.push_back({std::span(ids).subspan(first, n), std::span(ids).subspan(first + 1, n)});
    }
    return all;
  }
  std::int64_t tokens(std::size_t begin, std::size_t end) const {
    std::int64_t n = 0;
    for (const Example& e : examples(begin, end)) n += std::ssize(e.tokens);
    return n;
  }
};

/// ||a - b|| / ||b|| over all gradients; 1e300 if a number is not finite.
template <class Model>
double relative_difference(const Weights<Model, Master<double>>& a,
                           const Weights<Model, Master<double>>& b) {
  double difference = 0, norm = 0;
  const auto all = a.tensors(), others = b.tensors();
  for (std::size_t t = 0; t < all.size(); ++t) {
    const auto *const x = static_cast<const double*>(all[t].data), *const y =
                                                                       static_cast<const double*>(
                                                                           others[t].data);
    for (std::int64_t i = 0; i < all[t].rows * all[t].row_size; ++i) {
      if (!is_finite(static_cast<float>(x[i]))) return 1e300;
      difference += (x[i] - y[i]) * (x[i] - y[i]);
      norm += y[i] * y[i];
    }
  }
  return difference > 0 ? std::sqrt(difference / (std::max)(norm, 1e-300)) : 0;
}

}  // namespace detail

/// Checks the backward passes of a model's layers, in double: the gradient of every tensor along a
/// random direction against central differences; the gradients of texts read in pieces, which
/// propagate through the states between them, against those of whole texts; and that they are the
/// same on several threads and with recompute. The layers must be smooth. Do not call it while
/// other threads create sessions or train, because it temporarily changes most_threads().
template <class Model>
GradientReport check_gradients(const Weights<Model, double>& weights,
                               const GradientCheckOptions& options = GradientCheckOptions{}) {
  using Gradients = Weights<Model, Master<double>>;
  check_option("GradientCheckOptions::step", options.step, 1e-12, 1);
  check_option("GradientCheckOptions::tolerance", options.tolerance, 0, 1);
  SplitMix64 random(options.seed);
  const detail::CheckText text(options.lengths, Model::vocab_size, random);
  const std::size_t longest = text.longest();
  const std::vector<Example> examples = text.examples(0, longest);
  GradientOptions whole{.sequences = static_cast<int>(examples.size()),
                        .tokens = text.tokens(0, longest),
                        .capacity = static_cast<std::int64_t>(longest),
                        .threads = 1};
  Gradient<Model, double> gradient(whole);
  Gradients expected, unused;
  gradient.add(weights, examples, expected);
  GradientReport report;

  // Central differences, tensor by tensor.
  Weights<Model, double> moved;
  const auto from = weights.tensors(), to = moved.tensors(), slopes = expected.tensors();
  const std::vector<std::string> names = tensor_names(weights);
  std::vector<double> direction, row, slope;
  for (std::size_t t = 0; t < from.size(); ++t) {
    direction.resize(static_cast<std::size_t>(from[t].rows * from[t].row_size));
    for (double& x : direction) x = 2 * random.uniform() - 1;
    const auto loss_at = [&](double step) {
      for (std::size_t u = 0; u < from.size(); ++u) {
        row.resize(static_cast<std::size_t>(from[u].row_size));
        for (std::int64_t r = 0; r < from[u].rows; ++r) {
          from[u].get_row(r, row.data());
          for (std::size_t k = 0; u == t && k < row.size(); ++k)
            row[k] += step * direction[static_cast<std::size_t>(r) * row.size() + k];
          to[u].set_row(r, row.data());
        }
      }
      moved.derive();
      return gradient.add(moved, examples, unused);
    };
    GradientCheck check{.what = names[t]};
    double squares = 0;
    slope.resize(static_cast<std::size_t>(from[t].row_size));
    for (std::int64_t r = 0; r < from[t].rows; ++r) {
      slopes[t].get_row(r, slope.data());
      for (std::size_t k = 0; k < slope.size(); ++k) {
        const double term = slope[k] * direction[static_cast<std::size_t>(r) * slope.size() + k];
        check.found += term;
        squares += term * term;
      }
    }
    check.expected = (loss_at(options.step) - loss_at(-options.step)) / (2 * options.step);
    check.right = is_finite(static_cast<float>(check.found)) &&
                  std::abs(check.found - check.expected) <=
                      options.tolerance * (std::abs(check.expected) + std::sqrt(squares)) + 1e-9;
    report.checks.push_back(check);
  }

  const auto add_law = [&](const char* what, const Gradients& found) {
    const double error = detail::relative_difference<Model>(found, expected);
    report.checks.push_back({what, 0, error, error <= options.tolerance});
  };
  const auto add_run = [&](const char* what, GradientOptions changed) {
    Gradient<Model, double> other(changed);
    Gradients found;
    other.add(weights, examples, found);
    add_law(what, found);
  };
  GradientOptions threads = whole, recompute = whole;
  threads.threads = 3;
  recompute.recompute = true;
  {
    // Even if there are fewer processors.
    struct Restore {
      const int most = most_threads();
      ~Restore() { most_threads() = most; }
    } restore;
    most_threads() = (std::max)(restore.most, threads.threads);
    add_run("gradients on 3 threads against those on one", threads);
  }
  add_run("gradients with recompute against those without", recompute);

  // In three pieces: forward, keeping the states between them, then backward from the last.
  const std::size_t cuts[] = {0, (longest + 4) / 5, (longest + 1) / 2, longest};
  std::vector<std::vector<std::byte>> states;
  std::vector<std::vector<std::int64_t>> positions;
  for (std::size_t i = 0; i < 3; ++i) {
    states.emplace_back(gradient.states().begin(), gradient.states().end());
    positions.emplace_back(gradient.positions().begin(), gradient.positions().end());
    gradient.add(weights, text.examples(cuts[i], cuts[i + 1]), unused);
    gradient.carry();
  }
  Gradients pieces;
  for (std::size_t i = 3; i-- > 0;) {
    std::copy(states[i].begin(), states[i].end(), gradient.states().begin());
    std::copy(positions[i].begin(), positions[i].end(), gradient.positions().begin());
    const double share = static_cast<double>(text.tokens(cuts[i], cuts[i + 1])) /
                         static_cast<double>(text.tokens(0, longest));
    const auto part = text.examples(cuts[i], cuts[i + 1]);
    if (i == 2)
      gradient.add(weights, part, pieces, share);
    else
      gradient.add_earlier(weights, part, pieces, share);
  }
  add_law("gradients of texts in pieces, through their states, against those of whole texts",
          pieces);
  return report;
}

/// The same, with random weights that are all nonzero.
template <class Model>
GradientReport check_gradients(const GradientCheckOptions& options = GradientCheckOptions{}) {
  Weights<Model, double> weights;
  initialize(weights, options.seed);
  SplitMix64 random(~options.seed);
  std::vector<double> row;
  for (const auto& tensor : weights.tensors()) {
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      tensor.get_row(r, row.data());
      // Embeddings of order one, so that logits are far from equal.
      for (double& x : row) {
        if (tensor.name == "embedding") x *= 20;
        if (!tensor.is_matrix) x += 0.4 * random.uniform() - 0.2;
      }
      tensor.set_row(r, row.data());
    }
  }
  weights.derive();
  return check_gradients(weights, options);
}

/// Checks a layer in a small model that contains it twice.
template <class Layer>
GradientReport check_layer_gradients(const GradientCheckOptions& options = GradientCheckOptions{}) {
  struct Model : LanguageModel<Repeat<2, HybridStack<Layer>>,
                               ModelOptions{.vocab_size = 61, .tie_embeddings = true}> {};
  return check_gradients<Model>(options);
}

}  // namespace samba::inline SAMBA_TARGET
