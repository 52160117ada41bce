#pragma once
#include <samba/cuda/device.cuh>
#include <samba/model/weights.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

namespace samba::inline SAMBA_TARGET::cuda {

/// Options of cuda::Session.
struct SessionOptions {
  std::int64_t capacity = 4096;  ///< positions that full attention keeps; other models ignore it
  int chunk = 256;  ///< the most tokens that go through the model together: it determines memory
  bool overlap = true;  ///< kernels overlap where the device can: see Cuda; results are the same
};

/// One sequence on the current GPU, like samba::Session: matrices and activations in T, bf16 or
/// float; keys and values in KV; the residual stream, norms, states and logits in float.
///
/// It copies the weights to the device, where they take as many bytes as on the host; those on the
/// host may go. prefill, step and forward continue from the state and advance it. A step is one
/// captured graph. Splits change logits by rounding only. Bad input throws Error and changes nothing;
/// after an error of CUDA itself, which names the call, a session is of no use. Nothing is allocated
/// after construction, which throws Error if there is no device or too little memory.
template <class Model, class T = bf16, class KV = T>
class Session {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, float>,
                "cuda::Session: matrices must be in bf16 or float");
  using P = Policy<RowMajor<T>, KV, Cuda>;

 public:
  using Tokens = std::span<const std::int32_t>;
  static constexpr int vocab_size = Model::vocab_size;

  explicit Session(const Weights<Model, RowMajor<T>>& weights,
                   SessionOptions options = SessionOptions{})
      : options_(check_options(options)),
        device_(options.overlap),
        weights_(to_device(weights.memory(), "weights")) {
    constexpr const char* chunk = "SessionOptions::chunk: what is computed from a chunk";
    state_bytes_ = Model::template place_states<P>(states_, nullptr, 0, options_.capacity);
    block_ = allocate(state_bytes_, "SessionOptions::capacity: the state");
    Model::template place_states<P>(states_, block_.data(), state_bytes_, options_.capacity);

    const std::int64_t input_bytes =
        tokens_at + options_.chunk * std::int64_t{sizeof(std::int32_t)};
    input_ = allocate(input_bytes, chunk);
    host_input_ = allocate_pinned(input_bytes, chunk);
    host_logits_ = allocate_pinned(vocab_size * std::int64_t{sizeof(float)}, chunk);
    scratch_ = allocate(lay_out(nullptr), chunk);
    lay_out(scratch_.data());

    // A run that is not captured loads all kernels, which a capture may not do. Its segment is still
    // empty.
    pass(1);
    logits(0, 1);
    device_.synchronize();
    reset();
    step_.emplace(device_, [&] {
      send(1);
      pass(1);
      logits(0, 1);
      fetch(1, host_logits());
    });
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Reads tokens (at least one); returns the logits of the last one, [vocab_size], valid until the
  /// next call.
  std::span<const float> prefill(Tokens tokens) {
    check_tokens(tokens, "prefill");
    std::int64_t rows = 0;
    for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += rows) {
      rows = rows_from(tokens, begin);
      put(tokens.subspan(static_cast<std::size_t>(begin)), rows, begin);
      send(rows);
      pass(rows);
      if (begin + rows < std::ssize(tokens)) device_.synchronize();  // before the next put
    }
    logits(rows - 1, 1);
    fetch(1, host_logits());
    device_.synchronize();
    position_ += std::ssize(tokens);
    return last_logits();
  }

  /// Reads one token; returns its logits, [vocab_size], valid until the next call.
  std::span<const float> step(std::int32_t token) {
    const Tokens tokens(&token, 1);
    check_tokens(tokens, "step");
    put(tokens, 1);
    step_->replay();
    device_.synchronize();
    ++position_;
    return last_logits();
  }

