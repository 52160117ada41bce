#pragma once
#include <samba/core/options.hpp>
#include <samba/kernels/embedding.hpp>
#include <samba/kernels/matmul.hpp>
#include <samba/stack/parallel.hpp>
#include <samba/stack/schedule.hpp>

#include <algorithm>
#include <array>

namespace samba::inline SAMBA_TARGET {

/// Options of LanguageModel.
struct ModelOptions {
  int vocab_size = 0;           ///< rows of embedding and head
  bool tie_embeddings = false;  ///< the head is the embedding
  float norm_eps = 1e-5f;       ///< added to the mean square in every RMSNorm
};

/// What a session allocates for KV = `KV`: a number of bytes, or for a model with full attention a
/// function of the capacity in positions. As a number it stands for the default capacity.
template <class Model, class KV>
struct StateBytes {
  constexpr std::int64_t operator()(std::int64_t capacity) const {
    return Model::template count_state_bytes<KV>(capacity);
  }
  constexpr operator std::int64_t() const { return (*this)(Model::default_capacity); }
};

namespace detail {

/// Keys and numbers of shared branches that were met before.
struct SharedSeen {
  static constexpr int capacity = 256;
  std::array<Use, capacity> uses{};
  int count = 0;

  /// True the first time a branch is met; branches that share nothing are always met first.
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

}  // namespace detail

/// Embedding, stack, final RMSNorm and head: tokens in, logits out. All of its sizes are constants.
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
  static_assert(norm_eps > 0, "LanguageModel: norm_eps must be positive");

  /// Views of all weights.
  template <class T>
  struct Tree {
    Table<TableElement<T>, tie_embeddings ? 1 : vocab_size, d_model> embedding;  // not used if tied
    typename Stack::template Tree<WeightsOf<T>> stack;
    Vector<Real<T>, d_model> norm;
    Matrix<T, vocab_size, d_model> head;  // the embedding too if tied
  };

  /// Views of one sequence's states.
  template <class T, class KV>
  using State = typename Stack::template Tree<StateOf<T, KV>>;

  /// f(name, tensor) for the tensors of a branch that a file holds: "norm.weight", then the
  /// layer's.
  template <class B, class T>
  static constexpr void visit_stored(auto&& weights, auto&& f) {
    if constexpr (B::normed) f("norm.weight", weights.norm);
    B::Layer::template Weights<T>::visit(weights.layer, f);
  }

  /// As visit_stored, then the tensors that are derived from them.
  template <class B, class T>
  static constexpr void visit_branch(auto&& weights, auto&& f) {
    using W = typename B::Layer::template Weights<T>;
    visit_stored<B, T>(weights, f);
    if constexpr (requires { W::visit_derived(weights.layer, f); })
      W::visit_derived(weights.layer, f);
  }

  /// Parameters of one branch, its norm included.
  template <class B>
  static constexpr std::int64_t branch_parameters = [] {
    std::int64_t n = 0;
    visit_stored<B, float>(typename B::template Weights<float>{},
                           [&]<class X>(auto, const X&) { n += detail::elements<X>(); });
    return n;
  }();

  /// FLOPs of one branch for the token at a position.
  template <class B>
  static constexpr std::int64_t branch_flops(std::int64_t position) {
    std::int64_t flops = 0;
    visit_stored<B, float>(typename B::template Weights<float>{}, [&]<class X>(auto, const X&) {
      if constexpr (requires { X::is_matrix; }) flops += 2 * detail::elements<X>();
    });
    if constexpr (requires { B::Layer::other_flops(position); })
      flops += B::Layer::other_flops(position);
    return flops;
  }

  /// Bytes of one branch's state.
  template <class B, class T, class KV>
  static constexpr std::int64_t branch_state_bytes(std::int64_t capacity) {
    using State = typename B::template State<T, KV>;
    State state{};
    std::int64_t bytes = 0;
    State::visit(state, [&]<class X>(auto, const X&) {
      bytes = checked_round_up("capacity", checked_sum("capacity", bytes, X::bytes(capacity)),
                               alignment);
    });
    return bytes;
  }

