#pragma once
// The golden cases of single layers, tests/data/golden/layers, and what runs a layer alone.
#include <samba/kernels/cpu.hpp>
#include <samba/layers/attention.hpp>
#include <samba/layers/mamba.hpp>
#include <samba/layers/swiglu.hpp>

#include "tests/catch.hpp"
#include "tests/support.hpp"

namespace samba_test {

using namespace samba;

namespace golden {

// Of tests/data/golden/layers/config.json.
constexpr int batch = 2, seq_len = 19, d_model = 24, d_inner = 48, d_state = 7, d_conv = 4,
              lru_heads = 3;
constexpr float norm_eps = 1e-5f, theta = 10000.f;

using GoldenMamba =
    Mamba<d_model, d_state, MambaOptions{.d_conv = d_conv, .expand = 2, .dt_rank = 2}>;
using GoldenSwa = SWA<5, AttentionOptions{.n_heads = 6, .n_kv_heads = 2}>::with_d_model<d_model>;
// Options of attention, by tests/golden/make_options.py.
using GoldenSinks =
    SWA<5, AttentionOptions{
               .n_heads = 6, .n_kv_heads = 2, .bias = true, .sinks = true}>::with_d_model<d_model>;
using GoldenTokenNorm =
    SWA<5, AttentionOptions{
               .n_heads = 6, .n_kv_heads = 2, .qk_norm = QkNorm::token}>::with_d_model<d_model>;
using GoldenGate = SWA<5, AttentionOptions{.n_heads = 6,
                                           .n_kv_heads = 2,
                                           .rotary_fraction = 0.5f,
                                           .qk_norm = QkNorm::head,
                                           .qk_norm_plus_one = true,
                                           .gate = true}>::with_d_model<d_model>;
using GoldenCap =
    SWA<5, AttentionOptions{.n_heads = 6, .n_kv_heads = 2, .scale_dim = 9, .score_cap = 1.5f}>::
        with_d_model<d_model>;
using GoldenSwiGLU = SwiGLU<d_model, 36>;

inline SafetensorsFile layer_file(const std::string& layer) {
  return SafetensorsFile::open(data_path("golden/layers/" + layer + ".safetensors"));
}

/// Binds a tensor to its own memory, which is zero.
template <class Tensor>
Arena bind(Tensor& tensor) {
  Arena arena(Tensor::bytes);
  tensor.bind(arena.data());
  return arena;
}

/// Binds a tensor to its own memory and fills it from the file.
template <class Tensor>
Arena load(const SafetensorsFile& file, const std::string& name, Tensor& tensor) {
  Arena arena = bind(tensor);
  const auto values = read_tensor<Real<typename Tensor::value_type>>(file, name);
  REQUIRE(values.size() == static_cast<std::size_t>(Tensor::rows * Tensor::row_size));
  for (std::int64_t r = 0; r < Tensor::rows; ++r)
    tensor.set_row(r, values.data() + r * Tensor::row_size);
  return arena;
}

/// The elements of a tensor as the file has them.
template <class Tensor>
auto values_of(const Tensor& tensor) {
  std::vector<typename Tensor::value_type> values(
      static_cast<std::size_t>(Tensor::rows * Tensor::row_size));
  for (std::int64_t r = 0; r < Tensor::rows; ++r)
    tensor.get_row(r, values.data() + r * Tensor::row_size);
  return values;
}

/// From (batch, d_inner, d_state) as in the file to (batch, d_state, d_inner) as in a state.
template <class R>
std::vector<R> transposed_states(const std::vector<R>& from) {
  std::vector<R> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i)
    to[i / (d_state * d_inner) * d_state * d_inner + i % d_state * d_inner +
       i / d_state % d_inner] = from[i];
  return to;
}

/// Half of a vector that holds both elements of the batch.
template <class R>
std::span<R> element(std::vector<R>& both, int b) {
  const std::size_t half = both.size() / batch;
  return std::span(both).subspan(static_cast<std::size_t>(b) * half, half);
}

/// The states of both elements in such a vector, from that of element b on.
template <class R>
ArrayData<R> states_in(std::vector<R>& both, int b = 0) {
  return {element(both, b).data(), std::ssize(both) / batch * std::int64_t{sizeof(R)}};
}

/// The weights of an RG-LRU, or their gradients, bound to memory of their own.
template <class R>
struct LruWeights {
  static constexpr int block = d_model / lru_heads;
  using P = Policy<R>;

  BlockDiagonal<R, lru_heads, block> input_gate, recurrent_gate;
  BlockDiagonal<Master<R>, lru_heads, block> dinput_gate, drecurrent_gate;
  Table<R, lru_heads, block> input_bias, recurrent_bias, dinput_bias, drecurrent_bias;
  Vector<R, d_model> param, dparam;
  std::vector<Arena> memory;

  explicit LruWeights(const SafetensorsFile& file) {
    memory.push_back(load(file, "w.input_gate_weight", input_gate));
    memory.push_back(load(file, "w.recurrent_gate_weight", recurrent_gate));
    memory.push_back(load(file, "w.input_gate_bias", input_bias));
    memory.push_back(load(file, "w.recurrent_gate_bias", recurrent_bias));
    memory.push_back(load(file, "w.recurrent_param", param));
    memory.push_back(bind(dinput_gate));
    memory.push_back(bind(drecurrent_gate));
    memory.push_back(bind(dinput_bias));
    memory.push_back(bind(drecurrent_bias));
    memory.push_back(bind(dparam));
  }

