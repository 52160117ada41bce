#pragma once
#include <samba/core/parallel.hpp>
#include <samba/model/weights.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace samba::inline SAMBA_TARGET {

/// Tensors whose weights decay.
enum class Decay {
  matrices,  ///< those of two or more dimensions: no norms, biases, or skips
  all        ///< as the published Samba models were trained
};

struct AdamWOptions {
  double learning_rate = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip = 1;  ///< the largest norm of all gradients together; 0: any
  Decay decay = Decay::matrices;
  int threads = 0;  ///< 0: what OpenMP gives
};

/// AdamW (Loshchilov & Hutter 2019): Adam with weight decay beside the gradient, for master weights
/// and gradients in R. The result has the same bits for any number of threads.
template <class Model, class R = float>
class AdamW {
 public:
  using Master = Weights<Model, samba::Master<R>>;

  explicit AdamW(AdamWOptions options = AdamWOptions{}) : options_(options) {}

  /// One step with the options' learning rate, or the given one. Gradients stay as they are. Returns
  /// their norm before clipping; where it is not finite nothing changes.
  double step(Master& weights, const Master& gradients) {
    return step(weights, gradients, options_.learning_rate);
  }
  double step(Master& weights, const Master& gradients, double learning_rate) {
    const auto w = weights.tensors(), g = gradients.tensors(), m = mean_.tensors(),
               v = square_.tensors();
    std::vector<Block> blocks;
    for (std::size_t t = 0; t < w.size(); ++t) {
      const std::int64_t n = w[t].rows * w[t].row_size;
      const bool decays = options_.decay == Decay::all || w[t].shape.size() > 1;
      for (std::int64_t i = 0; i < n; i += block)
        blocks.push_back({t, {i, std::min(i + block, n)}, decays, 0});
    }
    const auto data = [](const auto& tensor) { return static_cast<R*>(tensor.data); };
    const auto each_block = [&](auto f) {
      parallel(options_.threads ? options_.threads : default_threads(), [&](const Team& team) {
        const Range mine = team.share(std::ssize(blocks));
        for (std::int64_t b = mine.begin; b < mine.end; ++b) f(blocks[static_cast<std::size_t>(b)]);
      });
    };
    each_block([&](Block& b) {
      for (std::int64_t i = b.elements.begin; i < b.elements.end; ++i) {
        const auto x = static_cast<double>(data(g[b.tensor])[i]);
        b.squares += x * x;
      }
    });
    double squares = 0;
    for (const Block& b : blocks) squares += b.squares;
    const double norm = std::sqrt(squares);
    if (!is_finite(static_cast<float>(norm))) return norm;

    ++steps_;
    const auto scale =
        static_cast<R>(options_.clip > 0 ? std::min(1., options_.clip / (norm + 1e-6)) : 1.);
    const auto beta1 = static_cast<R>(options_.beta1), beta2 = static_cast<R>(options_.beta2),
               eps = static_cast<R>(options_.eps), rate = static_cast<R>(learning_rate),
               keep = static_cast<R>(1 - learning_rate * options_.weight_decay),
               mean_scale = static_cast<R>(1 / (1 - std::pow(options_.beta1, steps_))),
               square_scale = static_cast<R>(1 / (1 - std::pow(options_.beta2, steps_)));
    each_block([&](const Block& b) {
      const R* const gradient = data(g[b.tensor]);
      R *const weight = data(w[b.tensor]), *const mean = data(m[b.tensor]),
               *const square = data(v[b.tensor]);
      for (std::int64_t i = b.elements.begin; i < b.elements.end; ++i) {
        const R x = gradient[i] * scale;
        mean[i] = beta1 * mean[i] + (R{1} - beta1) * x;
        square[i] = beta2 * square[i] + (R{1} - beta2) * x * x;
        weight[i] = (b.decays ? keep : R{1}) * weight[i] -
                    rate * (mean[i] * mean_scale) / (std::sqrt(square[i] * square_scale) + eps);
      }
    });
    return norm;
  }

  std::int64_t steps() const { return steps_; }
  const AdamWOptions& options() const { return options_; }

 private:
  static constexpr std::int64_t block = 1 << 16;  // elements that one thread takes together

  struct Block {
    std::size_t tensor = 0;
    Range elements;
    bool decays = false;
    double squares = 0;
  };

  AdamWOptions options_;
  std::int64_t steps_ = 0;
  Master mean_, square_;  // of the gradients, running
};

/// Takes master weights over into the weights of a session or a Gradient, in their type.
template <class Model, class T>
void assign(Weights<Model, T>& weights, const Weights<Model, Master<Real<T>>>& master,
            int threads = 0) {
  const auto to = weights.tensors(), from = master.tensors();
  parallel(threads ? threads : default_threads(), [&](const Team& team) {
    std::vector<Real<T>> row;
    for (std::size_t t = 0; t < to.size(); ++t) {
      row.resize(static_cast<std::size_t>(to[t].row_size));
      // Rows of a panel stand in the same cache lines.
      const Range rows = team.share(to[t].rows, panel_width);
      for (std::int64_t r = rows.begin; r < rows.end; ++r) {
        from[t].get_row(r, row.data());
        to[t].set_row(r, row.data());
      }
    }
  });
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
