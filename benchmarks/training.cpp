// Training on sequences of equal length, `<sequences>x<tokens of each>`: `step`, and what it
// consists of: `gradient` (forward and backward), `adamw` (with clipping), and `assign`, which takes
// the master weights over into those of the products. FLOPs are those of products: 6 per parameter
// of a matrix and token (the look-up of an embedding is none), and 3 times the forward's in
// attention. The counter `loss` is that after three steps from the initial weights, which are
// written to the file that SAMBA_BENCH_WEIGHTS names, if it is set.
#include "model.hpp"

#include <samba/train/adamw.hpp>
#include <samba/train/assign.hpp>
#include <samba/train/gradient.hpp>

#include <cstdlib>
#include <memory>

using namespace bench;
using namespace samba;

namespace {

struct Samba20M
    : LanguageModel<
          Repeat<4, HybridStack<Mamba<384>, SwiGLU<384, 1024>,
                                SWA<512, AttentionOptions{.n_heads = 6}>, SwiGLU<384, 1024>>>,
          ModelOptions{.vocab_size = 10240, .tie_embeddings = true}> {};

struct Size {
  int sequences, seq_len;
  int tokens() const { return sequences * seq_len; }
};

/// FLOPs of the products of forward and backward.
template <class Model>
double training_flops(Size size) {
  std::int64_t matrices = std::int64_t{Model::vocab_size} * Model::d_model, attention = 0;
  for_each_branch<typename Model::Stack>([&](auto branch, Use) {
    using B = typename decltype(branch)::type;
    const typename B::template Weights<float> weights{};
    B::template Weights<float>::visit(weights, [&]<class X>(const auto&, const X&, const auto&...) {
      if constexpr (requires { X::is_matrix; }) matrices += samba::detail::elements<X>();
    });
    if constexpr (requires { B::Layer::n_heads; })
      for (int i = 0; i < size.seq_len; ++i) attention += B::Layer::other_flops(i);
  });
  return 6. * static_cast<double>(matrices * size.tokens()) +
         3. * static_cast<double>(attention * size.sequences);
}

template <class Model>
using Masters = Weights<Model, Master<float>>;

template <class Model>
Masters<Model> initial_weights() {
  Masters<Model> weights;
  initialize(weights, 1);
  return weights;
}

template <class Model, class T>
class TrainingStep {
 public:
  TrainingStep(Size size, int threads)
      : threads_(threads),
        ids_(tokens<Model>(size.tokens() + 1)),
        gradient_({.sequences = size.sequences,
                   .tokens = size.tokens(),
                   .threads = threads,
                   .loss_rows = 512,
                   .fresh = true}),
        optimiser_({.threads = threads}) {
    const auto length = static_cast<std::size_t>(size.seq_len);
    for (std::size_t at = 0; at + 1 < ids_.size(); at += length)
      examples_.push_back(
          {std::span(ids_).subspan(at, length), std::span(ids_).subspan(at + 1, length)});
    assign();
    for (int i = 0; i < 3; ++i) step();
    gradient();
    loss_ = last_;
  }

  void gradient() {
    gradients_.clear();
    last_ = gradient_.add(weights_, examples_, gradients_);
  }
  void adamw() { optimiser_.step(master_, gradients_); }
  void assign() { samba::assign(weights_, master_, threads_); }
  void step() {
    gradient();
    adamw();
    assign();
  }

  int threads() const { return threads_; }
  double loss() const { return loss_; }

 private:
  int threads_;
  double last_ = 0, loss_ = 0;  // of the last gradient, and after three steps
  Masters<Model> master_ = initial_weights<Model>(), gradients_;
  Weights<Model, T> weights_;
  std::vector<std::int32_t> ids_;
  std::vector<Example> examples_;
  Gradient<Model, T> gradient_;
  AdamW<Model> optimiser_;
};

/// The last one made: rows of as many threads follow each other and share it.
template <class Model, class T>
TrainingStep<Model, T>& training_step(Size size, int threads) {
  static std::unique_ptr<TrainingStep<Model, T>> last;
  if (!last || last->threads() != threads) {
    last.reset();
    last = std::make_unique<TrainingStep<Model, T>>(size, threads);
  }
  return *last;
}

template <class Model, class T>
struct TrainingRows {
  std::string model;
  Size size;
  int threads;

  void add(const std::string& variant, Cost cost, void (TrainingStep<Model, T>::*part)()) const {
    const std::string name =
        path({"training", variant, model, extents({size.sequences, size.seq_len})});
    model_row(name, threads, size.tokens(), dot_of<T>,
              [cost, part, self = *this](benchmark::State& state) {
                auto& t = training_step<Model, T>(self.size, self.threads);
                while (state.KeepRunning()) (t.*part)();
                state.counters["loss"] = t.loss();
                return cost;
              });
  }

  // Weights and gradients are larger than caches: each part reads and writes all of them.
  static constexpr double weight_bytes = static_cast<double>(Model::template weight_bytes<T>),
                          master_bytes = floats(Model::parameters);
  Cost gradient() const {
    return {.bytes = weight_bytes + master_bytes, .flops = training_flops<Model>(size)};
  }
  static Cost adamw() { return {.bytes = 7 * master_bytes}; }
  static Cost assign() { return {.bytes = master_bytes + weight_bytes}; }

  void add_step() const {
    const Cost all{.bytes = gradient().bytes + adamw().bytes + assign().bytes,
                   .flops = gradient().flops};
    add("step" + type_suffix<T>(), all, &TrainingStep<Model, T>::step);
  }
  void add_parts() const {
    add("gradient" + type_suffix<T>(), gradient(), &TrainingStep<Model, T>::gradient);
    if (dot_of<T> == Dot::f32) add("adamw", adamw(), &TrainingStep<Model, T>::adamw);
    add("assign" + type_suffix<T>(), assign(), &TrainingStep<Model, T>::assign);
  }
};

template <class T>
void add() {
  for (const int threads : thread_counts()) {
    TrainingRows<Demo, T>{"demo", {1, 256}, threads}.add_step();
    const TrainingRows<Samba20M, T> rows{"samba20m", {4, 512}, threads};
    rows.add_step();
    rows.add_parts();
  }
}

[[maybe_unused]] const bool registered = [] {
  add<float>();
  add<bf16>();
  if (const char* file = std::getenv("SAMBA_BENCH_WEIGHTS"))
    save(initial_weights<Samba20M>(), file);
  return true;
}();

}  // namespace
