#pragma once
#include <samba/core/options.hpp>
#include <samba/kernels/cross_entropy.hpp>
#include <samba/kernels/elementwise.hpp>
#include <samba/kernels/embedding.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/stack/parallel.hpp>
#include <samba/stack/schedule.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace samba::inline SAMBA_TARGET {

/// What embeddings are multiplied by before the first branch.
enum class EmbeddingScale {
  one,
  sqrt_d_model,      ///< sqrt(d_model) (Gemma)
  sqrt_d_model_bf16  ///< the same, rounded to bfloat16 (RecurrentGemma)
};

/// Options of LanguageModel.
struct ModelOptions {
  int vocab_size = 0;           ///< rows of embedding and head
  bool tie_embeddings = false;  ///< the head is the embedding
  float norm_eps = 1e-5f;       ///< added to the mean square in every RMSNorm
  EmbeddingScale embedding_scale = EmbeddingScale::one;
  NormOptions final_norm = {};  ///< of the norm before the head
  float logit_cap = 0;          ///< logits become cap * tanh(logits / cap); 0: they stay
};

/// What a session allocates for KV = `KV`: a number of bytes, or for a model with full attention a
/// function of the capacity in positions. As a number it is that of the default capacity.
template <class Model, class KV>
struct StateBytes {
  constexpr std::int64_t operator()(std::int64_t capacity) const {
    return Model::template count_state_bytes<KV>(capacity);
  }
  constexpr operator std::int64_t() const { return (*this)(Model::default_capacity); }
};

namespace detail {

/// Keys and numbers of the shared branches seen so far.
struct SharedSeen {
  static constexpr int capacity = 256;
  std::array<Use, capacity> uses{};
  int count = 0;

  /// True the first time a branch is seen; always for branches that share nothing.
  constexpr bool first(Use use) {
    if (!use.shared) return true;
    for (int i = 0; i < count; ++i)
      if (uses[static_cast<std::size_t>(i)].shared == use.shared &&
          uses[static_cast<std::size_t>(i)].number == use.number)
        return false;
    // Past the end: not a constant, so the compilation stops.
    uses[static_cast<std::size_t>(count++)] = use;
    return true;
  }
};

template <class Tensor>
constexpr std::int64_t elements() {
  std::int64_t n = 1;
  for (const auto extent : Tensor::shape) n *= extent;
  return n;
}

// What the constants of a model are counted with: visitors of tensors and of branches.

struct CountElements {
  std::int64_t n = 0;
  template <class X>
  constexpr void operator()(const auto&, const X&, const auto&...) {
    n += elements<X>();
  }
};
struct CountProducts {
  std::int64_t flops = 0;
  template <class X>
  constexpr void operator()(const auto&, const X&, const auto&...) {
    if constexpr (requires { X::is_matrix; }) flops += 2 * elements<X>();
  }
};
struct CountWeightBytes {
  std::int64_t bytes = 0;
  template <class X>
  constexpr void operator()(const auto&, const X&, const auto&...) {
    bytes += round_up(X::bytes, alignment);
  }
};
struct CountStateBytes {
  std::int64_t capacity, bytes = 0;
  template <class X>
  constexpr void operator()(const auto&, const X&, const auto&...) {
    bytes =
        checked_round_up("capacity", checked_sum("capacity", bytes, X::bytes(capacity)), alignment);
  }
};

/// f(name, tensor) for the tensors of a branch, then for those derived from them.
template <class B, class T>
constexpr void visit_all(auto& weights, auto& f) {
  using W = typename B::template Weights<T>;
  W::visit(weights, f);
  visit_derived<W>(weights, f);
}

/// Parameters of one branch, its norms included.
template <class B>
constexpr std::int64_t branch_parameters() {
  const typename B::template Weights<float> weights{};
  CountElements count;
  B::template Weights<float>::visit(weights, count);
  return count.n;
}
/// FLOPs of one branch for the token at a position.
template <class B>
constexpr std::int64_t branch_flops(std::int64_t position) {
  const typename B::template Weights<float> weights{};
  CountProducts count;
  B::template Weights<float>::visit(weights, count);
  if constexpr (requires { B::Layer::other_flops(position); })
    count.flops += B::Layer::other_flops(position);
  return count.flops;
}
/// Bytes of one branch's state.
template <class B, class P>
constexpr std::int64_t branch_state_bytes(std::int64_t capacity) {
  const typename B::template State<P> state{};
  CountStateBytes count{capacity};
  B::template State<P>::visit(state, count);
  return count.bytes;
}

struct CountBranches {
  int n = 0;
  constexpr void operator()(auto, Use) { ++n; }
};
struct CountParameters {
  std::int64_t n = 0;
  SharedSeen seen = {};
  constexpr void operator()(auto branch, Use use) {
    if (seen.first(use)) n += branch_parameters<typename decltype(branch)::type>();
  }
};
template <class T>
struct CountBranchWeights {
  CountWeightBytes count = {};
  SharedSeen seen = {};
  constexpr void operator()(auto branch, Use use) {
    using B = typename decltype(branch)::type;
    if (!seen.first(use)) return;
    const typename B::template Weights<T> weights{};
    visit_all<B, T>(weights, count);
  }
};
template <class P>
struct CountStates {
  std::int64_t capacity, bytes = 0;
  constexpr void operator()(auto branch, Use) {
    using B = typename decltype(branch)::type;
    bytes = checked_sum("capacity", bytes, branch_state_bytes<B, P>(capacity));
  }
};
struct CountFlops {
  std::int64_t position, flops = 0;
  constexpr void operator()(auto branch, Use) {
    flops += branch_flops<typename decltype(branch)::type>(position);
  }
};

/// Binds the tensors of a branch's states.
template <class State>
struct BindState {
  Placer& placer;
  std::int64_t stride, capacity;
  bool in_turn;

