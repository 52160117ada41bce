#pragma once
#include <samba/kernels/cross_entropy.hpp>
#include <samba/kernels/embedding.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/kernels/rmsnorm.hpp>
#include <samba/model/weights.hpp>
#include <samba/train/check_option.hpp>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct GradientOptions {
  int sequences = 1;             ///< that go through the model together
  std::int64_t tokens = 0;       ///< of all sequences together, at most
  std::int64_t capacity = 4096;  ///< positions that full attention keeps; other models ignore it
  int threads = 0;               ///< 0: what OpenMP gives, or 1 inside a parallel region
  bool recompute = false;        ///< keep only the input of each branch, and compute the rest again
  int loss_rows = 512;           ///< tokens whose logits exist at one time, made even
};

/// Tokens of one sequence and what is to follow each: targets[i] after tokens[i]; a negative target
/// does not count.
struct Example {
  std::span<const std::int32_t> tokens, targets;
};

/// The mean cross entropy of sequences and its gradients, by back-propagation through all of their
/// tokens, and through the states that they start from and end in. The gradients have the same bits
/// for any number of threads, any loss_rows, and with or without recompute.
///
/// T: the type of the matrices and of the factors of their products; gradients are Real<T>.
template <class Model, class T = float, class KV = Real<T>>
class Gradient {
  static_assert(!std::is_same_v<T, int8>, "Gradient: train in float or bf16; quantise afterwards");

 public:
  using R = Real<T>;

  explicit Gradient(GradientOptions options) : Gradient(options, Counted{}) {
    blocks_ = Arena(sizes_.blocks), tape_ = Arena(sizes_.tape);
    scratch_ = Arena(sizes_.scratch), own_ = Arena(sizes_.own);
    std::byte* at = blocks_.data();
    for (auto* states : {&found_, &states_, &again_})
      for (auto& state : *states) at += place_state(state, at);
    for (auto& state : state_gradients_) at += place_state(state, at);
    lay_out(own_.data());
  }

  /// Bytes that a Gradient of these options takes, counted without taking them.
  static std::int64_t bytes(GradientOptions options) {
    const Sizes s = Gradient(options, Counted{}).sizes_;
    return s.blocks + s.tape + s.scratch + s.own;
  }
  /// Bytes that this one took.
  std::int64_t bytes() const {
    return blocks_.bytes() + tape_.bytes() + scratch_.bytes() + own_.bytes();
  }

  /// Adds scale times the gradients of the mean loss of the examples (one per sequence; some may be
  /// empty) to g; returns the mean loss over the targets that count. The sequences go on from where
  /// they stand; carry() moves them on.
  double add(const Weights<Model, T>& weights, std::span<const Example> examples,
             Weights<Model, Master<R>>& g, double scale = 1) {
    const std::int64_t counted = load(examples);
    std::fill(state_gradients().begin(), state_gradients().end(), std::byte{0});
    return run(weights, g, counted, scale);
  }
  /// As add, for examples that come before those of the last call and end in the states where these
  /// began: their gradients go on from state_gradients().
  double add_earlier(const Weights<Model, T>& weights, std::span<const Example> examples,
                     Weights<Model, Master<R>>& g, double scale = 1) {
    return run(weights, g, load(examples), scale);
  }

  /// All sequences begin anew.
  void reset() {
    std::memset(blocks_.data(), 0, static_cast<std::size_t>(blocks_.bytes()));
    std::fill(positions_.begin(), positions_.end(), 0);
  }
  /// The next examples go on where the last ended (truncated back-propagation).
  void carry() {
    std::memcpy(found(), blocks_.data() + all_states(), static_cast<std::size_t>(all_states()));
    for (std::size_t i = 0; i < segments_.size(); ++i) positions_[i] += lengths_[i];
  }

  /// The states that the sequences go on from, as blocks of bytes that may be copied out and in, with
  /// their positions; and the gradients of the last call's loss with respect to them.
  std::span<std::byte> states() { return {found(), static_cast<std::size_t>(all_states())}; }
  std::span<std::byte> state_gradients() {
    return {blocks_.data() + 3 * all_states(),
            static_cast<std::size_t>(gradient_bytes_ * options_.sequences)};
  }
  std::span<std::int64_t> positions() { return positions_; }

 private:
  using State = typename Model::template State<T, KV>;
  using StateGradient = typename Model::template State<T, R>;
  using Logits = Rows<R, Model::vocab_size>;
  using Stream = Rows<R, Model::d_model>;

  /// Of the arenas.
  struct Sizes {
    std::int64_t blocks, tape, scratch = 0, own;
  };
  struct Counted {};

