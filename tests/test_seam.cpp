// Layers and branches of a user, written outside the library: each runs, streams with equal bits, trains
// with gradients as central differences have them, and is saved and loaded, without an edit in it.
#include <samba/io/checkpoint.hpp>
#include <samba/model/initialize.hpp>
#include <samba/samba.hpp>
#include <samba/train/check_gradient.hpp>

#include "tests/catch.hpp"
#include "tests/models.hpp"
#include "tests/support.hpp"

using namespace samba;
using namespace samba_test;

namespace {

/// A gated memory unit (SambaY, arXiv 2507.06607, section 2.1): out = W_out (silu(W_in u) * memory), the
/// memory being what an earlier branch wrote for the same token.
template <int D, class Memory>
struct GatedMemoryUnit {
  static constexpr const char* name = "gmu";
  static constexpr int d_model = D, width = Memory::width;
  using Reads = Channels<Memory>;

  template <class T>
  struct Weights {
    Matrix<T, width, D> in_proj;
    Matrix<T, D, width> out_proj;

    static constexpr void visit(auto& w, auto&& f) {
      f("in_proj.weight", w.in_proj);
      f("out_proj.weight", w.out_proj, init::output);
    }
  };
  template <class P>
  using State = Stateless;
  template <class P>
  struct Scratch {
    Rows<Act<P>, width> gate, hidden;
    static void visit(auto& t, auto&& f) {
      f(t.gate);
      f(t.hidden);
    }
  };
  template <class P>
  struct Backward {
    Rows<Act<P>, width> gate, memory;
    static void visit(auto& t, auto&& f) {
      f(t.gate);
      f(t.memory);
    }
  };

  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const Stateless&,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    using namespace kernels;
    matmul(c, w.in_proj, u, t.gate);
    silu_mul<width>(c, {.gate = t.gate, .up = c.template read<Memory>(), .out = t.hidden});
    matmul(c, w.out_proj, t.hidden, out);
  }

  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const Stateless&, const Stateless&,
                       const Scratch<P>& t, const Backward<P>& d, In<P, D> u, In<P, D> dout,
                       Out<P, D> du) {
    using namespace kernels;
    matmul_backward(c, w.out_proj, {.x = t.hidden, .dout = dout, .dw = g.out_proj, .dx = d.gate});
    silu_mul_backward<width>(c, {.gate = t.gate,
                                 .up = c.template read<Memory>(),
                                 .dout = d.gate,
                                 .dgate = d.gate,
                                 .dup = d.memory});
    add<width>(c, {.term = d.memory, .to = c.template gradient<Memory>()});
    matmul_backward(c, w.in_proj, {.x = u, .dout = d.gate, .dw = g.in_proj, .dx = du});
  }
};

/// A minimal gated recurrence (minGRU, arXiv 2410.01201): f = sigmoid(W_f u), v = W_v u,
/// h = (1 - f) h + f v, out = W_out h.
template <int D>
struct MinGru {
  static constexpr const char* name = "mingru";
  static constexpr int d_model = D;

  template <class T>
  struct Weights {
    Matrix<T, 2 * D, D> in_proj;
    Matrix<T, D, D> out_proj;

    static constexpr void visit(auto& w, auto&& f) {
      f("in_proj.weight", w.in_proj);
      f("out_proj.weight", w.out_proj, init::output);
    }
  };
  template <class P>
  struct State {
    Array<Real<P>, D> h;
    static constexpr void visit(auto& s, auto&& f) { f("h", s.h); }
  };
  template <class P>
  struct Scratch {
    Rows<Act<P>, 2 * D> fv;
    Rows<Act<P>, D> h;
    static void visit(auto& t, auto&& f) {
      f(t.fv);
      f(t.h);
    }
  };
  template <class P>
  using Backward = Scratch<P>;

  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    const Team& team = c.device.team;
    kernels::matmul(c, w.in_proj, u, t.fv);
    const Range mine = team.share(D, line_floats);
    for (const auto& [position, first, n, state] : c.segments)
      for (auto row = first; row < first + n; ++row)
        for (auto i = mine.begin; i < mine.end; ++i) {
          Real<P>& h = s.h.of(state)[i];
          const Real<P> gate = sigmoid(t.fv.row(row)[i]);
          t.h.row(row)[i] = h = (1 - gate) * h + gate * t.fv.row(row)[D + i];
        }
    team.barrier();
    kernels::matmul(c, w.out_proj, t.h, out);
  }

  template <class P>
  static void backward(const Context<P>& c, const Weights<Weight<P>>& w,
                       Weights<Weight<Gradients<P>>>& g, const State<P>& s,
                       const State<Gradients<P>>& ds, const Scratch<P>& t, const Backward<P>& d,
                       In<P, D> u, In<P, D> dout, Out<P, D> du) {
    const Team& team = c.device.team;
    kernels::matmul_backward(c, w.out_proj, {.x = t.h, .dout = dout, .dw = g.out_proj, .dx = d.h});
    const Range mine = team.share(D, line_floats);
    for (const auto& [position, first, n, state] : c.segments)
      for (auto row = first + n; row-- > first;)
        for (auto i = mine.begin; i < mine.end; ++i) {
          const Real<P> before = row > first ? t.h.row(row - 1)[i] : s.h.of(state)[i];
          const Real<P> gate = sigmoid(t.fv.row(row)[i]), v = t.fv.row(row)[D + i];
          const Real<P> dh = d.h.row(row)[i] + ds.h.of(state)[i];
          d.fv.row(row)[i] = dh * (v - before) * gate * (1 - gate);
          d.fv.row(row)[D + i] = dh * gate;
          ds.h.of(state)[i] = dh * (1 - gate);
        }
    team.barrier();
    kernels::matmul_backward(c, w.in_proj, {.x = u, .dout = d.fv, .dw = g.in_proj, .dx = du});
  }

 private:
  template <class R>
  static R sigmoid(R x) {
    return 1 / (1 + std::exp(-x));
  }
};