  template <class X>
  void operator()(const auto&, X& x) const {
    if constexpr (requires {
                    State::any_slots;
                    x.n_slots;
                  })
      if (in_turn) return x.bind_slots(placer.take(X::bytes_of(1)), stride, 1);
    x.bind(placer.take(X::bytes(capacity), "capacity"), stride, capacity);
  }
};
template <class P>
struct BindStates {
  Placer placer;
  std::int64_t stride, capacity;
  bool in_turn;
  std::int64_t bytes = 0;

  [[gnu::cold]] void operator()(auto branch, Use, auto& part) {
    using State = typename decltype(branch)::type::template State<P>;
    if (in_turn) placer.offset = 0;
    BindState<State> bind{placer, stride, capacity, in_turn};
    State::visit(part, bind);
    bytes = (std::max)(bytes, placer.offset);
  }
};

/// The channels that branches write, in their order, and the first branches that read one that is
/// not there, or write one again; -1: none does.
template <int D>
struct ChannelList {
  static constexpr int capacity = 64;
  struct One {
    std::uint64_t key = 0;
    int width = 0;
    int branch = -1;  ///< that writes it; -1: the model
  };
  std::array<One, capacity> all{One{type_key<Embedding<D>>(), D}};
  int n = 1, missing_at = -1, twice_at = -1, branch = 0;
  bool reads_embedding = false, lends_state = false;

  constexpr bool has(std::uint64_t key) const {
    for (int i = 0; i < n; ++i)
      if (all[static_cast<std::size_t>(i)].key == key) return true;
    return false;
  }
  template <class B>
  constexpr void operator()(std::type_identity<B>, Use) {
    read(typename ReadsOf<typename B::Layer>::type{});
    read(typename ReadsOf<typename B::Node>::type{});
    write(typename WritesOf<typename B::Layer>::type{});
    ++branch;
  }

