#pragma once
#include <samba/runtime/engine.hpp>

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

}  // namespace detail

/// One sequence that reads tokens and predicts the next. It owns its state and scratch memory and
/// refers to the weights, which must outlive it. Copying a session forks it.
///
/// prefill, step and forward continue from the state and advance it. However a sequence is split
/// between them, and on any number of threads, the logits are the same to the last bit. Bad input
/// throws Error and changes nothing. After construction only snapshot() and copying allocate.
template <class Model, class T = float, class KV = Real<T>>
class Session {
  using Engine = detail::Engine<Model, T, KV>;

 public:
  using R = Real<T>;
  static constexpr int vocab_size = Model::vocab_size;

  explicit Session(const Weights<Model, T>& weights, SessionOptions options = SessionOptions{})
      : engine_("Session", weights, 1, options) {}
  /// Other weights, and those that it would outlive, do not compile.
  template <class M, class U>
  explicit Session(const Weights<M, U>&, SessionOptions = SessionOptions{}) : Session(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, false>) > 0);
  }
  template <class M, class U>
  explicit Session(const Weights<M, U>&&, SessionOptions = SessionOptions{}) : Session(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, true>) > 0);
  }

  /// Reads tokens (at least one); returns the logits of the last one, [vocab_size], valid until the
  /// next call.
  std::span<const R> prefill(std::span<const std::int32_t> tokens) {
    engine_.check_not_empty(tokens, "prefill");
    engine_.check_tokens(0, tokens, "prefill");
    engine_.read({&tokens, 1});
    return engine_.logits(0);
  }

  /// Reads one token; returns its logits, [vocab_size], valid until the next call.
  std::span<const R> step(std::int32_t token) {
    const std::span<const std::int32_t> tokens(&token, 1);
    engine_.check_tokens(0, tokens, "step");
    engine_.read({&tokens, 1});
    return engine_.logits(0);
  }

  /// Reads tokens (at least one) and writes the logits of all of them, [tokens, vocab_size], row
  /// major.
  void forward(std::span<const std::int32_t> tokens, std::span<R> logits) {
    engine_.check_not_empty(tokens, "forward");
    if (const auto n = checked_product("Session::forward: tokens", std::ssize(tokens), vocab_size);
        std::ssize(logits) != n)
      fail({"Session::forward: logits: expected room for ", n, " values ([", tokens.size(), ", ",
            vocab_size, "]), found ", logits.size()});
    engine_.check_tokens(0, tokens, "forward");
    engine_.forward(0, tokens, logits.data());
  }

  /// Tokens read so far.
  std::int64_t position() const { return engine_.position(0); }
  /// Bytes of the state.
  std::int64_t state_bytes() const { return engine_.state_bytes(); }
  const SessionOptions& options() const { return engine_.options(); }

  // A state does not include the logits of its last token: after reset, restore and load, the next
  // logits come with the next token, and spans returned before must not be read.

  /// Returns to the empty sequence.
  void reset() { engine_.reset(0); }

  Snapshot snapshot() const {
    Snapshot s;
    engine_.snapshot(0, s);
    return s;
  }
  /// Copies into a snapshot made by this session or by one of the same model. Allocates nothing.
  void snapshot(Snapshot& into) const { engine_.snapshot(0, into); }
  /// Throws, and changes nothing, if the snapshot has a different model, type or capacity.
  void restore(const Snapshot& s) { engine_.restore(0, s); }

  /// Writes the state as a safetensors file, completely or not at all.
  void save(const std::string& path) const { engine_.save(0, path); }
  /// Throws, and changes nothing, if the file is damaged or has a different model, type or
  /// capacity.
  void load(const std::string& path) { engine_.load(0, path); }

 private:
  static Session none();

  Engine engine_;
};

template <class Model, class T>
Session(const Weights<Model, T>&, SessionOptions = SessionOptions{}) -> Session<Model, T>;

/// Several sequences that share weights and go through the model together: each weight is read once
/// for all of them. Every sequence's logits have the same bits as in a separate Session.
template <class Model, class T = float, class KV = Real<T>>
class Batch {
  using Engine = detail::Engine<Model, T, KV>;

