#pragma once
#include <samba/core/random.hpp>
#include <samba/model/weights.hpp>

#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// How the elements of a tensor are drawn.
struct Initial {
  enum Kind { constant, normal, uniform, log_of_column, dt_bias } kind = constant;
  double scale = 0;  ///< the constant, the standard deviation, or the bound of the uniform numbers

  double draw(SplitMix64& random, std::size_t column) const {
    switch (kind) {
      case normal: {  // Box and Muller 1958; 1 - u is never 0
        const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
        return scale * radius * std::cos(2 * std::numbers::pi * random.uniform());
      }
      case uniform: return scale * (2 * random.uniform() - 1);
      case log_of_column: return std::log(static_cast<double>(column + 1));
      case dt_bias: {  // softplus of it is log-uniform in [0.001, 0.1]
        const double dt = 0.001 * std::pow(100, random.uniform());
        return dt + std::log(-std::expm1(-dt));
      }
      default: return scale;
    }
  }
};

/// Of tensor `name`, with rows of row_size, of a layer; depth: residual branches of the model.
inline Initial initial(std::string_view layer, std::string_view name, bool matrix,
                       std::int64_t row_size, int depth) {
  if (name == "norm" || name == "norm.weight") return {Initial::constant, 1};
  if (name == "embedding") return {Initial::normal, 0.02};
  while (layer == "parallel") {  // its tensors are called <number>.<layer>.<tensor>
    const auto first = name.find('.'), second = name.find('.', first + 1);
    if (second == name.npos) break;
    layer = name.substr(first + 1, second - first - 1);
    name = name.substr(second + 1);
  }
  const bool mamba = layer == "mamba", attention = layer == "swa" || layer == "attention",
             mlp = layer == "mlp";
  if (mamba && name == "A_log") return {Initial::log_of_column};
  if (mamba && name == "D") return {Initial::constant, 1};
  if (mamba && name == "dt_proj.bias") return {Initial::dt_bias};
  const double bound = 1 / std::sqrt(static_cast<double>(row_size));
  if ((mamba && name == "out_proj.weight") || (attention && name == "proj.weight") ||
      (mlp && name == "swiglu.w3.weight"))
    return {Initial::uniform, bound / std::sqrt(static_cast<double>(depth))};
  if (matrix || (mamba && name == "conv1d.weight")) return {Initial::uniform, bound};
  return {};
}

}  // namespace detail

/// Random weights to begin training with, the same for one seed, as the public code
/// (microsoft/Samba, lit_gpt/model.py and mamba_simple.py) makes them for its Samba models
/// (`mamba_init`):
///
///   embedding                      normal, standard deviation 0.02
///   norms, D of the scan           1
///   matrices, an untied head       uniform within +-1/sqrt(inputs)
///   out_proj, proj, swiglu.w3      the same, divided by sqrt(residual branches)
///   conv1d                         weight uniform within +-1/sqrt(d_conv)
///   A_log                          log(1), ..., log(d_state) in every channel
///   dt_proj.bias                   softplus of it log-uniform in [0.001, 0.1]
///   other biases and vectors       0
///
/// A user's layer falls under "matrices" and "other vectors". Two differences: that code leaves the
/// convolution's bias at PyTorch's default, and counts two branches a block where a block has
/// three.
template <class Model, class T>
void initialize(Weights<Model, T>& weights, std::uint64_t seed) {
  const std::vector<BranchInfo> all = branches<Model>();
  SplitMix64 random(seed);
  std::vector<Real<T>> row;
  for (const auto& tensor : weights.tensors()) {
    const std::string layer =
        tensor.branch < 0 ? "" : all[static_cast<std::size_t>(tensor.branch)].layer;
    const detail::Initial initial =
        detail::initial(layer, tensor.name, tensor.is_matrix, tensor.row_size, Model::depth);
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      for (std::size_t k = 0; k < row.size(); ++k)
        row[k] = static_cast<Real<T>>(initial.draw(random, k));
      tensor.set_row(r, row.data());
    }
  }
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
