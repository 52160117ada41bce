#pragma once
#include <samba/kernels/cpu.hpp>
#include <samba/model/weights.hpp>
#include <samba/train/check_option.hpp>
#include <samba/train/example.hpp>

#include <algorithm>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace samba::inline SAMBA_TARGET {

struct GradientOptions {
  int sequences = 1;             ///< that go through the model together
  std::int64_t tokens = 0;       ///< the most tokens of all sequences together
  std::int64_t capacity = 4096;  ///< positions that full attention keeps; other models ignore it
  /// At most the number of processors. 0: OpenMP's maximum, or 1 inside a parallel region.
  int threads = 0;
  bool recompute = false;  ///< keep only each branch's input, and recompute the rest
  int loss_rows = 512;     ///< tokens whose logits are in memory at a time, rounded up to even
  /// Every example starts from an empty state, and no state is kept. A sequence then takes memory
  /// for the state of one layer only, without earlier keys and values.
  bool fresh = false;
};

/// The mean cross entropy of sequences, weighted by the weights of their targets, and its
/// gradients. Back-propagates through all tokens, and through the states that the sequences start
/// from and end in. The gradients have the same bits for any number of threads, any loss_rows, and
/// with or without recompute.
///
/// T: the type of the matrices and of the operands of their products; gradients are Real<T>.
template <class Model, class T = float, class KV = Real<T>>
class Gradient {
  static_assert(!std::is_same_v<T, int8> && !std::is_same_v<T, q4>,
                "Gradient: train in float or bf16; quantise afterwards");

 public:
  using R = Real<T>;

  explicit Gradient(GradientOptions options) : Gradient(options, SizesOnly{}) {
    blocks_ = Arena(sizes_.blocks, for_states);
    tape_ = Arena(sizes_.tape, "GradientOptions::tokens: what the backward pass needs");
    scratch_ = Arena(sizes_.scratch, "GradientOptions::tokens, threads: what is computed");
    own_ = Arena(sizes_.own, "GradientOptions::tokens, loss_rows: tokens and logits");
    constexpr const char* sequences = "GradientOptions::sequences";
    resize(positions_, options_.sequences, sequences);
    resize(segments_, options_.sequences, sequences);
    place_states(blocks_.data());
    lay_out(own_.data());
  }

  /// The bytes that a Gradient with these options would allocate.
  static std::int64_t bytes(GradientOptions options) {
    const Sizes s = Gradient(options, SizesOnly{}).sizes_;
    constexpr const char* what = "a Gradient";
    return checked_sum(what, checked_sum(what, s.blocks, s.tape),
                       checked_sum(what, s.scratch, s.own));
  }
  /// The bytes that this one has allocated.
  std::int64_t bytes() const {
    return blocks_.bytes() + tape_.bytes() + scratch_.bytes() + own_.bytes();
  }

  /// Adds scale times the gradients of the mean loss of the examples (one per sequence; some may be
  /// empty) to g. Returns the mean loss over the targets that count. The sequences start from their
  /// states, which only carry() advances.
  double add(const Weights<Model, T>& weights, std::span<const Example> examples,
             Weights<Model, Master<R>>& g, double scale = 1) {
    const double counted = load(examples);
    std::fill(state_gradients().begin(), state_gradients().end(), std::byte{0});
    return run(weights, g, counted, scale);
  }
  /// As add, for examples that come before those of the last call and end in the states where these
  /// began: their gradients continue from state_gradients().
  double add_earlier(const Weights<Model, T>& weights, std::span<const Example> examples,
                     Weights<Model, Master<R>>& g, double scale = 1) {
    check_kept("add_earlier");
    return run(weights, g, load(examples), scale);
  }

  /// Lets all sequences start from empty states.
  void reset() {
    std::fill_n(blocks_.data(), blocks_.bytes(), std::byte{0});
    std::fill(positions_.begin(), positions_.end(), 0);
  }
  /// Lets the next examples continue where the last ones ended (truncated back-propagation).
  void carry() {
    check_kept("carry");
    std::copy_n(found() + all_states(), all_states(), found());
    for (std::size_t i = 0; i < segments_.size(); ++i) positions_[i] += lengths_[i];
  }