  /// Residual branches, weight-shared ones counted at each use.
  static constexpr int depth = [] {
    int n = 0;
    for_each_branch<Stack>([&](auto, Use) { ++n; });
    return n;
  }();

  /// Trainable numbers; shared and tied ones once.
  static constexpr std::int64_t parameters = [] {
    std::int64_t n = std::int64_t{tie_embeddings ? 1 : 2} * vocab_size * d_model + d_model;
    detail::SharedSeen seen;
    for_each_branch<Stack>([&](auto branch, Use use) {
      if (seen.first(use)) n += branch_parameters<typename decltype(branch)::type>;
    });
    return n;
  }();

  /// Bytes of the weights as they are held for matrices of type T, padding and derived tensors
  /// included.
  template <class T>
  static constexpr std::int64_t weight_bytes = [] {
    std::int64_t bytes = 0;
    const auto add = [&]<class X>(const X&) { bytes += round_up(X::bytes, alignment); };
    constexpr Tree<T> tree{};
    if (!tie_embeddings) add(tree.embedding);
    add(tree.norm), add(tree.head);
    detail::SharedSeen seen;
    for_each_branch<Stack>([&](auto branch, Use use) {
      using B = typename decltype(branch)::type;
      if (seen.first(use))
        visit_branch<B, T>(typename B::template Weights<T>{}, [&](auto, const auto& x) { add(x); });
    });
    return bytes;
  }();

  /// Bytes of one sequence's state; see StateBytes.
  template <class KV = float>
  static constexpr StateBytes<LanguageModel, KV> state_bytes{};

  template <class KV>
  static constexpr std::int64_t count_state_bytes(std::int64_t capacity) {
    std::int64_t bytes = 0;
    for_each_branch<Stack>([&](auto branch, Use) {
      using B = typename decltype(branch)::type;
      bytes = checked_sum("capacity", bytes, branch_state_bytes<B, StateReal<KV>, KV>(capacity));
    });
    return bytes;
  }

  /// Binds the tensors of a state (of any T, KV) to a block for this capacity, or only counts, if
  /// it is null; returns the bytes of the block. in_turn: for branches that start from an empty
  /// state, one after the other: each one's tensors stand from the beginning, and rings have one
  /// slot where the layer can do with that (State::any_slots).
  [[gnu::cold]] static std::int64_t place_state(auto& state, std::byte* block, std::int64_t capacity,
                                  bool in_turn = false) {
    Placer placer{block};
    std::int64_t bytes = 0;
    Stack::walk(state, [&](auto, auto& part, Use) {
      using Part = std::remove_reference_t<decltype(part)>;
      if (in_turn) placer.offset = 0;
      Part::visit(part, [&]<class X>(auto, X& x) {
        if constexpr (requires {
                        Part::any_slots;
                        x.n_slots;
                      })
          if (in_turn) return x.bind_slots(placer.take(X::bytes_of(1)), 1);
        x.bind(placer.take(X::bytes(capacity), "capacity"), capacity);
      });
      bytes = (std::max)(bytes, placer.offset);
    });
    return bytes;
  }

  /// True if some layer keeps every position, so that a session has a capacity.
  static constexpr bool has_capacity =
      count_state_bytes<float>(2 * alignment) != count_state_bytes<float>(alignment);

  /// FLOPs of one token at a position: two per weight of a product, and what layers count
  /// themselves.
  static constexpr std::int64_t flops_per_token(std::int64_t position) {
    std::int64_t flops = std::int64_t{2} * vocab_size * d_model;
    for_each_branch<Stack>([&](auto branch, Use) {
      flops += branch_flops<typename decltype(branch)::type>(position);
    });
    return flops;
  }

 private:
  template <class KV>
  using StateReal = std::conditional_t<std::is_same_v<KV, double>, double, float>;
};

}  // namespace samba::inline SAMBA_TARGET