 private:
  template <class... C>
  constexpr void read(Channels<C...>) {
    (read_one<C>(), ...);
  }
  template <class... C>
  constexpr void write(Channels<C...>) {
    (write_one<C>(), ...);
  }
  template <class C>
  constexpr void read_one() {
    if constexpr (!std::is_void_v<C>) {
      if (missing_at < 0 && !has(type_key<C>())) missing_at = branch;
      reads_embedding = reads_embedding || std::is_same_v<C, Embedding<D>>;
    }
  }
  template <class C>
  constexpr void write_one() {
    if constexpr (!std::is_void_v<C>) {
      if (twice_at < 0 && has(type_key<C>())) twice_at = branch;
      lends_state = lends_state || LendsState<C>;
      // Past the end this is no constant.
      all[static_cast<std::size_t>(n++)] = {type_key<C>(), C::width, branch};
    }
  }
};

/// Stops the compilation with a message; the numbers are those of the branches, from 0 on.
template <int reads_what_none_wrote, int writes_again>
struct CheckChannels {
  static_assert(
      reads_what_none_wrote < 0,
      "LanguageModel: a branch (its number is the first of CheckChannels) reads a channel "
      "that no branch before it writes");
  static_assert(
      writes_again < 0,
      "LanguageModel: a branch (its number is the second of CheckChannels) writes a channel "
      "that another one writes, or itself where it is repeated");
};

/// Calls f.template lent<C>(state) for every channel C of the list that lends the branch's state.
template <class C>
void if_lent(const auto& state, const auto& f) {
  if constexpr (LendsState<C>) f.template lent<C>(state);
}
template <class... C>
void for_each_lent(Channels<C...>, const auto& state, const auto& f) {
  (if_lent<C>(state, f), ...);
}
template <class B>
using WritesOfBranch = typename WritesOf<typename B::type::Layer>::type;

/// Records the states that channels lend in their places.
struct LendStates {
  std::span<ChannelPlace> places;
  const void* ChannelPlace::* which;

  void operator()(auto branch, Use, const auto& state) const {
    for_each_lent(WritesOfBranch<decltype(branch)>{}, state, *this);
  }
  template <class C>
  void lent(const auto& state) const {
    for (ChannelPlace& place : places)
      if (place.key == type_key<C>()) place.*which = &state;
  }
};
/// At the end of a chunk, the states that were lent take its last rows.
template <class P>
struct UpdateLent {
  const Context<P>& c;

  void operator()(auto branch, Use, const auto& state) const {
    for_each_lent(WritesOfBranch<decltype(branch)>{}, state, *this);
  }
  template <class C>
  void lent(const auto& state) const {
    C::template update<P>(c, c.template read<C>(), state);
  }
};
/// The gradients of that.
template <class P>
struct UpdateLentBackward {
  const Context<P>& c;

  void operator()(auto branch, Use, const auto& dstate) const {
    for_each_lent(WritesOfBranch<decltype(branch)>{}, dstate, *this);
  }
  template <class C>
  void lent(const auto& dstate) const {
    C::template update_backward<P>(c, c.template gradient<C>(), dstate);
  }
};

// A pass through the branches.

template <class P, int D>
struct ForwardPass {
  const Context<P>& c;
  const ScratchMemory& memory;
  Rows<Residual<P>, D> x;

  void operator()(auto branch, Use, const auto& w, const auto& s) const {
    decltype(branch)::type::template forward<P>(c, w, s, memory, x);
  }
};
template <class P, int D>
struct RecordingPass {
  const Context<P>& c;
  Tape& tape;
  Rows<Residual<P>, D> x;

  void operator()(auto branch, Use, const auto& w, const auto& s) const {
    decltype(branch)::type::template record<P>(c, w, s, tape, x);
  }
};
template <class P, int D>
struct BackwardPass {
  const Context<P>& c;
  Tape& tape;
  Rows<Residual<P>, D> dx;

  void operator()(auto branch, Use, const auto& w, auto& g, const auto& s, const auto& again,
                  const auto& ds) const {
    decltype(branch)::type::template backward<P>(c, w, g, s, again, ds, tape, dx);
  }
};

}  // namespace detail

