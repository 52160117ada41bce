#pragma once
/// \file
/// What a layer says about its tensors besides name and shape, in its list: f("A_log", w.A_log,
/// init::log_of_column, no_decay).
#include <samba/core/config.hpp>

namespace samba::inline SAMBA_TARGET {

/// How the elements of a tensor are drawn to begin training with.
struct Initial {
  enum Kind {
    by_shape,  ///< of a matrix uniform within +-1/sqrt(inputs), of another tensor 0
    output,    ///< of a branch's last matrix: the same, divided by sqrt(residual branches)
    constant,
    normal,               ///< of mean 0
    uniform,              ///< within +-a
    uniform_over,         ///< within +-1/sqrt(a)
    log_of_column,        ///< log(1), log(2), ... along every row
    softplus_log_uniform  ///< softplus of it is log-uniform in [a, b]
  } kind = by_shape;
  double a = 0, b = 0;  ///< the constant, the standard deviation, the bounds
};

/// How the elements of tensors are drawn.
namespace init {
inline constexpr Initial output{Initial::output}, zero{Initial::constant, 0},
    one{Initial::constant, 1}, log_of_column{Initial::log_of_column};
constexpr Initial normal(double standard_deviation) {
  return {Initial::normal, standard_deviation};
}
constexpr Initial uniform(double bound) { return {Initial::uniform, bound}; }
constexpr Initial uniform_over(int inputs) { return {Initial::uniform_over, 1. * inputs}; }
constexpr Initial softplus_log_uniform(double low, double high) {
  return {Initial::softplus_log_uniform, low, high};
}
}  // namespace init

/// Marks a tensor of two dimensions that, unlike matrices, does not decay.
struct NoDecay {};
inline constexpr NoDecay no_decay{};

/// Marks a tensor of a branch that is not its layer's but a norm's.
struct OfBranch {};
inline constexpr OfBranch of_branch{};

/// The attributes of a tensor.
struct TensorSaid {
  Initial initial = {};
  bool decays = true;  ///< where it has two or more dimensions
  bool of_branch = false;

  constexpr TensorSaid(const auto&... said) { (take(said), ...); }

 private:
  constexpr void take(const Initial& x) { initial = x; }
  constexpr void take(NoDecay) { decays = false; }
  constexpr void take(OfBranch) { of_branch = true; }
};

}  // namespace samba::inline SAMBA_TARGET
