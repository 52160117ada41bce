#pragma once
#include <samba/core/context.hpp>

namespace samba::inline SAMBA_TARGET::kernels {

/// The losses of rows of logits. The logits are replaced by scale times their gradients.
template <class R>
struct CrossEntropyArgs {
  const std::int32_t* targets;  ///< (rows); negative: no loss
  const float* weights;         ///< (rows): weight of each row's loss and gradient; null: 1
  R scale;
  R* logits;  ///< (rows, n)
  std::int64_t stride;
  R* losses;  ///< (rows)
  std::int64_t rows, n;
};

/// The arguments of cross_entropy besides the logits.
template <class P>
struct CrossEntropy {
  const std::int32_t* targets;     ///< (rows); negative: no loss
  const float* weights = nullptr;  ///< (rows): weight of each row's loss and gradient; null: 1
  Real<P> scale;                   ///< multiplies the gradients
  Real<P>* losses;                 ///< (rows), written
};

/// losses[i] = -log softmax(logits of row i)[targets[i]], and the logits, (rows, N), are replaced
/// by scale times its gradient. Both are 0 where a target is negative or a weight is 0, whatever
/// the logits. Otherwise the loss is NaN if a logit is not finite.
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