struct Memory : Channel<48> {};
using Options = ModelOptions;
template <class Layer>
using Model = LanguageModel<HybridStack<Layer>, Options{.vocab_size = 8, .tie_embeddings = true}>;
using Centred = Norm<NormOptions{.kind = NormKind::layer, .bias = true}>;
using Gemma = Norm<NormOptions{.eps = 1e-6f, .plus_one = true}>;

struct WithMemory
    : LanguageModel<
          HybridStack<Mamba<24, 4, MambaOptions{}, Memory>, SwiGLU<24>, GatedMemoryUnit<24, Memory>,
                      SwiGLU<24>, GatedMemoryUnit<24, Memory>>,
          Options{.vocab_size = 61, .tie_embeddings = true}> {};
struct WithSandwich
    : LanguageModel<
          HybridStack<Sandwich<Gemma, SwiGLU<24>>,
                      HybridStack<DModel<24>, Norms<Gemma, Gemma>,
                                  SWA<7, AttentionOptions{.n_heads = 3}>, SwiGLU<24>>,
                      Pre<Gemma, Mamba<24, 4>>, NoNorm<SwiGLU<24>>, Pre<Centred, SwiGLU<24>>,
                      Sandwich<Centred, SwiGLU<24>,
                               Norm<NormOptions{.kind = NormKind::layer, .plus_one = true}>>>,
          Options{.vocab_size = 61}> {};
struct WithFactor
    : LanguageModel<Repeat<2, HybridStack<Scaled<ScaledOptions{.factor = 0.22f}, SwiGLU<24>>,
                                          Scaled<ScaledOptions{.factor = 0.5f},
                                                 Sandwich<Norm<>, Mamba<24, 4>>>>>,
                    Options{.vocab_size = 61}> {};
struct WithGeGLU
    : LanguageModel<HybridStack<GeGLU<24>, SwiGLU<24>,
                                GeGLU<24, 37, MlpGate::gelu, MlpOptions{.bias = true}>>,
                    Options{.vocab_size = 61, .tie_embeddings = true}> {};
struct WithGru : LanguageModel<Repeat<2, HybridStack<MinGru<24>, SwiGLU<24>>>,
                               Options{.vocab_size = 61, .tie_embeddings = true}> {};
/// Reads the embeddings behind other branches.
struct WithEmbedding
    : LanguageModel<HybridStack<SwiGLU<24>, GatedMemoryUnit<24, Embedding<24>>, MinGru<24>,
                                Parallel<GatedMemoryUnit<24, Embedding<24>>, SwiGLU<24>>>,
                    Options{.vocab_size = 61, .tie_embeddings = true}> {};

/// Attention on the stream and the embeddings, as in Zamba, twice with the same weights.
using OnBoth = OnEmbedding<Norm<>, SWA<9, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}>>;
struct WithBoth
    : LanguageModel<HybridStack<Mamba<24, 4>, Shared<OnBoth>, SwiGLU<24>, Shared<OnBoth>>,
                    Options{.vocab_size = 61, .tie_embeddings = true}> {};