  /// Without its arenas.
  Gradient(GradientOptions options, Counted) : options_(check_options(options)) {
    const auto n = static_cast<std::size_t>(options_.sequences);
    states_.resize(n), again_.resize(n), found_.resize(n), state_gradients_.resize(n);
    state_bytes_ = place_state(found_[0], nullptr);
    gradient_bytes_ = place_state(state_gradients_[0], nullptr);
    sizes_.blocks = (3 * state_bytes_ + gradient_bytes_) * options_.sequences;
    Tape tape = this->tape(nullptr, nullptr, options_.tokens);
    for_each_branch<typename Model::Stack>([&](auto branch, Use) {
      using B = typename decltype(branch)::type;
      typename B::template Record<T> record;
      tape.offset += record.place(tape);
      sizes_.scratch = (std::max)(sizes_.scratch, B::template scratch_bytes<T>(tape));
    });
    sizes_.tape = tape.offset;
    sizes_.own = lay_out(nullptr);
    positions_.assign(n, 0);
    segments_.resize(n);
  }

  static GradientOptions check_options(GradientOptions o) {
    check_at_least("GradientOptions::sequences", o.sequences, 1);
    check_at_least("GradientOptions::tokens", o.tokens, 1);
    check_at_least("GradientOptions::capacity", o.capacity, 1);
    if (o.threads < 0) fail({"GradientOptions::threads: expected 0 or more, found ", o.threads});
    check_at_least("GradientOptions::loss_rows", o.loss_rows, 1);
    if (o.threads == 0) o.threads = default_threads();
    o.loss_rows = static_cast<int>(std::min<std::int64_t>(o.loss_rows, o.tokens));
    o.loss_rows += o.loss_rows % 2;  // products in bf16 take tokens two by two
    return o;
  }

  std::int64_t place_state(auto& state, std::byte* block) const {
    return Model::place_state(state, block, options_.capacity);
  }
  std::int64_t all_states() const { return state_bytes_ * options_.sequences; }
  std::byte* found() const { return blocks_.data(); }
  Tape tape(std::byte* block, std::byte* scratch, std::int64_t rows) const {
    return {block, 0, scratch, rows, options_.threads, options_.recompute};
  }

