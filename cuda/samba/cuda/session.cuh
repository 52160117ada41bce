#pragma once
#include <samba/cuda/backend.cuh>
#include <samba/runtime/session_calls.hpp>

namespace samba::inline SAMBA_TARGET::cuda {

template <class Model, class T, class KV>
using CudaEngine = samba::detail::Engine<CudaBackend<Model, T, KV>>;

/// One sequence on the current GPU, like samba::Session: matrices and activations in T, bf16 or
/// float; keys and values in KV; the residual stream, norms, states and logits in float. Its calls
/// are those of detail::SessionCalls. Snapshots and state files pass to sessions and batches of the
/// same model and KV on the processor, and back.
///
/// A step is one captured graph. Splits at multiples of the chunk change no bit, others rounding only.
/// After an error of CUDA itself, which names the call, a session is of no use. Construction throws
/// Error if there is no device or too little memory.
template <class Model, class T = bf16, class KV = T>
class Session : public samba::detail::SessionCalls<CudaEngine<Model, T, KV>> {
  using Calls = samba::detail::SessionCalls<CudaEngine<Model, T, KV>>;

 public:
  static constexpr int vocab_size = Model::vocab_size;

  /// Shares the weights, which are on the device.
  explicit Session(const Weights<Model, T>& weights, SessionOptions options = SessionOptions{})
      : Calls({"cuda::Session", weights, 1, options}) {}
  /// Copies the weights to the device.
  explicit Session(const samba::Weights<Model, T>& weights,
                   SessionOptions options = SessionOptions{})
      : Session(Weights<Model, T>(weights), options) {}
  explicit Session(const samba::Weights<Model, RowMajor<T>>& weights,
                   SessionOptions options = SessionOptions{})
      : Session(Weights<Model, T>(weights), options) {}
};

/// Several sequences on the current GPU that share weights and go through the model together, like
/// samba::Batch. Its calls are those of detail::BatchCalls. With matrices in bf16 the logits of steps
/// of up to 64 sequences have the same bits as in a Session, whatever the other sequences are.
template <class Model, class T = bf16, class KV = T>
class Batch : public samba::detail::BatchCalls<CudaEngine<Model, T, KV>> {
  using Calls = samba::detail::BatchCalls<CudaEngine<Model, T, KV>>;

 public:
  static constexpr int vocab_size = Model::vocab_size;

  /// batch: the number of slots. Shares the weights, which are on the device.
  Batch(const Weights<Model, T>& weights, int batch, SessionOptions options = SessionOptions{})
      : Calls({"cuda::Batch", weights, batch, options}) {}
  /// Copies the weights to the device.
  Batch(const samba::Weights<Model, T>& weights, int batch,
        SessionOptions options = SessionOptions{})
      : Batch(Weights<Model, T>(weights), batch, options) {}
  Batch(const samba::Weights<Model, RowMajor<T>>& weights, int batch,
        SessionOptions options = SessionOptions{})
      : Batch(Weights<Model, T>(weights), batch, options) {}
};

template <class Model, class T>
Session(const Weights<Model, T>&, SessionOptions = SessionOptions{}) -> Session<Model, T>;
template <class Model, class T>
Session(const samba::Weights<Model, T>&, SessionOptions = SessionOptions{}) -> Session<Model, T>;
template <class Model, class T>
Session(const samba::Weights<Model, RowMajor<T>>&, SessionOptions = SessionOptions{})
    -> Session<Model, T>;
template <class Model, class T>
Batch(const Weights<Model, T>&, int, SessionOptions = SessionOptions{}) -> Batch<Model, T>;
template <class Model, class T>
Batch(const samba::Weights<Model, T>&, int, SessionOptions = SessionOptions{}) -> Batch<Model, T>;
template <class Model, class T>
Batch(const samba::Weights<Model, RowMajor<T>>&, int, SessionOptions = SessionOptions{})
    -> Batch<Model, T>;

}  // namespace samba::inline SAMBA_TARGET::cuda
