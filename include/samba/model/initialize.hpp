#pragma once
#include <samba/core/random.hpp>
#include <samba/model/weights.hpp>

#include <cmath>
#include <numbers>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Draws numbers as `initial` says, for a tensor with rows of row_size. depth: number of residual
/// branches.
class Draw {
 public:
  Draw(Initial initial, bool matrix, std::int64_t row_size, int depth) : how_(initial) {
    const double bound = 1 / std::sqrt(static_cast<double>(row_size));
    if (how_.kind == Initial::by_shape)
      how_ = matrix ? init::uniform(bound) : init::zero;
    else if (how_.kind == Initial::output)
      how_ = init::uniform(bound / std::sqrt(static_cast<double>(depth)));
    else if (how_.kind == Initial::uniform_over)
      how_ = init::uniform(1 / std::sqrt(how_.a));
  }

  double operator()(SplitMix64& random, std::size_t column) const {
    switch (how_.kind) {
      case Initial::normal: {  // Box and Muller 1958; 1 - u is never 0
        const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
        return how_.a * radius * std::cos(2 * std::numbers::pi * random.uniform());
      }
      case Initial::uniform: return how_.a * (2 * random.uniform() - 1);
      case Initial::log_of_column: return std::log(static_cast<double>(column + 1));
      case Initial::softplus_log_uniform: {
        const double x = how_.a * std::pow(how_.b / how_.a, random.uniform());
        return x + std::log(-std::expm1(-x));
      }
      case Initial::softplus_radius: {
        const double square =
            how_.a * how_.a + (how_.b * how_.b - how_.a * how_.a) * random.uniform();
        return std::log(std::expm1(-std::log(square) / 2));
      }
      default: return how_.a;
    }
  }

 private:
  Initial how_;
};

}  // namespace detail

/// Random weights before training, the same for the same seed, drawn as the layers say in their
/// lists of tensors. The layers of the Samba family follow the public code for its Samba models
/// (microsoft/Samba, lit_gpt/model.py and mamba_simple.py, `mamba_init`):
///
///   embedding                      normal, standard deviation 0.02
///   norms, D of the scan           1
///   matrices, an untied head       uniform within +-1/sqrt(inputs)
///   out_proj, proj, swiglu.w3      the same, divided by sqrt(residual branches)
///   conv1d                         weight uniform within +-1/sqrt(d_conv)
///   A_log                          log(1), ..., log(d_state) in every channel
///   dt_proj.bias                   such that its softplus is log-uniform in [0.001, 0.1]
///   rg_lru.recurrent_param         such that the radius e^-softplus is within [0.9, 0.999], its
///                                  square uniform (De et al. 2024, section 2.4)
///   other biases and vectors       0
///
/// Tensors for which a layer specifies nothing are drawn like the matrices and vectors above. There
/// are two differences: that code leaves the convolution's bias at PyTorch's default, and it counts
/// two branches per block where a block has three.
template <class Model, class T>
void initialize(Weights<Model, T>& weights, std::uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<Real<T>> row;
  for (const auto& tensor : weights.tensors()) {
    const detail::Draw draw(tensor.attributes.initial, tensor.is_matrix, tensor.row_size,
                            Model::depth);
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      for (std::size_t k = 0; k < row.size(); ++k) row[k] = static_cast<Real<T>>(draw(random, k));
      tensor.set_row(r, row.data());
    }
  }
  weights.derive();
}

}  // namespace samba::inline SAMBA_TARGET
