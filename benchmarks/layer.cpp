// The layers of a residual branch by themselves, without its norm and sum: `512_at_0` is a prompt of
// 512 tokens, `512_at_4096` one that continues a sequence, `1_at_4096` a step. Variants: the layer
// and the type of its matrices; keys and values are bf16 unless those are float. Sizes: Samba-421M,
// where each call finds its weights and its state in memory, and the demo, in the cache.
#include "bench.hpp"

#include <samba/samba.hpp>

#include <memory>

using namespace bench;
using namespace samba;

namespace {

/// Weights and a state of a layer.
template <class L, class T, class KV>
struct Instance {
  using Weights = typename L::template Weights<T>;
  using State = typename L::template State<Policy<T, KV>>;

  Weights weights;
  State state;

  /// Places the tensors in a block and returns the bytes they take; a null block only counts.
  std::int64_t place(std::byte* block) {
    Placer placer{block};
    const auto bind = [&]<class X>(const auto&, X& x, const auto&...) {
      x.bind(placer.take(X::bytes));
    };
    Weights::visit(weights, bind);
    if constexpr (requires { Weights::visit_derived(weights, bind); })
      Weights::visit_derived(weights, bind);
    State::visit(state, [&]<class X>(auto, X& x) { x.bind(placer.take(X::bytes(0)), 0, 0); });
    return placer.offset;
  }

  void randomize(Random& random) {
    Weights::visit(weights, [&]<class X>(const auto&, X& x, const auto&...) {
      fill(x.data(), X::bytes, random);
    });
    if constexpr (requires { weights.derive(); }) weights.derive();
    State::visit(state, [&]<class X>(auto, X& x) { fill(x.data, X::bytes(0), random); });
  }
};

/// Instances for the calls of a row to take in turn: one, or if cold as many as take more memory
/// than the pool.
template <class One>
class Instances {
 public:
  explicit Instances(bool cold) {
    const std::int64_t bytes = One{}.place(nullptr);
    all_.resize(cold ? static_cast<std::size_t>(pool_floats * 4 / bytes + 1) : 1);
    arena_ = Arena(bytes * std::ssize(all_));
    std::byte* block = arena_.data();
    Random random;
    for (One& one : all_) {
      block += one.place(block);
      one.randomize(random);
    }
  }

  const One& of(std::int64_t call) const {
    return all_[static_cast<std::size_t>(call) % all_.size()];
  }

 private:
  std::vector<One> all_;
  Arena arena_;
};

std::shared_ptr<const void> latest;

/// The instances of the rows that follow each other. Those of the next layer or type replace them:
/// all at once would be too large.
template <class One>
std::shared_ptr<const Instances<One>> instances(bool cold) {
  static std::weak_ptr<const Instances<One>> mine;
  auto kept = mine.lock();
  if (!kept) {
    latest = nullptr;
    mine = kept = std::make_shared<const Instances<One>>(cold);
    latest = kept;
  }
  return kept;
}

/// The branch that a layer alone becomes.
template <class L>
using BranchOf = Branch<samba::detail::NormedNode<void, L, void>>;

/// The weights that a file holds, each once (what is derived from one takes its place); the state;
/// the activations. FLOPs as a model counts them.
template <class L, class T, class KV>
Cost cost(bool cold, std::int64_t position, std::int64_t rows) {
  using One = Instance<L, T, KV>;
  Cost cost{
      .bytes = state_traffic<typename One::State>(position, rows) + floats(2 * rows * L::d_model),
      .dot = dot_of<T>};
  One one;
  One::Weights::visit(one.weights, [&]<class X>(const auto&, const X&, const auto&...) {
    cost.bytes += static_cast<double>(X::bytes);
  });
  for (std::int64_t i = position; i < position + rows; ++i)
    cost.flops += static_cast<double>(samba::detail::branch_flops<BranchOf<L>>(i));
  cost.footprint = cold ? floats(pool_floats) : cost.bytes;
  return cost;
}

/// `rows` tokens of one sequence from `position` on.
template <class L, class T>
void add_row(const std::string& model, bool cold, std::int64_t position, std::int64_t rows) {
  using KV = std::conditional_t<std::is_same_v<T, float>, float, bf16>;
  using One = Instance<L, T, KV>;
  const std::string variant = L::name + type_suffix<T>();
  for (const int threads : thread_counts())
    row(path({"layer", variant, model, rows_at(rows, position)}), threads,
        cost<L, T, KV>(cold, position, rows), [=] {
          using P = Policy<T, KV>;
          const auto place = [=](std::byte* block) {
            typename BranchOf<L>::template Scratch<P> scratch;
            const std::int64_t bytes = scratch.place({block, rows, threads});
            return std::pair(scratch, bytes);
          };
          return [=, all = instances<One>(cold), arena = Arena(place(nullptr).second),
                  in = Floats(rows * L::d_model)](const Team& team, std::int64_t call) {
            const One& one = all->of(call);
            const auto scratch = place(arena.data()).first;
            const Segment segment{.position = position, .rows = rows};
            L::forward(on<P>(team, segment), one.weights, one.state, scratch.node.layer,
                       In<P, L::d_model>{in.data(), rows}, Out<P, L::d_model>(scratch.out));
          };
        });
}

template <class L>
void add(const std::string& model, bool cold) {
  const auto add_type = [&]<class T>(std::type_identity<T>) {
    add_row<L, T>(model, cold, 0, 512);
    if (std::string_view(L::name) == "swa") add_row<L, T>(model, cold, 4096, 512);
    add_row<L, T>(model, cold, 4096, 1);
  };
  add_type(std::type_identity<float>{});
  add_type(std::type_identity<bf16>{});
  add_type(std::type_identity<int8>{});
  add_type(std::type_identity<q4>{});
}

[[maybe_unused]] const bool registered = [] {
  add<Mamba<256>>("demo", false);
  add<RgLru<256, RgLruOptions{.n_heads = 4}>>("demo", false);
  add<SwiGLU<256, 768>>("demo", false);
  add<SWA<512, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>::with_d_model<256>>("demo", false);
  add<Mamba<1536, 16>>("samba421m", true);
  add<SwiGLU<1536, 4096>>("samba421m", true);
  add<SWA<2048>::with_d_model<1536>>("samba421m", true);
  return true;
}();

}  // namespace