/// Embedding, stack, final norm and head: tokens in, logits out. All of its sizes are constants.
/// Derive a model from it to give it a short name: struct Mine : LanguageModel<...> {};
template <class S, auto Options = ModelOptions{}>
struct LanguageModel {
  static_assert(detail::are_options<ModelOptions, Options>,
                "LanguageModel<Stack, Options>: write options as ModelOptions{.vocab_size = 256}");
  static constexpr ModelOptions options = detail::options_of<ModelOptions, Options>;
  using Stack = typename std::conditional_t<detail::IsStack<S>, std::type_identity<S>,
                                            std::type_identity<HybridStack<S>>>::type;
  static constexpr int d_model = Stack::d_model, vocab_size = options.vocab_size;
  static constexpr bool tie_embeddings = options.tie_embeddings;
  static constexpr float norm_eps = options.norm_eps;
  static constexpr std::int64_t default_capacity = 4096;
  static_assert(vocab_size > 0, "LanguageModel: give ModelOptions{.vocab_size = ...}, at least 1");
  static constexpr float logit_cap = options.logit_cap;
  static constexpr EmbeddingScale embedding_scale = options.embedding_scale;
  static constexpr NormOptions final_norm_options = options.final_norm;
  using FinalNorm = Norm<final_norm_options>;
  static_assert(norm_eps > 0, "LanguageModel: norm_eps must be positive");
  static_assert(logit_cap >= 0, "LanguageModel: logit_cap must not be negative");

  /// Views of all weights.
  template <class T>
  struct Tree {
    Table<TableElement<T>, tie_embeddings ? 1 : vocab_size, d_model> embedding;  // not used if tied
    typename Stack::template Tree<WeightsOf<T>> stack;
    typename FinalNorm::template Weights<T, d_model> norm;
    Matrix<HeadWeight<T>, vocab_size, d_model> head;  // the embedding too if tied

    static constexpr void visit_norm(auto& tree, auto&& f) {
      FinalNorm::visit(tree.norm, f, "norm", "norm_bias");
    }
    static constexpr void visit_norm_derived(auto& tree, auto&& f) {
      FinalNorm::visit_derived(tree.norm, f, "norm_factor");
    }
  };

  /// Views of the states of sequences: of the first one's, with the bytes from one to the next.
  template <class P>
  using States = typename Stack::template Tree<StateOf<P>>;

  /// Residual branches, weight-shared ones counted at each use.
  static constexpr int depth = [] {
    detail::CountBranches count;
    for_each_branch<Stack>(count);
    return count.n;
  }();

  /// Trainable numbers; shared and tied ones once.
  static constexpr std::int64_t parameters = [] {
    detail::CountParameters count{std::int64_t{tie_embeddings ? 1 : 2} * vocab_size * d_model +
                                  (FinalNorm::bias ? 2 : 1) * d_model};
    for_each_branch<Stack>(count);
    return count.n;
  }();

  /// Bytes of the weights as they are held for matrices of type T, padding and derived tensors
  /// included.
  template <class T>
  static constexpr std::int64_t weight_bytes = [] {
    detail::CountBranchWeights<T> all;
    constexpr Tree<T> tree{};
    if (!tie_embeddings) all.count(0, tree.embedding);
    tree.visit_norm(tree, all.count);
    tree.visit_norm_derived(tree, all.count);
    all.count(0, tree.head);
    for_each_branch<Stack>(all);
    return all.count.bytes;
  }();

  /// Bytes of one sequence's state; see StateBytes.
  template <class KV = float>
  static constexpr StateBytes<LanguageModel, KV> state_bytes{};

  template <class KV>
  static constexpr std::int64_t count_state_bytes(std::int64_t capacity) {
    using T = std::conditional_t<std::is_same_v<KV, double>, double, float>;
    detail::CountStates<Policy<T, KV>> count{capacity};
    for_each_branch<Stack>(count);
    return count.bytes;
  }

  /// Binds the tensors of states to a block for this capacity, or only counts, if it is null; returns
  /// the bytes of one sequence's state. The next sequence's state begins `stride` bytes later.
  /// in_turn: for branches that start from an empty state, one after the other: each one's tensors
  /// begin at the start of the block, and rings have one slot if the layer needs no more
  /// (State::any_slots).
  template <class P>
  [[gnu::cold]] static std::int64_t place_states(States<P>& states, std::byte* block,
                                                 std::int64_t stride, std::int64_t capacity,
                                                 bool in_turn = false) {
    detail::BindStates<P> bind{{block}, stride, capacity, in_turn};
    Stack::walk(bind, Use{}, states);
    return bind.bytes;
  }

  /// True if some layer keeps every position, so that a session has a capacity.
  static constexpr bool has_capacity =
      count_state_bytes<float>(2 * alignment) != count_state_bytes<float>(alignment);