/// Layers that attend to the keys and values of an earlier one, within a window and over all tokens.
struct Cache : KeyValueChannel<2, 6, 7> {};
struct FullCache : KeyValueChannel<1, 8, 0> {};
constexpr AttentionOptions cache_heads{.n_heads = 4, .n_kv_heads = 2};
struct WithCross
    : LanguageModel<
          HybridStack<
              Mamba<24, 4>, SWA<7, AttentionOptions{.n_heads = 4, .n_kv_heads = 2}, Cache>,
              SwiGLU<24>, CrossAttention<Cache, AttentionOptions{.n_heads = 6, .bias = true}>,
              Attention<AttentionOptions{.n_heads = 3, .n_kv_heads = 1, .head_dim = 8}, FullCache>,
              Repeat<2, HybridStack<DModel<24>, CrossAttention<FullCache>, SwiGLU<24>>>,
              Shared<CrossAttention<Cache, AttentionOptions{.rope = false}>>>,
          Options{.vocab_size = 61, .tie_embeddings = true}> {};

/// The same attention twice: alone, and as queries on keys and values that a branch lends whose own
/// result does not count.
struct Alone : LanguageModel<HybridStack<DModel<24>, SWA<7, cache_heads>>,
                             Options{.vocab_size = 61, .tie_embeddings = true}> {};
struct Borrowed
    : LanguageModel<
          HybridStack<DModel<24>, Scaled<ScaledOptions{.factor = 0}, SWA<7, cache_heads, Cache>>,
                      CrossAttention<Cache, AttentionOptions{.n_heads = 4}>>,
          Options{.vocab_size = 61, .tie_embeddings = true}> {};

/// All that a model of a user's layers is to do.
template <class Model>
void check_all() {
  CAPTURE(structure<Model>());
  {
    const GradientReport report = check_gradients<Model>();
    CHECK(report.wrong() == "");
    CHECK(report.checks.size() > 5);
  }
  const auto weights = random_weights<Model>(3);
  Random rng{1, 1};
  const auto tokens = random_tokens<Model>(rng, 70);
  Session whole(weights, {.threads = 1, .chunk = 70});
  const auto logits = all_logits(whole, tokens);
  Session steps(weights, {.threads = 2, .chunk = 9});
  const auto stepped = all_logits(steps, tokens);
  CHECK(same_result(stepped, logits));
  Batch batch(weights, 3);
  const std::vector<std::int32_t> others(tokens.begin() + 20, tokens.end());
  const std::span<const std::int32_t> prompts[] = {others, tokens, others};
  batch.prefill(prompts);
  const auto last = std::span(logits).last(Model::vocab_size);
  CHECK(same_result(batch.logits(1), last));

  const TempDir folder;
  save(weights, folder.file("model.safetensors"));
  const auto loaded = load<Model>(folder.file("model.safetensors"));
  Session again(loaded);
  CHECK(same_result(all_logits(again, tokens), logits));
  const std::vector<std::string> names = tensor_names(weights);
  for (std::size_t i = 0; i < names.size(); ++i)
    for (std::size_t k = 0; k < i; ++k) CHECK(names[i] != names[k]);
}

}  // namespace

TEST_CASE("seam: a gated memory unit reads what Mamba wrote before its gate") {
  static_assert(Layer<GatedMemoryUnit<24, Memory>> && WithMemory::n_channels == 1);
  check_all<WithMemory>();
}

TEST_CASE("seam: branches with a norm before and after, of weights less 1") {
  check_all<WithSandwich>();
  CHECK(structure<WithSandwich>().find(
            "sandwich(eps=1e-06, plus_one=true, eps=1e-06, plus_one=true):mlp(") !=
        std::string::npos);
  CHECK(WithSandwich::parameters ==
        2 * 61 * 24 + 24 + 5 * SwiGLU<24>::d_ff * 24 * 3 + 24 * 24 * 4 + (7 + 5) * 24 +
            (48 * 2 * 24 + 48 * 4 + 48 * 2 + (2 + 8) * 48 + 48 * 2 + 48 * 4 + 48 + 24 * 48));
}

TEST_CASE("seam: branches that count by a factor") { check_all<WithFactor>(); }

TEST_CASE("seam: gated MLPs with gelu in both forms") {
  CHECK(structure<WithGeGLU>().find("mlp(d_ff=64, bias=false, gate=gelu_tanh), mlp(d_ff=64, "
                                    "bias=false), mlp(d_ff=37, bias=true, gate=gelu)]") !=
        std::string::npos);
  check_all<WithGeGLU>();
}

TEST_CASE("seam: a minimal gated recurrence with a state") { check_all<WithGru>(); }

TEST_CASE("seam: the recurrence of Griffin") {
  using Wide = RgLru<24, RgLruOptions{.width = 42, .n_heads = 3}>;
  using Layers = tiny::Recurrent;
  static_assert(Layer<Wide> && RgLru<24>::width == 24);
  constexpr auto wide = 3 * 42 * 24 + 2 * 42 + 24 + 42 * 5 + 2 * 42 * (14 + 1) + 42;
  CHECK(Model<Wide>::parameters == 8 * 24 + 24 + 24 + wide);
  CHECK(Model<Wide>::state_bytes<> ==
        round_up(4 * 3 * 42, alignment) + round_up(4 * 42, alignment));
  CHECK(structure<Layers>().find("recurrent(width=42, n_heads=3, d_conv=4), mlp(d_ff=64, "
                                 "bias=false, gate=gelu_tanh), recurrent(width=24, n_heads=1, "
                                 "d_conv=3)") != std::string::npos);
  check_all<Layers>();
}

