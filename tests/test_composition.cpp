// What stacks are made of: each way to write a model against the same model written out, bit for
// bit.
#include "tests/catch.hpp"
#include "tests/models.hpp"

using namespace samba_test;

namespace {

constexpr ModelOptions small = golden::tied(29);
template <class Stack, ModelOptions O = small>
struct Model : LanguageModel<Stack, O> {};

using M = Mamba<16, 4>;
using S = SwiGLU<16, 24>;
using A = SWA<6, AttentionOptions{.n_heads = 2}>;

/// Gives `to` the numbers of `from`: tensor by tensor, the shapes must agree. The tensors of branch
/// b of `to` are those of branch branch_of(b) of `from`.
template <class To, class From, class F>
void copy_weights(const Weights<From>& from, Weights<To>& to, F branch_of) {
  const auto source = from.tensors();
  std::vector<float> row;
  for (const auto& tensor : to.tensors()) {
    std::size_t at = 0, skip = 0;  // among tensors of one branch, the order is that of the layer
    for (const auto& other : to.tensors()) {
      if (other.branch == tensor.branch && other.name == tensor.name) break;
      skip += other.branch == tensor.branch;
    }
    while (source[at].branch != branch_of(tensor.branch) || skip-- > 0) ++at;
    REQUIRE(source[at].shape == tensor.shape);
    row.resize(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      source[at].get_row(r, row.data());
      tensor.set_row(r, row.data());
    }
  }
  to.derive();
}

template <class Model>
std::vector<float> logits_of(const Weights<Model>& weights, int n = 20) {
  Random rng{3, 3};
  Session session(weights, {.chunk = 7});
  return all_logits(session, random_tokens<Model>(rng, n));
}

/// Two spellings of one model.
template <class One, class Other>
void check_same() {
  CHECK(structure<One>() == structure<Other>());
  CHECK(One::parameters == Other::parameters);
  CHECK(One::depth == Other::depth);
}

/// Two spellings of one model, run.
template <class One, class Other>
void check_same_logits() {
  check_same<One, Other>();
  const auto one = random_weights<One>(5);
  const auto other = random_weights<Other>(5);
  CHECK(same_result(logits_of(one), logits_of(other)));
}

// Layers of a user: nothing but what the concept asks for.

/// out = u * u, element by element; no weights, no state.
struct Square {
  static constexpr const char* name = "square";
  static constexpr int d_model = 16;
  template <class T>
  struct Weights {
    static constexpr void visit(auto&, auto&&) {}
  };
  template <class P>
  using State = Stateless;
  template <class P>
  struct Scratch {
    static void visit(auto&, auto&&) {}
  };
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>&, const Stateless&,
                      const Scratch<P>&, In<P, 16> u, Out<P, 16> out) {
    const Range rows = c.device.team.share(u.rows);
    for (auto i = rows.begin; i < rows.end; ++i)
      for (int d = 0; d < 16; ++d) out.row(i)[d] = u.row(i)[d] * u.row(i)[d];
    c.device.team.barrier();
  }
};

/// out[t] = a * out[t - 1] + u[t] with one a per channel: weights, a state, several sequences.
struct Decay {
  static constexpr const char* name = "decay";
  static constexpr int d_model = 16;
  template <class T>
  struct Weights {
    Vector<Real<T>, 16> a;
    static constexpr void visit(auto& w, auto&& f) { f("a", w.a); }
  };
  template <class P>
  struct State {
    Array<Real<P>, 16> sum;
    static constexpr void visit(auto& s, auto&& f) { f("sum", s.sum); }
  };
  template <class P>
  struct Scratch {
    static void visit(auto&, auto&&) {}
  };
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>&, In<P, 16> u, Out<P, 16> out) {
    const Range channels = c.device.team.share(16);
    for (const Segment& segment : c.segments) {
      Real<P>* const sum = s.sum.of(segment.state);
      for (auto i = segment.first_row; i < segment.first_row + segment.rows; ++i)
        for (auto d = channels.begin; d < channels.end; ++d)
          out.row(i)[d] = sum[d] = w.a.data()[d] * sum[d] + u.row(i)[d];
    }
    c.device.team.barrier();
  }
};
static_assert(Layer<Square> && Layer<Decay> && Layer<M> && Layer<S>);

