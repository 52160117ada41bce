#pragma once
#include <samba/core/parallel.hpp>
#include <samba/io/tensor_names.hpp>
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// The tensors that are subject to weight decay.
enum class Decay {
  matrices,  ///< those of two or more dimensions, unless their layer says no_decay; this excludes
             ///< norms, biases, skips and A_log
  all        ///< all tensors, as when the published Samba models were trained
};

/// Exceptions for the tensors whose names match a pattern. What a group does not set stays as set
/// by earlier groups.
struct ParameterGroup {
  std::string pattern = {};                 ///< for the names in files, see glob_match
  std::optional<double> weight_decay = {};  ///< regardless of AdamWOptions::decay
  std::optional<double> rate = {};          ///< multiplies the learning rate
  std::optional<bool> frozen = {};          ///< tensors do not change or count in the norm
};

struct AdamWOptions {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip = 1;  ///< limit for the norm of all gradients together; 0: none
  Decay decay = Decay::matrices;
  int threads = 0;  ///< at most the number of processors; 0: OpenMP's default
  std::vector<ParameterGroup> groups = {};  ///< later groups override earlier ones
};

namespace detail {

// Not inlined, so that the arithmetic is compiled once and is the same for any number of threads.

/// The dot product of n pairs of numbers, in several partial sums, so that it can be vectorised.
template <class R>
[[gnu::noinline]] double dot(const R* x, const R* y, std::int64_t n) {
  constexpr std::int64_t lanes = 16;
  double sums[lanes] = {};
  const auto add = [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t k = 0; k < count; ++k)
      sums[k] += static_cast<double>(x[begin + k]) * static_cast<double>(y[begin + k]);
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) add(i, lanes);
  add(i, n - i);
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

/// Throws Error if an option is out of range.
[[gnu::cold]] inline void check_options(const AdamWOptions& o) {
  check_option("AdamWOptions::learning_rate", o.learning_rate, 0, 1e3);
  check_option("AdamWOptions::beta1", o.beta1, 0, 0.999999);
  check_option("AdamWOptions::beta2", o.beta2, 0, 0.999999);
  check_option("AdamWOptions::eps", o.eps, 1e-30, 1);
  check_option("AdamWOptions::weight_decay", o.weight_decay, 0, 1e3);
  check_option("AdamWOptions::clip", o.clip, 0, 1e9);
  check_at_least("AdamWOptions::threads", o.threads, 0);
  for (const ParameterGroup& group : o.groups) {
    check_option("ParameterGroup::rate", group.rate.value_or(1), 0, 1e6);
    check_option("ParameterGroup::weight_decay", group.weight_decay.value_or(0), 0, 1e3);
  }
}

/// The constants of one AdamW step.
template <class R>
struct AdamWStep {
  /// Larger gradients are clamped to this, so that their squares, and sums of these, are finite.
  static constexpr R largest = static_cast<R>(sizeof(R) == 4 ? 0x1p62 : 0x1p510);

  R scale, beta1, beta2, mean_scale, square_scale, eps, rate, keep;

  /// For step number `steps`, starting at 1, with gradients of this norm, and for tensors with this
  /// learning rate and weight decay.
  [[gnu::noinline]] AdamWStep(const AdamWOptions& o, std::int64_t steps, double norm,
                              double learning_rate, double weight_decay)
      : scale(static_cast<R>(o.clip > 0 ? (std::min)(1., o.clip / (norm + 1e-6)) : 1.)),
        beta1(static_cast<R>(o.beta1)),
        beta2(static_cast<R>(o.beta2)),
        mean_scale(correction(beta1, steps)),
        square_scale(correction(beta2, steps)),
        eps(static_cast<R>(o.eps)),
        rate(static_cast<R>(learning_rate)),
        keep(static_cast<R>(1 - learning_rate * weight_decay)) {}

  [[gnu::noinline]] void operator()(const R* __restrict gradient, std::int64_t n,
                                    R* __restrict weight, R* __restrict mean,
                                    R* __restrict square) const {
    // Roots in a separate loop, because not every compiler vectorises them.
    constexpr std::int64_t strip = 64;
    R root[strip];
    for (std::int64_t i = 0; i < n; i += strip) {
      const std::int64_t end = (std::min)(i + strip, n);
      for (std::int64_t k = i; k < end; ++k) {
        const R x = std::clamp(gradient[k] * scale, -largest, largest);
        mean[k] = beta1 * mean[k] + (R{1} - beta1) * x;
        square[k] = beta2 * square[k] + (R{1} - beta2) * x * x;
        root[k - i] = square[k] * square_scale;
      }
      for (std::int64_t k = 0; k < end - i; ++k) root[k] = std::sqrt(root[k]);
      for (std::int64_t k = i; k < end; ++k)
        weight[k] = keep * weight[k] - rate * (mean[k] * mean_scale) / (root[k - i] + eps);
    }
  }