  /// FLOPs of one token at a position: two per weight of a product, and what layers count
  /// themselves.
  static constexpr std::int64_t flops_per_token(std::int64_t position) {
    detail::CountFlops count{position, std::int64_t{2} * vocab_size * d_model};
    for_each_branch<Stack>(count);
    return count.flops;
  }

  /// The channels of the model; the first is that of the embeddings.
  static constexpr auto channels = [] {
    detail::ChannelList<d_model> list;
    for_each_branch<Stack>(list);
    return list;
  }();
  /// Channels that take memory.
  static constexpr int n_channels = channels.n - (channels.reads_embedding ? 0 : 1);

  /// Gives the channels their places for some rows, or only counts, where the placer does. places:
  /// n_channels of them. Their gradients only with `gradients`.
  template <class P>
  [[gnu::cold]] static void place_channels(detail::ChannelPlace* places, Placer& placer,
                                           std::int64_t rows, bool gradients) {
    static_assert(sizeof(detail::CheckChannels<channels.missing_at, channels.twice_at>) > 0);
    for (int i = channels.n - n_channels; i < channels.n; ++i, ++places) {
      const auto& channel = channels.all[static_cast<std::size_t>(i)];
      const std::int64_t width = channel.width * static_cast<std::int64_t>(sizeof(Act<P>));
      *places = {channel.key, placer.take_array(rows, width, "channels"),
                 gradients ? placer.take_array(rows, width, "channels") : nullptr};
    }
  }

  /// Lends the states to the branches that read them, as a chunk finds them; and their gradients. To be
  /// called before each pass, with the places of the channels.
  template <class P>
  static void lend_states(std::span<detail::ChannelPlace> places, const States<P>& states) {
    if constexpr (channels.lends_state) lend(places, &detail::ChannelPlace::state, states);
  }
  template <class P>
  static void lend_gradients(std::span<detail::ChannelPlace> places,
                             const States<Gradients<P>>& dstates) {
    if constexpr (channels.lends_state)
      lend(places, &detail::ChannelPlace::state_gradient, dstates);
  }

  // The model's arithmetic, for sessions and for training. x, dx: the residual stream of the chunk's
  // rows, (rows, d_model).

  template <class P>
  using Stream = Rows<Residual<P>, d_model>;
  template <class P>
  using Logits = Rows<Real<P>, vocab_size>;

  /// x = the scaled embeddings of the tokens, (rows).
  template <class P>
  static void embed(const Context<P>& c, const Tree<Weight<P>>& w, const std::int32_t* tokens,
                    Stream<P> x) {
    kernels::embedding(c, embedding_of(w), tokens, x, scale_of_embedding<Residual<P>>());
    if constexpr (channels.reads_embedding)
      kernels::copy<d_model>(c, {.from = x, .to = c.template write<Embedding<d_model>>()});
  }

  /// Takes x through all branches in place, and advances the states.
  template <class P>
  static void forward(const Context<P>& c, const Tree<Weight<P>>& w, const States<P>& states,
                      const ScratchMemory& memory, Stream<P> x) {
    const detail::ForwardPass<P, d_model> pass{c, memory, x};
    Stack::walk(pass, Use{}, w.stack, states);
    update_lent(c, states);
  }
  /// The same, leaving on the tape what backward needs.
  template <class P>
  static void record(const Context<P>& c, const Tree<Weight<P>>& w, const States<P>& states,
                     Tape& tape, Stream<P> x) {
    const detail::RecordingPass<P, d_model> pass{c, tape, x};
    Stack::walk(pass, Use{}, w.stack, states);
    if (!tape.fresh) update_lent(c, states);
  }

  /// The logits of some rows of x, which are normed first. normed: scratch for as many rows.
  template <class P>
  static void logits(const Context<P>& c, const Tree<Weight<P>>& w, Stream<P> x,
                     Rows<Act<P>, d_model> normed, Logits<P> logits) {
    FinalNorm::template forward<d_model>(c, w.norm, x, normed);
    kernels::matmul_to_real(c, w.head, normed, logits);
    if constexpr (logit_cap > 0) kernels::soft_cap<vocab_size>(c, logits, logit_cap);
  }