/// Mamba and attention run one after the other, the sum written out: what Parallel must be.
struct ByHand {
  using Attend = A::with_d_model<16>;
  static constexpr const char* name = "by_hand";
  static constexpr int d_model = 16;
  template <class T>
  struct Weights {
    typename M::Weights<T> mamba;
    typename Attend::Weights<T> attend;
    static constexpr void visit(auto& w, auto&& f) {
      M::Weights<T>::visit(w.mamba, f);
      Attend::Weights<T>::visit(w.attend, f);
    }
    static constexpr void visit_derived(auto& w, auto&& f) {
      M::Weights<T>::visit_derived(w.mamba, f);
    }
    void derive() { mamba.derive(); }
  };
  template <class P>
  struct State {
    typename M::State<P> mamba;
    typename Attend::State<P> attend;
    static constexpr void visit(auto& s, auto&& f) {
      M::State<P>::visit(s.mamba, f);
      Attend::State<P>::visit(s.attend, f);
    }
  };
  template <class P>
  struct Scratch {
    typename M::Scratch<P> mamba;
    typename Attend::Scratch<P> attend;
    Rows<Act<P>, 16> first, second;
    static void visit(auto& t, auto&& f) {
      M::Scratch<P>::visit(t.mamba, f);
      Attend::Scratch<P>::visit(t.attend, f);
      f(t.first);
      f(t.second);
    }
  };
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, 16> u, Out<P, 16> out) {
    M::forward(c, w.mamba, s.mamba, t.mamba, u, Out<P, 16>(t.first));
    Attend::forward(c, w.attend, s.attend, t.attend, u, Out<P, 16>(t.second));
    const Range rows = c.device.team.share(u.rows);
    for (auto i = rows.begin; i < rows.end; ++i)
      for (int d = 0; d < 16; ++d) out.row(i)[d] = t.first.row(i)[d] + t.second.row(i)[d];
    c.device.team.barrier();
  }
};

template <class Indices>
struct AlternatingOf;
template <std::size_t... i>
struct AlternatingOf<std::index_sequence<i...>> {
  using type = HybridStack<std::conditional_t<i % 2 == 0, Mamba<8, 2>, SwiGLU<8>>...>;
};
template <std::size_t n>
using Alternating = typename AlternatingOf<std::make_index_sequence<n>>::type;

}  // namespace

TEST_CASE("stacks nest, and Repeat is its block written out") {
  using Flat = HybridStack<M, S, A, S, M, S, A, S>;
  check_same_logits<
      Model<HybridStack<HybridStack<M, S>, HybridStack<A, HybridStack<S, M>>, S, A, S>>,
      Model<Flat>>();
  check_same<Model<Repeat<2, HybridStack<M, S, A, S>>>, Model<Flat>>();
  check_same<Model<HybridStack<M, S, A, Repeat<1, HybridStack<S, M, S>>, A, S>>, Model<Flat>>();
  check_same<Model<Repeat<3, M>>, Model<HybridStack<M, M, M>>>();
  check_same<Model<Repeat<2, Repeat<2, HybridStack<M, S>>>>,
             Model<HybridStack<M, S, M, S, M, S, M, S>>>();
  check_same_logits<Model<HybridStack<S, Repeat<3, M>, Repeat<2, HybridStack<DModel<16>, A>>>>,
                    Model<HybridStack<S, M, M, M, A, A>>>();
  check_same<Model<M>, Model<HybridStack<M>>>();  // a layer alone
  struct Block : HybridStack<M, S> {};            // a block with a name
  check_same<Model<Repeat<2, Block>>, Model<HybridStack<M, S, M, S>>>();
}

TEST_CASE("DModel names the width where no layer does, and adds nothing") {
  static_assert(HybridStack<DModel<48>, A>::d_model == 48);
  static_assert(Model<HybridStack<DModel<16>, A>>::depth == 1);
  check_same<Model<HybridStack<DModel<16>, A, S>>, Model<HybridStack<A, S>>>();
  check_same<Model<Repeat<2, HybridStack<DModel<16>, A>>>, Model<HybridStack<DModel<16>, A, A>>>();
}

TEST_CASE("a 400-layer pack compiles and is the repeated block") {
  using Pack = Model<Alternating<400>>;
  using Loop = Model<Repeat<200, HybridStack<Mamba<8, 2>, SwiGLU<8>>>>;
  static_assert(Pack::depth == 400 && Pack::parameters == Loop::parameters);
  check_same_logits<Pack, Loop>();
}

TEST_CASE("schedules by pattern, period and index list") {
  check_same<Model<Pattern<"MSAS", Is<'M', M>, Is<'S', S>, Is<'A', A>>>,
             Model<HybridStack<M, S, A, S>>>();
  check_same<Model<Pattern<"bMb", Is<'M', M>, Is<'b', HybridStack<A, S>>>>,
             Model<HybridStack<A, S, M, A, S>>>();
  check_same<Model<Repeat<2, Pattern<"MS", Is<'S', S>, Is<'M', M>>>>,
             Model<HybridStack<M, S, M, S>>>();

  check_same<Model<Periodic<6, 3, 1, A, M>>, Model<HybridStack<M, A, M, M, A, M>>>();
  check_same<Model<Periodic<5, 2, 0, A, M>>, Model<HybridStack<A, M, A, M, A>>>();
  check_same<Model<Periodic<2, 4, 3, A, M>>, Model<HybridStack<M, M>>>();
  check_same<Model<Periodic<7, 3, 2, HybridStack<A, S>, M>>,
             Model<HybridStack<M, M, A, S, M, M, A, S, M>>>();
  check_same<Model<Periodic<4, 3, 0, A, M>>, Model<HybridStack<A, M, M, A>>>();

  check_same<Model<AtIndices<4, Indices<1, 2>, A, M>>, Model<HybridStack<M, A, A, M>>>();
  check_same<Model<AtIndices<3, Indices<0>, HybridStack<A, S>, M>>,
             Model<HybridStack<A, S, M, M>>>();
  check_same<Model<AtIndices<3, Indices<>, A, M>>, Model<HybridStack<M, M, M>>>();
}

