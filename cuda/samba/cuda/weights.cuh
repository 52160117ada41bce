#pragma once
#include <samba/cuda/device.cuh>
#include <samba/model/weights.hpp>

#include <memory>

namespace samba::inline SAMBA_TARGET::cuda {

/// Weights of a model by rows, as the device reads them.
template <class Model, class T>
samba::Weights<Model, RowMajor<T>> by_rows(const samba::Weights<Model, T>& weights) {
  samba::Weights<Model, RowMajor<T>> copy;
  const auto from = weights.tensors(), to = copy.tensors();
  std::vector<Real<T>> row;
  for (std::size_t t = 0; t < from.size(); ++t) {
    row.resize(static_cast<std::size_t>(from[t].row_size));
    for (std::int64_t r = 0; r < from[t].rows; ++r) {
      from[t].get_row(r, row.data());
      to[t].set_row(r, row.data());
    }
  }
  copy.derive();
  return copy;
}

/// The weights of a model in the memory of the current GPU, matrices in T, bf16 or float. They take
/// as many bytes as on the host; those on the host may go. A copy refers to the same memory, which
/// lasts as long as the last of them; sessions and batches keep one.
template <class Model, class T = bf16>
class Weights {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, float>,
                "cuda::Weights: matrices must be in bf16 or float");
  using OnDevice = samba::Weights<Model, RowMajor<T>>;

 public:
  /// Throws Error if there is no device, or too little memory.
  explicit Weights(const samba::Weights<Model, RowMajor<T>>& weights)
      : weights_(std::make_shared<const OnDevice>(
            (check_device(), to_device(weights.memory(), "weights")))) {}
  explicit Weights(const samba::Weights<Model, T>& weights) : Weights(by_rows(weights)) {}

  /// Views of the tensors, in the device's memory.
  const auto& tree() const { return weights_->tree(); }
  std::int64_t bytes() const { return weights_->bytes(); }

 private:
  std::shared_ptr<const OnDevice> weights_;
};

template <class Model, class T>
Weights(const samba::Weights<Model, RowMajor<T>>&) -> Weights<Model, T>;
template <class Model, class T>
Weights(const samba::Weights<Model, T>&) -> Weights<Model, T>;

}  // namespace samba::inline SAMBA_TARGET::cuda
