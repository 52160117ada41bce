#pragma once
#include <samba/cuda/weights.cuh>
#include <samba/runtime/engine.hpp>

#include <algorithm>
#include <array>
#include <memory>

namespace samba::inline SAMBA_TARGET::cuda {

/// Options of cuda::Session and cuda::Batch.
struct SessionOptions {
  std::int64_t capacity = 4096;  ///< positions that full attention keeps; other models ignore it
  int chunk = 256;  ///< the most tokens that go through the model together: it determines memory
  bool overlap = true;  ///< kernels overlap where the device can: see Cuda; results are the same
};

/// Runs a model on the current GPU: see detail::Engine. Passes in which every sequence has one token
/// are captured as graphs, for 1, 2, 4, ... rows and for all sequences; a pass of another number of
/// rows takes the next larger one, whose rest belongs to no sequence.
template <class M, class T, class KV>
class CudaBackend {
 public:
  using Model = M;
  using P = Policy<RowMajor<T>, KV, Cuda>;
  using Options = SessionOptions;
  using Weights = cuda::Weights<Model, T>;
  using States = typename Model::template States<P>;
  using PassInput = detail::PassInput;
  using WantedRow = detail::WantedRow<float>;
  static constexpr bool on_host = false;
  static constexpr int vocab_size = Model::vocab_size;

  CudaBackend(const Weights& weights, const Options& o)
      : options_(o), device_(std::make_unique<Device>(o.overlap)), weights_(weights) {}

  static Options check_options(const char*, Options o) { return o; }

  const Weights& weights() const { return weights_; }

  static Arena allocate(std::int64_t bytes, const char* what) {
    return cuda::allocate(bytes, what);
  }
  static Arena allocate_host(std::int64_t bytes, const char* what) {
    return allocate_pinned(bytes, what);
  }
  void clear(std::byte* to, std::int64_t bytes) const {
    check_call(cudaMemsetAsync(to, 0, static_cast<std::size_t>(bytes), stream()),
               "cudaMemsetAsync");
    device_->synchronize();
  }
  /// Between any two places, on the device and on the host.
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) const {
    submit_copy(to, from, bytes);
    device_->synchronize();
  }

  void prepare(const States& states, const Arena&, const PassInput& input, int sequences) {
    constexpr const char* what = "SessionOptions::chunk: what is computed from a chunk";
    const std::int64_t most = std::min<std::int64_t>(sequences, options_.chunk);
    tokens_at_ =
        reinterpret_cast<std::byte*>(input.tokens) - reinterpret_cast<std::byte*>(input.segments);
    logit_rows_ = (std::min)(std::int64_t{options_.chunk}, (std::max)(most, std::int64_t{16}));
    input_ = allocate(tokens_at_ + options_.chunk * std::int64_t{sizeof(std::int32_t)}, what);
    scratch_ = allocate(lay_out(nullptr), what);
    lay_out(scratch_.data());

    for (std::int64_t rows = 1;; rows = (std::min)(2 * rows, most)) {
      // A run that is not captured loads all kernels, which a capture may not do. Its segments are
      // empty, so no state changes.
      const auto run_step = [&] {
        pass(states, static_cast<std::size_t>(rows), rows);
        logits(0, rows);
      };
      run_step();
      device_->synchronize();
      steps_.push_back({rows, std::make_unique<Graph>(*device_, [&] {
                          send(input, rows);
                          run_step();
                        })});
      if (rows == most) break;
    }
  }