TEST_CASE("Parallel is the sum of its layers") {
  using Sum = Model<HybridStack<Parallel<M, A>, S>>;
  using Hand = Model<HybridStack<ByHand, S>>;
  static_assert(Sum::depth == 2 && Sum::parameters == Hand::parameters);
  static_assert(Sum::state_bytes<float> == Hand::state_bytes<float>);
  static_assert(Sum::weight_bytes<float> == Hand::weight_bytes<float>);
  const auto sum = random_weights<Sum>(7);
  Weights<Hand> hand;
  copy_weights(sum, hand, [](int branch) { return branch; });
  CHECK(same_result(logits_of(sum), logits_of(hand)));

  // Three layers, two of one type: the third is added, not written over.
  using Three = Model<HybridStack<Parallel<M, A, M>>>;
  const auto three = random_weights<Three>(7);
  using Two = Model<HybridStack<Parallel<M, A>>>;
  Weights<Two> two;
  copy_weights(three, two, [](int branch) { return branch; });
  CHECK_FALSE(same_bits(logits_of(three), logits_of(two)));
  for (const auto& tensor : three.tensors())
    if (tensor.name == "2.mamba.out_proj.weight") {
      const std::vector<float> zeros(static_cast<std::size_t>(tensor.row_size));
      for (std::int64_t r = 0; r < tensor.rows; ++r) tensor.set_row(r, zeros.data());
    }
  CHECK(same_result(logits_of(three), logits_of(two)));
}

namespace {

/// A model with shared weights against the one where each use has a copy.
template <class Sharing, class Copied>
void check_shared(std::int64_t shared_parameters) {
  static_assert(Sharing::depth == Copied::depth);
  CHECK(Copied::parameters - Sharing::parameters == shared_parameters);
  CHECK(Sharing::template weight_bytes<float> < Copied::template weight_bytes<float>);
  CHECK(Sharing::template state_bytes<float> == Copied::template state_bytes<float>);
  CHECK(Sharing::flops_per_token(9) == Copied::flops_per_token(9));
  CHECK(structure<Sharing>() != structure<Copied>());

  const auto sharing = random_weights<Sharing>(11);
  CHECK(sharing.bytes() == Sharing::template weight_bytes<float>);
  const auto all = branches<Sharing>();
  Weights<Copied> copied;
  copy_weights(sharing, copied, [&](int branch) {
    if (branch < 0) return branch;
    const auto& b = all[static_cast<std::size_t>(branch)];
    if (!b.shared) return branch;
    for (int first = 0;; ++first) {
      const auto& f = all[static_cast<std::size_t>(first)];
      if (f.shared == b.shared && f.shared_number == b.shared_number) return first;
    }
  });
  CHECK(same_result(logits_of(sharing), logits_of(copied)));
}

}  // namespace

TEST_CASE("Shared stores weights once; states stay separate") {
  constexpr auto mamba =
      2 * 32 * 16 + 32 * 4 + 32 + (1 + 2 * 4) * 32 + 32 + 32 + 4 * 32 + 32 + 16 * 32 + 16;
  constexpr auto mlp = 3 * 24 * 16 + 16;
  constexpr auto attention = 4 * 16 * 16 + 16;
  check_shared<Model<HybridStack<Shared<M>, S, Shared<M>, S>>, Model<HybridStack<M, S, M, S>>>(
      mamba);
  // One element under two Ids is two layers.
  check_shared<Model<HybridStack<Shared<M, 0>, Shared<M, 1>, Shared<M, 0>, Shared<M, 1>>>,
               Model<Repeat<4, M>>>(2 * mamba);
  // Across Repeat, and inside and outside of it.
  check_shared<Model<Repeat<3, HybridStack<Shared<A>, S>>>, Model<Repeat<3, HybridStack<A, S>>>>(
      2 * attention);
  check_shared<Model<HybridStack<Repeat<2, HybridStack<M, Shared<S>>>, A, Shared<S>>>,
               Model<HybridStack<M, S, M, S, A, S>>>(2 * mlp);
  // A stack: its branches are shared one by one, in order.
  check_shared<Model<Repeat<2, HybridStack<Shared<HybridStack<A, S>>, M>>>,
               Model<Repeat<2, HybridStack<A, S, M>>>>(attention + mlp);
}