  /// The states that the sequences start from, as bytes that may be copied out and back in; the
  /// gradients of the last call's loss with respect to them; and the sequences' positions. States
  /// and gradients are empty with GradientOptions::fresh.
  std::span<std::byte> states() { return {found(), static_cast<std::size_t>(all_states())}; }
  std::span<std::byte> state_gradients() {
    if (options_.fresh) return {};
    return {blocks_.data() + 3 * all_states(),
            static_cast<std::size_t>(gradient_bytes_ * options_.sequences)};
  }
  std::span<std::int64_t> positions() { return positions_; }

 private:
  using P = Policy<T, KV>;
  using Stream = Rows<R, Model::d_model>;

  /// The arenas' sizes in bytes.
  struct Sizes {
    std::int64_t blocks, tape, scratch = 0, own;
  };
  struct SizesOnly {};
  static constexpr const char* for_states = "GradientOptions::capacity, sequences: states";

  /// Computes the sizes of the arenas, but does not allocate them.
  Gradient(GradientOptions options, SizesOnly) : options_(check_options(options)) {
    state_bytes_ = place<P>(found_, nullptr, 0);
    gradient_bytes_ = place<Gradients<P>>(state_gradients_, nullptr, 0);
    const auto times = [](std::int64_t n, std::int64_t bytes) {
      return checked_product(for_states, n, bytes);
    };
    const std::int64_t n = options_.sequences,
                       each = checked_sum(for_states, times(3, state_bytes_), gradient_bytes_);
    sizes_.blocks = options_.fresh ? checked_sum(for_states, state_bytes_, times(n, branch_bytes()))
                                   : times(n, each);
    CountTape count{this->tape(nullptr, nullptr, options_.tokens)};
    for_each_branch<typename Model::Stack>(count);
    sizes_.tape = count.tape.offset;
    sizes_.scratch = count.scratch;
    sizes_.own = lay_out(nullptr);
  }

  static GradientOptions check_options(GradientOptions o) {
    check_at_least("GradientOptions::sequences", o.sequences, 1);
    check_at_least("GradientOptions::tokens", o.tokens, 1);
    check_at_least("GradientOptions::capacity", o.capacity, 1);
    if (o.threads < 0) fail({"GradientOptions::threads: expected 0 or more, found ", o.threads});
    check_at_least("GradientOptions::loss_rows", o.loss_rows, 1);
    o.threads = usable_threads(o.threads);
    constexpr std::int64_t most = (std::numeric_limits<int>::max)() - 1;
    o.loss_rows = static_cast<int>((std::min)({std::int64_t{o.loss_rows}, o.tokens, most}));
    o.loss_rows += o.loss_rows % 2;  // bf16 products take tokens in pairs
    return o;
  }

  /// Counts the bytes that the tape and a single branch need.
  struct CountTape {
    Tape tape;
    std::int64_t scratch = 0;
    void operator()(auto branch, Use) {
      using B = typename decltype(branch)::type;
      typename B::template Record<P> record;
      tape.offset = checked_sum("GradientOptions::tokens", tape.offset, record.place(tape));
      scratch = (std::max)(scratch, B::template scratch_bytes<P>(tape));
    }
  };

