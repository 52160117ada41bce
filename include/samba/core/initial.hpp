#pragma once
/// \file
/// The attributes of a tensor besides its name and shape. A layer gives them in its list of
/// tensors: f("A_log", w.A_log, init::log_of_column, no_decay).
#include <samba/core/config.hpp>

namespace samba::inline SAMBA_TARGET {

/// How the elements of a tensor are drawn before training.
struct Initial {
  enum Kind {
    by_shape,  ///< matrices: uniform within +-1/sqrt(inputs); other tensors: 0
    output,    ///< a branch's last matrix: the same, divided by sqrt(residual branches)
    constant,
    normal,                ///< with mean 0
    uniform,               ///< within +-a
    uniform_over,          ///< within +-1/sqrt(a)
    log_of_column,         ///< log(1), log(2), ... along every row
    softplus_log_uniform,  ///< such that its softplus is log-uniform in [a, b]
    softplus_radius  ///< such that e^-softplus is the radius of points uniform in a ring [a, b]
  } kind = by_shape;
  double a = 0, b = 0;  ///< the constant, the standard deviation, or the bounds
};

/// The values of Initial.
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
constexpr Initial softplus_radius(double low, double high) {
  return {Initial::softplus_radius, low, high};
}
}  // namespace init

/// Marks a two-dimensional tensor that, unlike matrices, is not subject to weight decay.
struct NoDecay {};
inline constexpr NoDecay no_decay{};

/// Marks a tensor that belongs to the branch (its norms) and not to the layer in it.
struct OfBranch {};
inline constexpr OfBranch of_branch{};

/// Marks the weights of a norm that are its scale minus 1. Some files store the scale itself.
struct LessOne {};
inline constexpr LessOne less_one{};

/// The attributes of a tensor.
struct TensorAttributes {
  Initial initial = {};
  bool decays = true;  ///< if it has two or more dimensions
  bool of_branch = false;
  bool less_one = false;

  constexpr TensorAttributes(const auto&... attributes) { (take(attributes), ...); }

 private:
  constexpr void take(const Initial& x) { initial = x; }
  constexpr void take(NoDecay) { decays = false; }
  constexpr void take(OfBranch) { of_branch = true; }
  constexpr void take(LessOne) { less_one = true; }
};

}  // namespace samba::inline SAMBA_TARGET