  std::int64_t lay_out(std::byte* block) {
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      x = reinterpret_cast<X*>(placer.take(n * static_cast<std::int64_t>(sizeof(X))));
    };
    const std::int64_t n = options_.tokens;
    take(x_, n * Model::d_model), take(dx_, n * Model::d_model);
    take(losses_, n), take(tokens_, n), take(targets_, n);
    take(normed_, options_.loss_rows * std::int64_t{Model::d_model});
    take(dnormed_, options_.loss_rows * std::int64_t{Model::d_model});
    take(inverse_, options_.loss_rows);
    take(logits_, options_.loss_rows * std::int64_t{Model::vocab_size});
    return placer.offset;
  }

  /// Takes over the examples; returns the targets that count.
  std::int64_t load(std::span<const Example> examples) {
    if (std::ssize(examples) != options_.sequences)
      fail({"Gradient::add: expected ", options_.sequences, " examples, found ", examples.size()});
    std::int64_t rows = 0, counted = 0;
    for (std::size_t s = 0; s < examples.size(); ++s) {
      const auto& [tokens, targets] = examples[s];
      if (tokens.size() != targets.size())
        fail({"Gradient::add: example ", s, ": expected as many targets as tokens (", tokens.size(),
              "), found ", targets.size()});
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || tokens[i] >= Model::vocab_size || targets[i] >= Model::vocab_size)
          fail({"Gradient::add: example ", s, ": token ", tokens[i], " or target ", targets[i],
                " at index ", i, " is outside the vocabulary [0, ", Model::vocab_size, ")"});
        counted += targets[i] >= 0;
      }
      rows += std::ssize(tokens);
      if constexpr (Model::has_capacity)
        if (positions_[s] + std::ssize(tokens) > options_.capacity)
          fail({"Gradient::add: example ", s, ": position ", positions_[s], " and ", tokens.size(),
                " tokens pass the capacity of ", options_.capacity,
                " positions; give GradientOptions{.capacity = ...}"});
    }
    if (rows > options_.tokens)
      fail({"Gradient::add: expected at most ", options_.tokens, " tokens, found ", rows});
    rows_ = 0;
    lengths_.assign(examples.size(), 0);
    for (std::size_t s = 0; s < examples.size(); ++s) {
      const auto& [tokens, targets] = examples[s];
      std::copy(tokens.begin(), tokens.end(), tokens_ + rows_);
      std::copy(targets.begin(), targets.end(), targets_ + rows_);
      lengths_[s] = std::ssize(tokens);
      segments_[s] = {positions_[s], rows_, lengths_[s]};
      rows_ += lengths_[s];
    }
    return counted;
  }

  /// Forward and backward; returns the mean loss.
  double run(const Weights<Model, T>& weights, Weights<Model, Master<R>>& g, std::int64_t counted,
             double scale_of_mean) {
    // Without a target the mean is 0, but states move on and their gradients go back.
    const double targets = static_cast<double>(std::max<std::int64_t>(counted, 1));
    const R scale = static_cast<R>(scale_of_mean / targets);
    using namespace kernels;
    using Stack = typename Model::Stack;
    const auto& w = weights.tree();
    auto& dw = g.tree();
    const auto bytes = static_cast<std::size_t>(all_states());
    std::memcpy(found() + bytes, found(), bytes);
    if (rows_ == 0) return 0;
    if (options_.recompute) std::memcpy(found() + 2 * bytes, found(), bytes);
    const auto states = []<class S>(std::vector<S>& all) {
      return States<S>(reinterpret_cast<std::byte*>(all.data()), sizeof(S));
    };
    const Stream x{x_, rows_}, dx{dx_, rows_};
    parallel(options_.threads, [&](const Team& team) {
      const Chunk chunk{team, segments_, rows_};
      Tape tape = this->tape(tape_.data(), scratch_.data(), rows_);
      if constexpr (Model::tie_embeddings)
        embedding(team, w.head, tokens_, x);
      else
        embedding(team, w.embedding, tokens_, x);
      Stack::template record<T, KV>(chunk, w.stack, states(states_), tape, Model::norm_eps, x);

      for (std::int64_t row = 0, n; row < rows_; row += n) {
        n = std::min<std::int64_t>(options_.loss_rows, rows_ - row);
        const Stream part{x.row(row), n}, dpart{dx.row(row), n}, normed{normed_, n},
            dnormed{dnormed_, n};
        const Logits logits{logits_, n};
        rmsnorm(team, w.norm, Model::norm_eps, part, normed);
        matmul(team, w.head, normed, logits);
        cross_entropy(team, targets_ + row, scale, logits, losses_ + row);
        matmul_backward(team, w.head, normed, logits, dw.head, nullptr, dnormed);
        const Range mine = team.share(n);
        std::fill(dpart.row(mine.begin), dpart.row(mine.end), R{0});
        team.barrier();
        rmsnorm_backward(team, w.norm, Model::norm_eps, part, dnormed, {inverse_, n}, dpart,
                         dw.norm);
      }

      Stack::template backward<T, KV>(chunk, w.stack, dw.stack, states(found_), states(again_),
                                      states(state_gradients_), tape, Model::norm_eps, dx);
      if constexpr (Model::tie_embeddings)
        embedding_backward(team, tokens_, dx, dw.head);
      else
        embedding_backward(team, tokens_, dx, dw.embedding);
    });
    derive_backward(w, dw);
    double sum = 0;
    for (std::int64_t i = 0; i < rows_; ++i) sum += static_cast<double>(losses_[i]);
    return sum / targets;
  }

  /// The gradients of derived tensors go on to those they are derived from.
  static void derive_backward(const auto& w, auto& dw) {
    std::vector<const void*> layers;
    Model::Stack::walk(w.stack,
                       [&](auto, const auto& part, Use) { layers.push_back(&part.layer); });
    std::size_t i = 0;
    Model::Stack::walk(dw.stack, [&](auto branch, auto& part, Use) {
      using L = typename decltype(branch)::type::Layer::template Weights<T>;
      const auto& layer = *static_cast<const L*>(layers[i++]);
      if constexpr (requires { layer.derive_backward(part.layer); })
        layer.derive_backward(part.layer);
    });
  }

  GradientOptions options_;
  std::int64_t state_bytes_ = 0, gradient_bytes_ = 0, rows_ = 0;
  Sizes sizes_{};
  // The states found, those advanced, those advanced again, and the gradients; the record of a
  // forward pass, what one branch needs, and the following.
  Arena blocks_, tape_, scratch_, own_;
  std::vector<State> found_, states_, again_;
  std::vector<StateGradient> state_gradients_;
  std::vector<Segment> segments_;
  std::vector<std::int64_t> positions_, lengths_;
  R *x_, *dx_, *normed_, *dnormed_, *inverse_, *logits_, *losses_;
  std::int32_t *tokens_, *targets_;
};

}  // namespace samba::inline SAMBA_TARGET