 private:
  /// Corrects for means that started at 0. Uses beta as rounded to R: near 1, rounding changes 1 -
  /// beta, with which the means are computed, by several percent.
  static R correction(R beta, std::int64_t steps) {
    return static_cast<R>(1 / (1 - std::pow(static_cast<double>(beta), steps)));
  }
};

}  // namespace detail

/// AdamW (Loshchilov & Hutter 2019): Adam with decoupled weight decay, for master weights and
/// gradients in R. The result has the same bits for any number of threads.
template <class Model, class R = float>
class AdamW {
 public:
  using Master = Weights<Model, samba::Master<R>>;

  /// The number of steps made, and the running means of the gradients and of their squares:
  /// together with the options, all that a run needs to resume.
  struct State {
    std::int64_t steps = 0;
    Master mean, square;
  };

  /// Throws Error if an option is out of range, if a pattern matches no tensor, or if all tensors
  /// are frozen.
  explicit AdamW(AdamWOptions options = AdamWOptions{}) : options_(std::move(options)) {
    detail::check_options(options_);
    const auto tensors = state_.mean.tensors();
    for (const auto& tensor : tensors) {
      const bool decays =
          options_.decay == Decay::all || (tensor.shape.size() > 1 && tensor.attributes.decays);
      rules_.push_back({decays ? options_.weight_decay : 0});
    }
    const std::vector<std::string> names = tensor_names(state_.mean);
    for (const ParameterGroup& group : options_.groups)
      for (const std::size_t t : matching_names("ParameterGroup", group.pattern, names))
        rules_[t] = {group.weight_decay.value_or(rules_[t].weight_decay),
                     group.rate.value_or(rules_[t].rate), group.frozen.value_or(rules_[t].frozen)};
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      const std::int64_t n = tensors[t].rows * tensors[t].row_size;
      for (std::int64_t i = 0; i < n && !rules_[t].frozen; i += block)
        blocks_.push_back({t, {i, (std::min)(i + block, n)}});
    }
    if (blocks_.empty()) fail({"AdamWOptions::groups: expected a tensor that is not frozen"});
  }

  /// One step with the learning rate in the options, or the given one. The gradients do not change.
  /// Returns their norm before clipping; if it is not finite, nothing changes.
  double step(Master& weights, const Master& gradients) {
    return step(weights, gradients, options_.learning_rate);
  }
  double step(Master& weights, const Master& gradients, double learning_rate) {
    const double norm = this->norm(gradients);
    if (is_finite(static_cast<float>(norm))) update(weights, gradients, learning_rate, norm);
    return norm;
  }

  /// The norm of all gradients together, except those of frozen tensors.
  double norm(const Master& gradients) const {
    const auto g = gradients.tensors();
    std::vector<double> squares(blocks_.size());
    each_block([&](std::size_t b, std::size_t tensor, Range range) {
      const R* const x = data(g[tensor]) + range.begin;
      squares[b] = detail::dot(x, x, range.end - range.begin);
    });
    double sum = 0;
    for (const double s : squares) sum += s;
    return std::sqrt(sum);
  }

  /// One step with gradients of this norm, which must be finite.
  void update(Master& weights, const Master& gradients, double learning_rate, double norm) {
    const auto w = weights.tensors(), g = gradients.tensors(), m = state_.mean.tensors(),
               v = state_.square.tensors();
    ++state_.steps;
    each_block([&](std::size_t, std::size_t t, Range range) {
      const detail::AdamWStep<R> step(options_, state_.steps, norm, learning_rate * rules_[t].rate,
                                      rules_[t].weight_decay);
      step(data(g[t]) + range.begin, range.end - range.begin, data(w[t]) + range.begin,
           data(m[t]) + range.begin, data(v[t]) + range.begin);
    });
  }

  /// True if a tensor, given by its index in tensors(), does not change.
  bool frozen(std::size_t tensor) const { return rules_[tensor].frozen; }
  const AdamWOptions& options() const { return options_; }

  std::int64_t steps() const { return state_.steps; }
  const State& state() const { return state_; }
  State& state() { return state_; }

 private:
  static constexpr std::int64_t block = 1 << 16;  // elements that a thread takes at a time

  /// The settings for a tensor.
  struct Rule {
    double weight_decay = 0, rate = 1;
    bool frozen = false;
  };
  struct Block {
    std::size_t tensor;
    Range elements;
  };

  static R* data(const TensorRef<R>& tensor) { return static_cast<R*>(tensor.data); }

  /// Calls f(index, tensor, elements) for every block, on the threads of the options.
  void each_block(auto f) const {
    parallel(usable_threads(options_.threads), [&](const Team& team) {
      const Range mine = team.share(std::ssize(blocks_));
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const auto b = static_cast<std::size_t>(i);
        f(b, blocks_[b].tensor, blocks_[b].elements);
      }
    });
  }

  AdamWOptions options_;
  State state_;
  std::vector<Rule> rules_;  // for each tensor
  std::vector<Block> blocks_;
};

}  // namespace samba::inline SAMBA_TARGET