TEST_CASE("seam: branches on the stream and the embeddings") {
  static_assert(WithBoth::n_channels == 1);
  CHECK(WithBoth::parameters == 61 * 24 + 24 + Model<Mamba<24, 4>>::parameters - 9 * 24 +
                                    Model<SwiGLU<24>>::parameters - 9 * 24 + 48 +
                                    48 * (4 + 4) * 12 + 48 * 48 + 24 * 48);
  check_all<WithBoth>();
}

TEST_CASE("seam: the embeddings are a channel") {
  static_assert(WithEmbedding::n_channels == 1);
  CHECK(structure<WithEmbedding>().find(" reads embedding, ") != std::string::npos);
  check_all<WithEmbedding>();
}

TEST_CASE("seam: attention to the keys and values that an earlier layer lends") {
  static_assert(WithCross::n_channels == 2);
  static_assert(WithCross::state_bytes<float>(100) == Model<Mamba<24, 4>>::state_bytes<float> +
                                                          2 * round_up(2 * 6 * 7 * 4, alignment) +
                                                          2 * round_up(8 * 100 * 4, alignment));
  CHECK(structure<WithCross>().find("rotary=0, bias=false) reads 1@") != std::string::npos);
  check_all<WithCross>();
}

TEST_CASE("seam: borrowed keys and values give what own ones give") {
  const auto alone = random_weights<Alone>(5);
  Weights<Borrowed> borrowed;
  // Rows of the queries among those of the fused projection: of each group two query heads of 6.
  const auto query_row = [](std::int64_t r) { return r / 12 * 24 + r % 12; };
  const auto from = alone.tensors(), to = borrowed.tensors();
  REQUIRE((from.size() == 5 && to.size() == 8));
  const std::size_t source[] = {0, 1, 2, 3, 1, 2, 3, 4};
  for (std::size_t i = 0; i < to.size(); ++i) {
    const TensorRef<float>& x = from[source[i]];
    std::vector<float> row(static_cast<std::size_t>(x.row_size));
    REQUIRE(x.row_size == to[i].row_size);
    for (std::int64_t r = 0; r < to[i].rows; ++r) {
      x.get_row(i == 5 ? query_row(r) : r, row.data());
      to[i].set_row(r, row.data());
    }
  }
  borrowed.derive();
  Random rng{7, 7};
  const auto tokens = random_tokens<Alone>(rng, 70);
  Session own(alone, {.chunk = 70});
  Session lent(borrowed, {.threads = 2, .chunk = 11});
  CHECK(same_result(all_logits(own, tokens), all_logits(lent, tokens)));

  // Gradients of a text in two pieces, which begin where the first one ended.
  const auto gradients = [&]<class M>(const Weights<M>& weights, Weights<M, Master<float>>& g) {
    Gradient<M> gradient({.tokens = 40});
    const std::span<const std::int32_t> all = tokens;
    const Example head{all.first(25), all.subspan(1, 25), {}},
        tail{all.subspan(25, 40), all.subspan(26, 40), {}};
    gradient.add(weights, {&head, 1}, g);
    gradient.carry();
    gradient.add(weights, {&tail, 1}, g);
  };
  Weights<Alone, Master<float>> of_own;
  Weights<Borrowed, Master<float>> of_lent;
  of_own.clear();
  of_lent.clear();
  gradients(alone, of_own);
  gradients(borrowed, of_lent);
  const auto values = [](const auto& tensor, auto&& row_number, std::int64_t rows) {
    std::vector<float> all, row(static_cast<std::size_t>(tensor.row_size));
    for (std::int64_t r = 0; r < rows; ++r) {
      tensor.get_row(row_number(r), row.data());
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  };
  const auto same_row = [](std::int64_t r) { return r; };
  const auto key_row = [](std::int64_t r) { return r / 12 * 24 + 12 + r % 12; };
  const auto own_g = of_own.tensors(), lent_g = of_lent.tensors();
  CHECK(relative_error(values(lent_g[5], same_row, 24), values(own_g[2], query_row, 24)) < 1e-5);
  CHECK(relative_error(values(lent_g[2], key_row, 24), values(own_g[2], key_row, 24)) < 1e-5);
  CHECK(relative_error(values(lent_g[6], same_row, 24), values(own_g[3], same_row, 24)) < 1e-5);
}
