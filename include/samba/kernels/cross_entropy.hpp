#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// The losses of rows of logits, which become scale times their gradients.
template <class R>
struct CrossEntropyArgs {
  const std::int32_t* targets;  ///< (rows); negative: no loss
  const float* weights;         ///< (rows): what loss and gradient of each row count, or null: 1
  R scale;
  R* logits;  ///< (rows, n)
  std::int64_t stride;
  R* losses;  ///< (rows)
  std::int64_t rows, n;
};

/// What cross_entropy takes besides the logits.
template <class P>
struct CrossEntropy {
  const std::int32_t* targets;     ///< (rows); negative: no loss
  const float* weights = nullptr;  ///< (rows): what loss and gradient of each row count; null: 1
  Real<P> scale;                   ///< of the gradients
  Real<P>* losses;                 ///< (rows), written
};

/// losses[i] = -log softmax(logits of row i)[targets[i]], and the logits, (rows, N), become scale
/// times its gradient; 0 for both where a target is negative, and a loss of NaN if a logit is not
/// finite. With a weight of 0 both are 0 whatever the logits.
template <int N, class P>
void cross_entropy(const Context<P>& c, const CrossEntropy<P>& a, RowsArgument<Real<P>, N> logits) {
  samba::detail::launch_on(c, CrossEntropyArgs<Real<P>>{.targets = a.targets,
                                                        .weights = a.weights,
                                                        .scale = a.scale,
                                                        .logits = logits.data,
                                                        .stride = logits.stride,
                                                        .losses = a.losses,
                                                        .rows = logits.rows,
                                                        .n = N});
}

}  // namespace samba::inline SAMBA_TARGET::kernels