 public:
  using R = Real<T>;
  using Tokens = std::span<const std::int32_t>;
  static constexpr int vocab_size = Model::vocab_size;

  Batch(const Weights<Model, T>& weights, int batch, SessionOptions options = SessionOptions{})
      : engine_("Batch", weights, batch, options) {}
  /// Other weights, and those that it would outlive, do not compile.
  template <class M, class U>
  Batch(const Weights<M, U>&, int, SessionOptions = SessionOptions{}) : Batch(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, false>) > 0);
  }
  template <class M, class U>
  Batch(const Weights<M, U>&&, int, SessionOptions = SessionOptions{}) : Batch(none()) {
    static_assert(sizeof(detail::CheckWeights<Model, T, M, U, true>) > 0);
  }

  /// The number of sequences.
  int size() const { return engine_.sequences(); }

  /// Reads prompts[i] into sequence i; an empty prompt leaves its sequence unchanged. Returns the
  /// logits of each sequence's last token, [batch, vocab_size], valid until the next call.
  std::span<const R> prefill(std::span<const Tokens> prompts) {
    if (std::ssize(prompts) != size())
      fail({"Batch::prefill: expected ", size(), " prompts, found ", prompts.size()});
    for (int i = 0; i < size(); ++i)
      engine_.check_tokens(i, prompts[static_cast<std::size_t>(i)], "prefill");
    engine_.read(prompts);
    return engine_.logits();
  }

  /// Reads a prompt (at least one token) into one sequence; returns its logits, [vocab_size].
  std::span<const R> prefill(int sequence, Tokens tokens) {
    engine_.check_sequence(sequence);
    engine_.check_not_empty(tokens, "prefill");
    engine_.check_tokens(sequence, tokens, "prefill");
    for (auto& prompt : prompts_) prompt = {};
    prompts_[static_cast<std::size_t>(sequence)] = tokens;
    engine_.read(prompts_);
    return engine_.logits(sequence);
  }

  /// Reads tokens[i] into sequence i; returns the logits, [batch, vocab_size].
  std::span<const R> step(Tokens tokens) {
    if (std::ssize(tokens) != size())
      fail({"Batch::step: expected ", size(), " tokens, found ", tokens.size()});
    for (int i = 0; i < size(); ++i) {
      prompts_[static_cast<std::size_t>(i)] = tokens.subspan(static_cast<std::size_t>(i), 1);
      engine_.check_tokens(i, prompts_[static_cast<std::size_t>(i)], "step");
    }
    engine_.read(prompts_);
    return engine_.logits();
  }

  /// The logits of a sequence's last token, [vocab_size]; zeros before its first token, and after
  /// reset or restore until the next one.
  std::span<const R> logits(int sequence) const {
    engine_.check_sequence(sequence);
    return engine_.logits(sequence);
  }
  std::int64_t position(int sequence) const {
    engine_.check_sequence(sequence);
    return engine_.position(sequence);
  }
  void reset(int sequence) {
    engine_.check_sequence(sequence);
    engine_.reset(sequence);
  }
  /// Snapshots can be exchanged freely between batches and sessions of the same model.
  Snapshot snapshot(int sequence) const {
    engine_.check_sequence(sequence);
    Snapshot s;
    engine_.snapshot(sequence, s);
    return s;
  }
  void snapshot(int sequence, Snapshot& into) const {
    engine_.check_sequence(sequence);
    engine_.snapshot(sequence, into);
  }
  void restore(int sequence, const Snapshot& s) {
    engine_.check_sequence(sequence);
    engine_.restore(sequence, s);
  }

 private:
  static Batch none();

  Engine engine_;
  std::vector<Tokens> prompts_ = std::vector<Tokens>(static_cast<std::size_t>(engine_.sequences()));
};

template <class Model, class T>
Batch(const Weights<Model, T>&, int, SessionOptions = SessionOptions{}) -> Batch<Model, T>;

}  // namespace samba::inline SAMBA_TARGET