  /// Reads tokens (at least one) and writes the logits of all of them, [tokens, vocab_size], row
  /// major.
  void forward(Tokens tokens, std::span<float> all) {
    check_tokens(tokens, "forward");
    if (const auto n =
            checked_product("cuda::Session::forward: tokens", std::ssize(tokens), vocab_size);
        std::ssize(all) != n)
      fail({"cuda::Session::forward: logits: expected room for ", n, " values ([", tokens.size(),
            ", ", vocab_size, "]), found ", all.size()});
    float* to = all.data();
    std::int64_t rows = 0;
    for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += rows) {
      rows = rows_from(tokens, begin);
      put(tokens.subspan(static_cast<std::size_t>(begin)), rows, begin);
      send(rows);
      pass(rows);
      for (std::int64_t row = 0; row < rows; row += logit_rows) {
        const std::int64_t n = (std::min)(logit_rows, rows - row);
        logits(row, n);
        fetch(n, to);
        to += n * vocab_size;
      }
      device_.synchronize();
    }
    position_ += std::ssize(tokens);
  }

  /// Tokens read so far.
  std::int64_t position() const { return position_; }
  /// Bytes of the state.
  std::int64_t state_bytes() const { return state_bytes_; }
  const SessionOptions& options() const { return options_; }

  /// Returns to the empty sequence.
  void reset() {
    check_call(
        cudaMemsetAsync(block_.data(), 0, static_cast<std::size_t>(block_.bytes()), stream()),
        "cudaMemsetAsync");
    device_.synchronize();
    position_ = 0;
  }

 private:
  static constexpr std::int64_t tokens_at = sizeof(Segment);  // in input_, after the segment
  static constexpr std::int64_t logit_rows = 16;              // logits computed together

  struct CountScratch {
    ScratchMemory memory;
    std::int64_t bytes = 0;
    void operator()(auto branch, Use) {
      typename decltype(branch)::type::template Scratch<P> t;
      bytes = (std::max)(bytes, t.place(memory));
    }
  };

  static SessionOptions check_options(SessionOptions o) {
    if (o.capacity < 1)
      fail({"cuda::Session: SessionOptions::capacity: expected at least 1, found ", o.capacity});
    if (o.chunk < 1)
      fail({"cuda::Session: SessionOptions::chunk: expected at least 1, found ", o.chunk});
    return o;
  }

  /// Places what is computed from a chunk in `block`, or only counts if it is null.
  std::int64_t lay_out(std::byte* block) {
    constexpr const char* what = "SessionOptions::chunk";
    const std::int64_t rows = options_.chunk, n = (std::min)(rows, logit_rows);
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t count) {
      x = reinterpret_cast<X*>(placer.take_array(count, sizeof(X), what));
    };
    take(x_, rows * Model::d_model);
    take(normed_, n * Model::d_model);
    take(logits_, n * vocab_size);
    CountScratch count{{nullptr, rows, 1}};
    for_each_branch<typename Model::Stack>(count);
    memory_ = placer.take(count.bytes, what);
    Model::template place_channels<P>(channels_.data(), placer, rows, false);
    return placer.offset;
  }

  /// Throws unless the sequence can read these tokens.
  void check_tokens(Tokens tokens, const char* call) const {
    if (tokens.empty())
      fail({"cuda::Session::", call, ": expected at least one token, found none"});
    for (std::size_t k = 0; k < tokens.size(); ++k)
      if (tokens[k] < 0 || tokens[k] >= vocab_size)
        fail({"cuda::Session::", call, ": token ", tokens[k], " at index ", k,
              " is outside the vocabulary [0, ", vocab_size, ")"});
    if constexpr (Model::has_capacity)
      if (std::ssize(tokens) > options_.capacity - position_)
        fail({"cuda::Session::", call, ": position ", position_, " and ", tokens.size(),
              " tokens exceed the capacity of ", options_.capacity,
              " positions; give SessionOptions{.capacity = ...}"});
  }
  std::int64_t rows_from(Tokens tokens, std::int64_t begin) const {
    return std::min<std::int64_t>(options_.chunk, std::ssize(tokens) - begin);
  }

  cudaStream_t stream() const { return device_.get().stream; }
  std::span<detail::ChannelPlace> channels() {
    return std::span(channels_).first(std::size_t{Model::n_channels});
  }
  Context<P> context(std::int64_t rows) {
    const std::span segments(reinterpret_cast<const Segment*>(input_.data()), 1);
    return {{segments, rows}, device_.get(), Model::norm_eps, channels()};
  }
  float* host_logits() const { return reinterpret_cast<float*>(host_logits_.data()); }
  std::span<const float> last_logits() const { return {host_logits(), std::size_t{vocab_size}}; }

  /// Puts the first `rows` of the tokens, `done` tokens after position_, where send takes them.
  void put(Tokens tokens, std::int64_t rows, std::int64_t done = 0) {
    const Segment segment{position_ + done, 0, rows, 0};
    std::memcpy(host_input_.data(), &segment, sizeof(segment));
    std::memcpy(host_input_.data() + tokens_at, tokens.data(),
                static_cast<std::size_t>(rows) * sizeof(std::int32_t));
  }

  // Work for the stream; a graph may capture it.

  void send(std::int64_t rows) {
    check_call(cudaMemcpyAsync(input_.data(), host_input_.data(),
                               static_cast<std::size_t>(tokens_at) +
                                   static_cast<std::size_t>(rows) * sizeof(std::int32_t),
                               cudaMemcpyHostToDevice, stream()),
               "cudaMemcpyAsync");
  }
  void pass(std::int64_t rows) {
    const Rows<float, Model::d_model> x{x_, rows};
    Model::template lend_states<P>(channels(), states_);
    const Context<P> c = context(rows);
    Model::embed(c, weights_.tree(),
                 reinterpret_cast<const std::int32_t*>(input_.data() + tokens_at), x);
    Model::forward(c, weights_.tree(), states_, {memory_, rows, 1}, x);
  }
  /// The logits of n rows from `row`.
  void logits(std::int64_t row, std::int64_t n) {
    Model::logits(context(n), weights_.tree(), {x_ + row * Model::d_model, n}, {normed_, n},
                  {logits_, n});
  }
  void fetch(std::int64_t n, float* to) {
    check_call(
        cudaMemcpyAsync(to, logits_, static_cast<std::size_t>(n * vocab_size) * sizeof(float),
                        cudaMemcpyDeviceToHost, stream()),
        "cudaMemcpyAsync");
  }

  SessionOptions options_;
  Device device_;
  Weights<Model, RowMajor<T>> weights_;        // on the device
  typename Model::template States<P> states_;  // views into block_
  std::array<detail::ChannelPlace, (Model::n_channels > 0 ? Model::n_channels : 1)> channels_{};
  Arena block_, scratch_, input_;   // on the device
  Arena host_input_, host_logits_;  // pinned
  std::int64_t state_bytes_ = 0, position_ = 0;
  float *x_ = nullptr, *logits_ = nullptr;  // (chunk, d_model), (logit_rows, vocab_size)
  T* normed_ = nullptr;                     // (logit_rows, d_model)
  std::byte* memory_ = nullptr;             // of branches
  std::optional<Graph> step_;
};

}  // namespace samba::inline SAMBA_TARGET::cuda