  /// Runs rows through the model. Writes the logits of every row to `all`, or, if it is null, those of
  /// the wanted rows to their places.
  void run(const States& states, const PassInput& input, std::span<const WantedRow> wanted,
           float* all) {
    const std::int64_t rows = input.rows;
    const bool step = static_cast<std::int64_t>(input.n_segments) == rows &&
                      static_cast<std::int64_t>(wanted.size()) == rows &&
                      rows <= steps_.back().rows;
    if (step) {
      const Step& of_rows =
          *std::lower_bound(steps_.begin(), steps_.end(), rows,
                            [](const Step& step, std::int64_t n) { return step.rows < n; });
      std::fill(input.segments + rows, input.segments + of_rows.rows, Segment{});
      std::fill(input.tokens + rows, input.tokens + of_rows.rows, 0);
      of_rows.graph->replay();
    } else {
      send(input, rows);
      pass(states, input.n_segments, rows);
    }
    const auto fetch = [&](std::int64_t row, std::int64_t n, float* to) {
      for (std::int64_t done = 0; done < n; done += logit_rows_) {
        const std::int64_t some = (std::min)(logit_rows_, n - done);
        if (!step) logits(row + done, some);
        submit_copy(to + done * vocab_size, logits_ + (step ? row + done : 0) * vocab_size,
                    some * vocab_size * std::int64_t{sizeof(float)});
      }
    };
    if (all)
      fetch(0, rows, all);
    else
      detail::for_each_run(wanted, vocab_size, fetch);
    device_->synchronize();
  }

 private:
  struct Step {
    std::int64_t rows;
    std::unique_ptr<Graph> graph;
  };

  /// Places what is computed from a chunk in `block`, or only counts if it is null.
  std::int64_t lay_out(std::byte* block) {
    constexpr const char* what = "SessionOptions::chunk";
    const std::int64_t rows = options_.chunk;
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t count) {
      x = reinterpret_cast<X*>(placer.take_array(count, sizeof(X), what));
    };
    take(x_, rows * Model::d_model);
    take(normed_, logit_rows_ * Model::d_model);
    take(logits_, logit_rows_ * vocab_size);
    memory_ = placer.take(detail::scratch_bytes<Model, P>({nullptr, rows, 1}), what);
    Model::template place_channels<P>(channels_.data(), placer, rows, false);
    return placer.offset;
  }

  cudaStream_t stream() const { return device_->get().stream(); }
  std::span<detail::ChannelPlace> channels() {
    return std::span(channels_).first(std::size_t{Model::n_channels});
  }
  Context<P> context(std::size_t n_segments, std::int64_t rows) {
    const std::span segments(reinterpret_cast<const Segment*>(input_.data()), n_segments);
    return {{segments, rows}, device_->get(), Model::norm_eps, channels()};
  }

  // Work for the stream; a graph may capture it.

  void submit_copy(void* to, const void* from, std::int64_t bytes) const {
    check_call(
        cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream()),
        "cudaMemcpyAsync");
  }
  /// The segments and the tokens of some rows.
  void send(const PassInput& input, std::int64_t rows) {
    submit_copy(input_.data(), input.segments,
                tokens_at_ + rows * std::int64_t{sizeof(std::int32_t)});
  }
  void pass(const States& states, std::size_t n_segments, std::int64_t rows) {
    const Rows<float, Model::d_model> x{x_, rows};
    Model::template lend_states<P>(channels(), states);
    const Context<P> c = context(n_segments, rows);
    Model::embed(c, weights_.tree(),
                 reinterpret_cast<const std::int32_t*>(input_.data() + tokens_at_), x);
    Model::forward(c, weights_.tree(), states, {memory_, rows, 1}, x);
  }
  /// The logits of n rows from `row`, at most logit_rows_, to the start of logits_.
  void logits(std::int64_t row, std::int64_t n) {
    Model::logits(context(0, n), weights_.tree(), {x_ + row * Model::d_model, n}, {normed_, n},
                  {logits_, n});
  }

  Options options_;
  std::unique_ptr<Device> device_;
  Weights weights_;
  std::array<detail::ChannelPlace, (Model::n_channels > 0 ? Model::n_channels : 1)> channels_{};
  Arena scratch_, input_;  // on the device; input_: as in the host's memory
  std::int64_t tokens_at_ = 0, logit_rows_ = 0;
  float *x_ = nullptr, *logits_ = nullptr;  // (chunk, d_model), (logit_rows, vocab_size)
  T* normed_ = nullptr;                     // (logit_rows, d_model)
  std::byte* memory_ = nullptr;             // of branches
  std::vector<Step> steps_;                 // by rows
};

}  // namespace samba::inline SAMBA_TARGET::cuda
