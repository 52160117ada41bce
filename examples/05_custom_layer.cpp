// 05_custom_layer: a layer of your own, a gated linear recurrence, beside samba's in a model.
//   05_custom_layer [TOKENS]
// A layer is any type with the members below; nothing is registered.
#include "output.hpp"

#include <samba/model/initialize.hpp>
#include <samba/samba.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace samba;

/// One decaying memory per channel. For each token u in R^D:
///
///   [f v g] = W_in u      k = sigmoid(f)      h = k h + (1 - k) v      out = W_out (h silu(g))
///
/// State per sequence: h, D numbers, whatever the position.
template <int D>
struct GatedRecurrence {
  static constexpr const char* name = "recurrence";
  static constexpr int d_model = D;

  template <class T>
  struct Weights {  // what a checkpoint holds; T is the type of the matrices
    Matrix<T, 3 * D, D> in_proj;
    Matrix<T, D, D> out_proj;

    static constexpr void visit(auto& w, auto&& f) {
      f("in_proj.weight", w.in_proj);
      f("out_proj.weight", w.out_proj);
    }
  };

  template <class P>
  struct State {  // what a sequence carries from token to token, zero at its start
    Array<Real<P>, D> h;

    static constexpr void visit(auto& s, auto&& f) { f("h", s.h); }
  };

  template <class P>
  struct Scratch {  // room for the tokens of a chunk
    Rows<Act<P>, 3 * D> fvg;
    Rows<Act<P>, D> y;

    static void visit(auto& t, auto&& f) {
      f(t.fvg);
      f(t.y);
    }
  };

  /// out = layer(u) for the rows of the chunk; advances the states. All threads call it together.
  template <class P>
  static void forward(const Context<P>& c, const Weights<Weight<P>>& w, const State<P>& s,
                      const Scratch<P>& t, In<P, D> u, Out<P, D> out) {
    kernels::matmul(c, w.in_proj, u, t.fvg);              // [f v g] = W_in u
    const Team& team = c.device.team;                     // the threads that run this together
    const Range channels = team.share(D, vector_floats);  // those of this one
    for (const Segment& segment : c.segments) {           // the sequences in the chunk
      const auto [position, first_row, rows, state] = segment;
      Real<P>* const h = s.h.of(state);
      for (auto row = first_row; row < first_row + rows; ++row) {  // their tokens, in order
        const Act<P>*f = t.fvg.row(row), *v = f + D, *g = v + D;
        for (auto i = channels.begin; i < channels.end; ++i) {
          const Real<P> keep = 1 / (1 + std::exp(-f[i]));
          h[i] = keep * h[i] + (1 - keep) * v[i];
          t.y.row(row)[i] = h[i] * g[i] / (1 + std::exp(-g[i]));
        }
      }
    }
    team.barrier();                            // y is complete
    kernels::matmul(c, w.out_proj, t.y, out);  // out = W_out y
  }
};
static_assert(Layer<GatedRecurrence<128>>);

using Window = SWA<64, AttentionOptions{.n_heads = 2}>;
struct Block : HybridStack<GatedRecurrence<128>, SwiGLU<128>, Window, SwiGLU<128>> {};
struct Model
    : LanguageModel<Repeat<2, Block>, ModelOptions{.vocab_size = 256, .tie_embeddings = true}> {};

constexpr const char* help =
    "Puts a layer of its own into a model, and checks that a random text of TOKENS tokens (500)\n"
    "has the same logits however it is cut, on one thread and on two.\n"
    "Usage: 05_custom_layer [TOKENS]\n"
    "Example: 05_custom_layer 2000\n";

void check_splits(int tokens) {
  std::printf("%s\n", describe<Model>().c_str());
  Weights<Model> weights;
  initialize(weights, 1);  // random, from this seed

  // However a text is cut into pieces, on any number of threads, the logits have the same bits.
  if (tokens < 1) fail({"expected a number of tokens, 1 or more, found ", tokens});
  sampling::SplitMix64 random(2);
  std::vector<std::int32_t> text;
  for (int i = 0; i < tokens; ++i)
    text.push_back(static_cast<std::int32_t>(random() % Model::vocab_size));

  Session stepped(weights, {.threads = 1}), chunked(weights, {.threads = 2});
  int pieces = 0;
  for (std::size_t at = 0; at < text.size(); ++pieces) {
    const auto piece =
        std::span(text).subspan(at, std::min<std::size_t>(1 + random() % 100, text.size() - at));
    const auto expected = chunked.prefill(piece);
    std::span<const float> logits;
    for (const auto token : piece) logits = stepped.step(token);
    if (std::memcmp(expected.data(), logits.data(), logits.size_bytes()) != 0)
      fail({"the logits at position ", stepped.position() - 1, " depend on how the text was cut"});
    at += piece.size();
  }
  std::printf("%d tokens in %d pieces: the same logits as token by token, bit for bit.\n", tokens,
              pieces);
}

int main(int argc, char** argv) {
  return run_main(argc, argv, help, [&] { check_splits(argc > 1 ? std::atoi(argv[1]) : 500); });
}
