#pragma once
#include <samba/runtime/cpu_backend.hpp>
#include <samba/runtime/session_calls.hpp>

namespace samba::inline SAMBA_TARGET {

namespace detail {

/// Stops the compilation with a message if weights do not fit a Session or Batch.
template <class Model, class T, class OtherModel, class OtherT, bool temporary>
struct CheckWeights {
  static_assert(!temporary,
                "Session, Batch: the weights must outlive it: give them a name, as in "
                "const auto weights = load<Model>(path); Session session(weights);");
  static_assert(std::is_same_v<Model, OtherModel>,
                "Session, Batch: the weights belong to another model");
  static_assert(
      std::is_same_v<T, OtherT>,
      "Session<Model, T>, Batch<Model, T>: T is the type of the weights' matrices: "
      "load<Model, T>(path) makes such weights, and Session session(weights) takes T from "
      "them");
};

template <class Model, class T, class KV>
using CpuEngine = Engine<CpuBackend<Model, T, KV>>;

}  // namespace detail

/// One sequence that reads tokens and predicts the next. It owns its state and scratch memory and
/// refers to the weights, which must outlive it. Copying a session forks it. Its calls are those of
/// detail::SessionCalls.
///
/// However a sequence is split between prefill, step and forward, and on any number of threads, the
/// logits are the same to the last bit.
template <class Model, class T = float, class KV = Real<T>>
class Session : public detail::SessionCalls<detail::CpuEngine<Model, T, KV>> {
  using Calls = detail::SessionCalls<detail::CpuEngine<Model, T, KV>>;

 public:
  static constexpr int vocab_size = Model::vocab_size;

  explicit Session(const Weights<Model, T>& weights, SessionOptions options = SessionOptions{})
      : Calls({"Session", weights, 1, options}) {}
  /// Other weights, and those that it would outlive, do not compile.
  template <class M, class U>
  explicit Session(const Weights<M, U>&, SessionOptions = SessionOptions{}) : Session(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, false>) > 0);
  }
  template <class M, class U>
  explicit Session(const Weights<M, U>&&, SessionOptions = SessionOptions{}) : Session(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, true>) > 0);
  }

 private:
  static Session none();
};

template <class Model, class T>
Session(const Weights<Model, T>&, SessionOptions = SessionOptions{}) -> Session<Model, T>;

/// Several sequences that share weights and go through the model together: each weight is read once
/// for all of them. Every sequence's logits have the same bits as in a separate Session. Its calls are
/// those of detail::BatchCalls.
template <class Model, class T = float, class KV = Real<T>>
class Batch : public detail::BatchCalls<detail::CpuEngine<Model, T, KV>> {
  using Calls = detail::BatchCalls<detail::CpuEngine<Model, T, KV>>;

 public:
  static constexpr int vocab_size = Model::vocab_size;

  /// batch: the number of slots.
  Batch(const Weights<Model, T>& weights, int batch, SessionOptions options = SessionOptions{})
      : Calls({"Batch", weights, batch, options}) {}
  /// Other weights, and those that it would outlive, do not compile.
  template <class M, class U>
  Batch(const Weights<M, U>&, int, SessionOptions = SessionOptions{}) : Batch(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, false>) > 0);
  }
  template <class M, class U>
  Batch(const Weights<M, U>&&, int, SessionOptions = SessionOptions{}) : Batch(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, true>) > 0);
  }

 private:
  static Batch none();
};

template <class Model, class T>
Batch(const Weights<Model, T>&, int, SessionOptions = SessionOptions{}) -> Batch<Model, T>;

}  // namespace samba::inline SAMBA_TARGET