  /// Scratch of loss(), for some rows.
  template <class P>
  struct LossScratch {
    Rows<Act<P>, d_model> normed, dnormed;
    typename FinalNorm::template Statistics<P> statistics;
    Logits<P> logits, capped;

    static void visit(auto& t, auto&& f) {
      f(t.normed);
      f(t.dnormed);
      f(t.statistics);
      f(t.logits);
      if constexpr (logit_cap > 0) f(t.capped);
    }
    /// Of the first n rows.
    LossScratch of(std::int64_t n) const {
      LossScratch t = *this;
      t.normed.rows = t.dnormed.rows = t.statistics.rows = t.logits.rows = t.capped.rows = n;
      return t;
    }
  };

  /// The losses of some rows of x and their gradients: dx is written, g added to. See CrossEntropy.
  template <class P>
  static void loss(const Context<P>& c, const Tree<Weight<P>>& w, Tree<Weight<Gradients<P>>>& g,
                   const kernels::CrossEntropy<P>& targets, const LossScratch<P>& t, Stream<P> x,
                   Stream<P> dx) {
    logits(c, w, x, t.normed, t.logits);
    if constexpr (logit_cap > 0) kernels::copy<vocab_size>(c, {.from = t.logits, .to = t.capped});
    kernels::cross_entropy<vocab_size>(c, targets, t.logits);
    if constexpr (logit_cap > 0)
      kernels::soft_cap_backward<vocab_size>(c, t.capped, t.logits, logit_cap);
    kernels::matmul_backward(c, w.head,
                             {.x = t.normed, .dout = t.logits, .dw = g.head, .dx = t.dnormed});
    kernels::clear(c, dx);
    FinalNorm::template backward<d_model>(c, w.norm, g.norm, x, t.dnormed, dx, t.statistics);
  }

  /// The branches' gradients in reverse order, then those of the embedding: g is added to. dx: the
  /// gradient of x as record() left it, then as it found it. found: the states that record() found;
  /// again: a copy, which recomputing advances; dstates: the gradients of the states that it left, then
  /// of those that it found.
  template <class P>
  static void backward(const Context<P>& c, const Tree<Weight<P>>& w, Tree<Weight<Gradients<P>>>& g,
                       const States<P>& found, const States<P>& again,
                       const States<Gradients<P>>& dstates, Tape& tape, const std::int32_t* tokens,
                       Stream<P> dx) {
    for (const auto& [key, width, branch] : channels.all)
      if (const detail::ChannelPlace* place = c.find_channel(key))
        kernels::clear(c, static_cast<Act<P>*>(place->gradient), width);
    if constexpr (channels.lends_state)
      if (!tape.fresh) {
        const detail::UpdateLentBackward<P> update{c};
        Stack::walk(update, Use{}, dstates);
      }
    const detail::BackwardPass<P, d_model> pass{c, tape, dx};
    Stack::walk_back(pass, Use{}, w.stack, g.stack, found, again, dstates);
    if constexpr (channels.reads_embedding)
      kernels::add_to_residual<d_model>(
          c, {.term = c.template gradient<Embedding<d_model>>(), .to = dx});
    kernels::embedding_backward(c, tokens, dx, embedding_of(g), scale_of_embedding<Residual<P>>());
  }

 private:
  static void lend(std::span<detail::ChannelPlace> places,
                   const void* detail::ChannelPlace::* which, const auto& states) {
    const detail::LendStates lend{places, which};
    Stack::walk(lend, Use{}, states);
  }
  template <class P>
  static void update_lent(const Context<P>& c, const States<P>& states) {
    if constexpr (channels.lends_state) {
      const detail::UpdateLent<P> update{c};
      Stack::walk(update, Use{}, states);
    }
  }
  template <class R>
  static R scale_of_embedding() {
    const R root = std::sqrt(static_cast<R>(d_model));
    return embedding_scale == EmbeddingScale::one ? R{1}
           : embedding_scale == EmbeddingScale::sqrt_d_model
               ? root
               : static_cast<R>(bf16(static_cast<float>(root)));
  }
  static auto& embedding_of(auto& w) {
    if constexpr (tie_embeddings)
      return w.head;
    else
      return w.embedding;
  }
};

}  // namespace samba::inline SAMBA_TARGET
