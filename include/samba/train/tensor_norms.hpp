#pragma once
#include <samba/io/tensor_names.hpp>
#include <samba/train/adamw.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct TensorNorm {
  std::string name;  ///< its name in files
  double norm;
};

/// The norm of each tensor in master weights, their gradients (Trainer::gradients) or the
/// optimiser's means.
template <class Model, class R>
std::vector<TensorNorm> tensor_norms(const Weights<Model, Master<R>>& weights) {
  const std::vector<std::string> names = tensor_names(weights);
  std::vector<TensorNorm> norms;
  for (const auto& tensor : weights.tensors()) {
    const auto* const x = static_cast<const R*>(tensor.data);
    norms.push_back(
        {names[norms.size()], std::sqrt(detail::dot(x, x, tensor.rows * tensor.row_size))});
  }
  return norms;
}

}  // namespace samba::inline SAMBA_TARGET
