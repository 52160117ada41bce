#include <samba/samba.hpp>
using namespace samba;

/// out = scale u. No state, and forward is written as for a layer with one.
template <int D>
struct Scale {
  static constexpr const char* name = "scale";
  static constexpr int d_model = D;

  template <class T>
  struct Weights {
    Vector<Real<T>, D> scale;

    static constexpr void visit(auto& w, auto&& f) { f("scale", w.scale); }
  };
  template <class T, class KV>
  using State = Stateless;
  template <class T>
  struct Scratch {
    static void visit(auto&, auto&&) {}
  };

  template <class T, class KV>
  static void forward(const Chunk&, const Weights<T>& w, States<State<T, KV>>, Scratch<T>&,
                      In<Real<T>, D> u, Out<Real<T>, D> out) {
    out.row(0)[0] = w.scale.data()[0] * u.row(0)[0];
  }
};
static_assert(Layer<Scale<64>>);

struct Model : LanguageModel<HybridStack<Scale<64>, Parallel<Scale<64>, Mamba<64>>>,
                             ModelOptions{.vocab_size = 8}> {};
float run(const Weights<Model>& weights) {
  Session session(weights);
  return session.step(1)[0];
}