TEST_CASE("NoNorm leaves the norm out") {
  // One branch of squares: the logits written out in double, from the weights alone.
  const auto check = [](auto model, bool normed) {
    using SquareModel = typename decltype(model)::type;
    static_assert(SquareModel::vocab_size == 29);
    CHECK(SquareModel::parameters == 29 * 16 + 16 + (normed ? 16 : 0));
    const auto weights = random_weights<SquareModel>(13);
    std::vector<std::vector<float>> table;  // embedding and head
    std::vector<float> branch_norm(16, 1.f), final_norm(16);
    for (const auto& tensor : weights.tensors()) {
      if (tensor.name == "norm.weight") tensor.get_row(0, branch_norm.data());
      if (tensor.name == "norm") tensor.get_row(0, final_norm.data());
      if (tensor.name == "embedding")
        for (int r = 0; r < 29; ++r) tensor.get_row(r, table.emplace_back(16).data());
    }
    const auto rmsnorm = [](std::vector<double> x, const std::vector<float>& weight) {
      double squares = 0;
      for (const double v : x) squares += v * v;
      for (std::size_t d = 0; d < 16; ++d)
        x[d] *= static_cast<double>(weight[d]) / std::sqrt(squares / 16 + 1e-5);
      return x;
    };
    Session session(weights);
    for (std::int32_t token = 0; token < 29; ++token) {
      std::vector<double> x = convert<double>(table[static_cast<std::size_t>(token)]);
      const auto u = normed ? rmsnorm(x, branch_norm) : x;
      for (std::size_t d = 0; d < 16; ++d) x[d] += u[d] * u[d];
      x = rmsnorm(x, final_norm);
      std::vector<double> expected(29);
      for (std::size_t v = 0; v < 29; ++v)
        for (std::size_t d = 0; d < 16; ++d) expected[v] += static_cast<double>(table[v][d]) * x[d];
      CHECK(relative_error(session.step(token), expected) < 1e-6);
    }
  };
  check(std::type_identity<Model<HybridStack<Square>>>{}, true);
  check(std::type_identity<Model<HybridStack<NoNorm<Square>>>>{}, false);
  CHECK(structure<Model<HybridStack<Square>>>() != structure<Model<HybridStack<NoNorm<Square>>>>());

  static_assert(Model<HybridStack<M, NoNorm<S>>>::parameters ==
                Model<HybridStack<M, S>>::parameters - 16);
  // Bound to the width as other layers are.
  static_assert(Model<HybridStack<DModel<16>, NoNorm<A>>>::d_model == 16);
}

TEST_CASE("a user's layer stands beside the library's") {
  using Mine = Model<HybridStack<Decay, S, Decay, A>>;
  static_assert(Mine::depth == 4);
  static_assert(Mine::parameters ==
                29 * 16 + 16 + 2 * (16 + 16) + (3 * 24 * 16 + 16) + (4 * 16 * 16 + 16));
  static_assert(Mine::state_bytes<float> == 2 * 64 + 2 * 6 * 16 * 4);
  CHECK(structure<Mine>().find("decay") != std::string::npos);
  CHECK(describe<Mine>().find("decay()") != std::string::npos);

  const auto weights = random_weights<Mine>(17);
  Random rng;
  CAPTURE(rng.seed);
  const auto tokens = random_tokens<Mine>(rng, 30);
  Session whole(weights), parts(weights, {.chunk = 4});
  const auto logits = all_logits(whole, tokens);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    CHECK(same_result(parts.step(tokens[i]), std::span(logits).subspan(i * 29, 29)));

  // The state counts: the last token alone gives other logits.
  parts.reset();
  CHECK_FALSE(same_bits(parts.step(tokens.back()), std::span(logits).last(29)));

  TempDir folder;
  save(weights, folder.file("mine.safetensors"));
  const auto file = SafetensorsFile::open(folder.file("mine.safetensors"));
  CHECK(file.find("transformer.h.2.decay.a"));
  const auto loaded = load<Mine>(folder.file("mine.safetensors"));
  CHECK(same_bits(logits_of(loaded), logits_of(weights)));
}

TEST_CASE("stacks without MLP, and of MLPs alone") {
  for (const float logit : logits_of(random_weights<Model<HybridStack<M, A>>>(19)))
    CHECK(is_finite(logit));
  for (const float logit : logits_of(random_weights<Model<Repeat<2, S>>>(19)))
    CHECK(is_finite(logit));
  static_assert(Model<Repeat<2, S>>::state_bytes<float> == 0);
}
