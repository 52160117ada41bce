#pragma once
#include <samba/runtime/engine.hpp>

namespace samba::inline SAMBA_TARGET::detail {

/// What can be done with a Session, on the processor or on another device.
///
/// prefill, step and forward continue from the state and advance it. Bad input throws Error and
/// changes nothing. After construction only snapshot(), save, load and copying allocate.
template <class Engine>
class SessionCalls {
 public:
  using R = typename Engine::R;
  using Tokens = std::span<const std::int32_t>;

  /// Reads tokens (at least one); returns the logits of the last one, [vocab_size], valid until the
  /// next call.
  std::span<const R> prefill(Tokens tokens) {
    engine_.check_not_empty(tokens, "prefill");
    engine_.check_tokens(0, tokens, "prefill");
    engine_.read({&tokens, 1});
    return engine_.logits(0);
  }

  /// Reads one token; returns its logits, [vocab_size], valid until the next call.
  std::span<const R> step(std::int32_t token) {
    const Tokens tokens(&token, 1);
    engine_.check_tokens(0, tokens, "step");
    engine_.read({&tokens, 1});
    return engine_.logits(0);
  }

  /// Reads tokens (at least one) and writes the logits of all of them, [tokens, vocab_size], row
  /// major.
  void forward(Tokens tokens, std::span<R> logits) {
    engine_.check_not_empty(tokens, "forward");
    engine_.check_room(tokens, logits, "forward");
    engine_.check_tokens(0, tokens, "forward");
    engine_.forward(0, tokens, logits.data());
  }

  /// Tokens read so far.
  std::int64_t position() const { return engine_.position(0); }
  /// Bytes of the state.
  std::int64_t state_bytes() const { return engine_.state_bytes(); }
  const typename Engine::Options& options() const { return engine_.options(); }

  // A state does not include the logits of its last token: after reset, restore and load, the next
  // logits come with the next token, and spans returned before must not be read.

  /// Returns to the empty sequence.
  void reset() { engine_.reset(0); }

  /// Any session or batch of the same model with the same types can restore it, on any device.
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

 protected:
  explicit SessionCalls(Engine engine) : engine_(std::move(engine)) {}

 private:
  Engine engine_;
};

/// What can be done with a Batch, on the processor or on another device. It has places for some
/// sequences, slots, which are numbered from 0; a sequence begins with its first token.
///
/// For sequences that come and go, join() finds a slot and leave(slot) frees it; step(sequences, tokens)
/// advances those that have a token.
template <class Engine>
class BatchCalls {
 public:
  using R = typename Engine::R;
  using Tokens = std::span<const std::int32_t>;

  /// The number of slots.
  int size() const { return engine_.sequences(); }

  /// Reads prompts[i] into sequence i; an empty prompt leaves its sequence unchanged. Returns the
  /// logits of each sequence's last token, [batch, vocab_size], valid until the next call.
  std::span<const R> prefill(std::span<const Tokens> prompts) {
    engine_.check_count(prompts.size(), prompts_.size(), "prefill", "prompts");
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
    clear_prompts();
    prompts_[static_cast<std::size_t>(sequence)] = tokens;
    engine_.read(prompts_);
    return engine_.logits(sequence);
  }

  /// Reads tokens[i] into sequence i; returns the logits, [batch, vocab_size].
  std::span<const R> step(Tokens tokens) {
    engine_.check_count(tokens.size(), prompts_.size(), "step", "tokens");
    for (int i = 0; i < size(); ++i) {
      prompts_[static_cast<std::size_t>(i)] = tokens.subspan(static_cast<std::size_t>(i), 1);
      engine_.check_tokens(i, prompts_[static_cast<std::size_t>(i)], "step");
    }
    engine_.read(prompts_);
    return engine_.logits();
  }

  /// Reads tokens[k] into sequence sequences[k], all of them together; others stay as they are. The
  /// logits are in logits(sequences[k]). Throws if one is named twice.
  void step(std::span<const int> sequences, Tokens tokens) {
    engine_.check_count(tokens.size(), sequences.size(), "step", "tokens, one for each sequence");
    clear_prompts();
    for (std::size_t k = 0; k < sequences.size(); ++k) {
      engine_.check_sequence(sequences[k]);
      Tokens& prompt = prompts_[static_cast<std::size_t>(sequences[k])];
      if (!prompt.empty()) engine_.fail_twice(sequences[k], "step");
      prompt = tokens.subspan(k, 1);
      engine_.check_tokens(sequences[k], prompt, "step");
    }
    engine_.read(prompts_);
  }

  /// A free slot, which is not free any more; -1 if there is none. A slot is free until join()
  /// returns it or its sequence reads a token, and after leave().
  int join() {
    for (int i = 0; i < size(); ++i)
      if (auto& joined = joined_[static_cast<std::size_t>(i)]; !joined && position(i) == 0) {
        joined = true;
        return i;
      }
    return -1;
  }
  /// Ends a sequence, and frees its slot.
  void leave(int sequence) {
    reset(sequence);
    joined_[static_cast<std::size_t>(sequence)] = false;
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
  /// Returns to the empty sequence.
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

 protected:
  explicit BatchCalls(Engine engine) : engine_(std::move(engine)) {}

 private:
  void clear_prompts() {
    for (Tokens& prompt : prompts_) prompt = {};
  }

  Engine engine_;
  std::vector<Tokens> prompts_ = std::vector<Tokens>(static_cast<std::size_t>(engine_.sequences()));
  std::vector<char> joined_ = std::vector<char>(prompts_.size());
};

}  // namespace samba::inline SAMBA_TARGET::detail
