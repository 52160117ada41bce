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
  template <class P>
  using State = Stateless;
  template <class P>
  struct Scratch {
    static void visit(auto&, auto&&) {}
  };

  template <class P>
  static void forward(const Context<P>&, const Weights<Weight<P>>& w, const State<P>&,
                      const Scratch<P>&, In<P, D> u, Out<P, D> out) {
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