  /// Places the states of all sequences, `stride` bytes apart.
  template <class Q>
  std::int64_t place(auto& states, std::byte* block, std::int64_t stride) const {
    return Model::template place_states<Q>(states, block, stride, options_.capacity,
                                           options_.fresh);
  }
  void place_states(std::byte* at) {
    if (!options_.fresh) {
      for (auto* states : {&found_, &states_, &again_}) {
        place<P>(*states, at, state_bytes_);
        at += state_bytes_ * options_.sequences;
      }
      place<Gradients<P>>(state_gradients_, at, gradient_bytes_);
      return;
    }
    // All sequences start from one state, which stays empty. The states that a branch advances,
    // those that its recomputation advances, and the gradients use the same memory in turn.
    place<P>(found_, at, 0);
    at += state_bytes_;
    place<P>(states_, at, branch_bytes());
    place<P>(again_, at, branch_bytes());
    place<Gradients<P>>(state_gradients_, at, branch_bytes());
  }
  /// With `fresh`, bytes of one sequence's states and gradients of a branch.
  std::int64_t branch_bytes() const { return (std::max)(state_bytes_, gradient_bytes_); }
  /// Bytes of all states that are kept from call to call.
  std::int64_t all_states() const { return options_.fresh ? 0 : state_bytes_ * options_.sequences; }
  void check_kept(const char* call) const {
    if (options_.fresh)
      fail({"Gradient::", call, ": expected a Gradient that keeps states, found one with ",
            "GradientOptions::fresh"});
  }
  std::byte* found() const { return blocks_.data(); }
  Tape tape(std::byte* block, std::byte* scratch, std::int64_t rows) const {
    return {.block = block,
            .scratch = scratch,
            .rows = rows,
            .threads = options_.threads,
            .recompute = options_.recompute,
            .fresh = options_.fresh};
  }