  /// The products of the gates.
  void gates(const Context<P>& c, In<P, d_model> x, Out<P, d_model> i, Out<P, d_model> r) const {
    kernels::block_matmul(c, input_gate, x, i);
    kernels::block_matmul(c, recurrent_gate, x, r);
  }
  kernels::RgLruInputs<P, lru_heads, d_model> inputs(In<P, d_model> x, In<P, d_model> i,
                                                     In<P, d_model> r, ArrayData<R> h) const {
    return {.param = param,
            .input_bias = input_bias,
            .recurrent_bias = recurrent_bias,
            .input_gate = i,
            .recurrent_gate = r,
            .x = x,
            .h = h};
  }
};

/// The heads of rows of the files of rope, of which an operation takes all but the last as queries.
inline constexpr int heads = 6;
template <int HeadDim, class R>
struct TurnedHeads {
  kernels::Heads<R, 1, heads - 1, HeadDim> q;
  kernels::Heads<R, 1, 1, HeadDim> k;
};
template <int HeadDim, class R>
TurnedHeads<HeadDim, R> turned_heads(std::vector<R>& all) {
  constexpr std::int64_t width = heads * HeadDim;
  const std::int64_t rows = std::ssize(all) / width;
  return {{all.data(), rows, width, 0}, {all.data() + width - HeadDim, rows, width, 0}};
}

/// The weights of a layer, or their gradients, in memory of their own, which is zero.
template <class Weights>
class Bound : public Weights {
 public:
  Bound() {
    const auto each = [&](const char*, auto& tensor, const auto&...) {
      memory_.push_back(bind(tensor));
    };
    Weights::visit(*this, each);
    if constexpr (requires { Weights::visit_derived(*this, each); })
      Weights::visit_derived(*this, each);
  }

 private:
  std::vector<Arena> memory_;
};

/// The states of `n` sequences, empty at first.
template <class State>
class StatesOf : public State {
 public:
  explicit StatesOf(std::int64_t n) : n_(n) {
    const std::int64_t each = place(nullptr, 0);
    memory_ = Arena(n * each);
    place(memory_.data(), each);
  }
  StatesOf(const StatesOf& other) : StatesOf(other.n_) {
    if (memory_.bytes() > 0)
      std::memcpy(memory_.data(), other.memory_.data(), static_cast<std::size_t>(memory_.bytes()));
  }

 private:
  std::int64_t place(std::byte* block, std::int64_t to_next) {
    Placer placer{block};
    State::visit(static_cast<State&>(*this), [&]<class Tensor>(const char*, Tensor& tensor) {
      tensor.bind(placer.take(Tensor::bytes(0)), to_next, 0);
    });
    return placer.offset;
  }

  std::int64_t n_;
  Arena memory_;
};

/// Places for what a layer's forward or backward needs.
template <class Scratch>
class Placed : public Scratch {
 public:
  Placed(std::int64_t rows, int threads, bool keep = false) {
    ScratchPlacer count{{}, rows, threads, keep};
    Scratch::visit(*this, count);
    memory_ = Arena(count.placer.offset);
    ScratchPlacer place{{memory_.data()}, rows, threads, keep};
    Scratch::visit(*this, place);
  }

 private:
  Arena memory_;
};

/// A layer with weights from a file.
template <class L, class T>
class Runner {
 public:
  using P = Policy<T>;
  using R = Real<T>;
  using State = typename L::template State<P>;
  using Gradients = Bound<typename L::template Weights<Master<R>>>;
  using StateGradients = StatesOf<typename L::template State<samba::Gradients<P>>>;

  /// `prefix`: what the layer's names have before those of the file.
  Runner(const SafetensorsFile& file, const std::string& prefix) {
    weights_.visit(weights_, [&](const std::string& name, auto& tensor, const auto&...) {
      REQUIRE(name.starts_with(prefix));
      memory_.push_back(load(file, "w." + name.substr(prefix.size()), tensor));
    });
    if constexpr (requires { weights_.derive(); }) weights_.derive();
  }

  /// The outputs for x, (rows, d_model); advances the states.
  std::vector<R> forward(std::span<const R> x, const std::vector<Segment>& segments,
                         const StatesOf<State>& states, int threads = 1) {
    const std::int64_t rows = std::ssize(x) / d_model;
    Placed<typename L::template Scratch<P>> scratch(rows, threads);
    std::vector<R> out(x.size());
    parallel(threads, [&](Team team) {
      L::forward(Context<P>{{segments, rows}, {team}, norm_eps}, weights_, states, scratch,
                 In<P, d_model>{x.data(), rows}, Out<P, d_model>{out.data(), rows});
    });
    return out;
  }

  /// The gradients of x for those of the outputs. found: the states before x; ds: the gradients of
  /// those behind it, then of those before it; g is added to.
  std::vector<R> backward(std::span<const R> x, std::span<const R> dout,
                          const std::vector<Segment>& segments, const StatesOf<State>& found,
                          const StateGradients& ds, Gradients& g, int threads = 1) {
    const std::int64_t rows = std::ssize(x) / d_model;
    Placed<typename L::template Scratch<P>> scratch(rows, threads, true);
    Placed<typename L::template Backward<P>> more(rows, threads);
    const StatesOf<State> moved = found;
    std::vector<R> out(x.size()), dx(x.size());
    parallel(threads, [&](Team team) {
      const Context<P> c{{segments, rows}, {team}, norm_eps};
      const In<P, d_model> in{x.data(), rows};
      L::forward(c, weights_, moved, scratch, in, Out<P, d_model>{out.data(), rows});
      L::backward(c, weights_, g, found, ds, scratch, more, in, In<P, d_model>{dout.data(), rows},
                  Out<P, d_model>{dx.data(), rows});
    });
    return dx;
  }

  const auto& weights() const { return weights_; }

 private:
  Bound<typename L::template Weights<T>> weights_;
  std::vector<Arena> memory_;
};

}  // namespace golden
}  // namespace samba_test