  std::int64_t lay_out(std::byte* block) {
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      constexpr const char* what = "GradientOptions::tokens, loss_rows";
      x = reinterpret_cast<X*>(placer.take_array(n, sizeof(X), what));
    };
    const std::int64_t n = options_.tokens, rows = options_.loss_rows;
    const std::int64_t stream = checked_product("GradientOptions::tokens", n, Model::d_model);
    take(x_, stream);
    take(dx_, stream);
    take(losses_, n);
    take(tokens_, n);
    take(targets_, n);
    take(weights_, n);
    ScratchPlacer of_loss{placer, rows};
    decltype(loss_)::visit(loss_, of_loss);
    Model::template place_channels<P>(channels_.data(), of_loss.placer, n, true);
    return of_loss.placer.offset;
  }

  /// Checks and copies the examples; returns the total weight of the targets that count.
  double load(std::span<const Example> examples) {
    if (std::ssize(examples) != options_.sequences)
      fail({"Gradient::add: expected ", options_.sequences, " examples, found ", examples.size()});
    std::int64_t rows = 0;
    double counted = 0;
    weighted_ = false;
    for (std::size_t s = 0; s < examples.size(); ++s) {
      const auto& [tokens, targets, weights] = examples[s];
      if (tokens.size() != targets.size())
        fail({"Gradient::add: example ", s, ": expected as many targets as tokens (", tokens.size(),
              "), found ", targets.size()});
      if (!weights.empty() && weights.size() != tokens.size())
        fail({"Gradient::add: example ", s, ": expected no weights or as many as tokens (",
              tokens.size(), "), found ", weights.size()});
      for (std::size_t i = 0; i < weights.size(); ++i)
        if (!is_finite(weights[i]) || weights[i] < 0)
          fail({"Gradient::add: example ", s, ": weight ", weights[i], " at index ", i,
                ": expected a finite number of at least 0"});
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || tokens[i] >= Model::vocab_size || targets[i] >= Model::vocab_size)
          fail({"Gradient::add: example ", s, ": token ", tokens[i], " or target ", targets[i],
                " at index ", i, " is outside the vocabulary [0, ", Model::vocab_size, ")"});
      }
      counted += examples[s].weight();
      weighted_ = weighted_ || !weights.empty();
      rows += std::ssize(tokens);
      if (options_.fresh && positions_[s] != 0)
        fail({"Gradient::add: example ", s, ": expected position 0 with GradientOptions::fresh, ",
              "found ", positions_[s]});
      constexpr std::int64_t most = std::int64_t{1} << 62;  // far from overflow
      if (positions_[s] < 0 || positions_[s] > most)
        fail({"Gradient::add: example ", s, ": expected a position in [0, ", most, "], found ",
              positions_[s]});
      if constexpr (Model::has_capacity)
        if (std::ssize(tokens) > options_.capacity - positions_[s])
          fail({"Gradient::add: example ", s, ": position ", positions_[s], " and ", tokens.size(),
                " tokens exceed the capacity of ", options_.capacity,
                " positions; give GradientOptions{.capacity = ...}"});
    }
    if (rows > options_.tokens)
      fail({"Gradient::add: expected at most ", options_.tokens, " tokens, found ", rows});
    rows_ = 0;
    lengths_.assign(examples.size(), 0);
    for (std::size_t s = 0; s < examples.size(); ++s) {
      const auto& [tokens, targets, weights] = examples[s];
      std::copy(tokens.begin(), tokens.end(), tokens_ + rows_);
      std::copy(targets.begin(), targets.end(), targets_ + rows_);
      if (weights.empty())
        std::fill_n(weights_ + rows_, tokens.size(), 1.f);
      else
        std::copy(weights.begin(), weights.end(), weights_ + rows_);
      lengths_[s] = std::ssize(tokens);
      segments_[s] = {positions_[s], rows_, lengths_[s], static_cast<std::int64_t>(s)};
      rows_ += lengths_[s];
    }
    return counted;
  }

  /// Runs forward and backward; returns the mean loss.
  double run(const Weights<Model, T>& weights, Weights<Model, Master<R>>& g, double counted,
             double scale_of_mean) {
    // Without targets the mean is 0, but states still advance and their gradients still propagate.
    const double targets = counted > 0 ? counted : 1;
    const R scale = static_cast<R>(scale_of_mean / targets);
    const auto& w = weights.tree();
    auto& dw = g.tree();
    const std::int64_t bytes = all_states();
    std::copy_n(found(), bytes, found() + bytes);
    if (rows_ == 0) return 0;
    if (options_.recompute) std::copy_n(found(), bytes, found() + 2 * bytes);
    const Stream x{x_, rows_}, dx{dx_, rows_};
    Model::template lend_states<P>(channels_, found_);
    Model::template lend_gradients<P>(channels_, state_gradients_);
    parallel(options_.threads, [&](const Team& team) {
      const Context<P> c{{segments_, rows_}, {team}, Model::norm_eps, channels_};
      Tape tape = this->tape(tape_.data(), scratch_.data(), rows_);
      Model::embed(c, w, tokens_, x);
      Model::record(c, w, states_, tape, x);
      for (std::int64_t row = 0, n; row < rows_; row += n) {
        n = std::min<std::int64_t>(options_.loss_rows, rows_ - row);
        Model::loss(c, w, dw,
                    {.targets = targets_ + row,
                     .weights = weighted_ ? weights_ + row : nullptr,
                     .scale = scale,
                     .losses = losses_ + row},
                    loss_.of(n), {x.row(row), n}, {dx.row(row), n});
      }
      Model::backward(c, w, dw, found_, again_, state_gradients_, tape, tokens_, dx);
    });
    DeriveBackward derive;
    Model::Stack::walk(derive, Use{}, w.stack, dw.stack);
    detail::derive_backward(w.norm, dw.norm);
    double sum = 0;
    for (std::int64_t i = 0; i < rows_; ++i) sum += static_cast<double>(losses_[i]);
    return sum / targets;
  }

  /// Passes the gradients of derived tensors on to those they are derived from.
  struct DeriveBackward {
    void operator()(auto, Use, const auto& w, auto& dw) const { detail::derive_backward(w, dw); }
  };

  GradientOptions options_;
  std::int64_t state_bytes_ = 0, gradient_bytes_ = 0, rows_ = 0;
  Sizes sizes_{};
  // found_, states_, again_ and state_gradients_; the record of a forward pass; scratch of one
  // branch; the arrays declared below.
  Arena blocks_, tape_, scratch_, own_;
  typename Model::template States<P> found_, states_, again_;
  typename Model::template States<Gradients<P>> state_gradients_;
  std::vector<Segment> segments_;
  std::vector<std::int64_t> positions_, lengths_;
  R *x_, *dx_, *losses_;
  typename Model::template LossScratch<P> loss_;
  std::array<detail::ChannelPlace, Model::n_channels> channels_;
  std::int32_t *tokens_, *targets_;
  float* weights_;
  bool weighted_ = false;  // an example of the last call has weights
};

}  // namespace samba::inline SAMBA_TARGET
