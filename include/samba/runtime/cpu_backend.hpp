#pragma once
#include <samba/kernels/cpu.hpp>
#include <samba/runtime/engine.hpp>

#include <array>

namespace samba::inline SAMBA_TARGET {

/// Options of Session and Batch.
struct SessionOptions {
  std::int64_t capacity = 4096;  ///< positions that full attention keeps; other models ignore it
  /// At most most_threads(), the number of processors. 0: OpenMP's maximum, or 1 inside a parallel
  /// region. While another program keeps a processor busy, calls use fewer threads. Results do not
  /// depend on any of this.
  int threads = 0;
  /// The most tokens that go through the model together. It determines the size of scratch memory,
  /// not the results.
  int chunk = 256;
};

namespace detail {

/// Runs a model on the processor's threads: see Engine.
template <class M, class T, class KV>
class CpuBackend {
 public:
  using Model = M;
  using P = Policy<T, KV>;
  using R = Real<T>;
  using Options = SessionOptions;
  using Weights = samba::Weights<Model, T>;
  using States = typename Model::template States<P>;
  static constexpr bool on_host = true;

  CpuBackend(const Weights& weights, const Options& o) : weights_(&weights), options_(o) {}

  [[gnu::cold]] static Options check_options(const char* who, Options o) {
    if (o.threads < 0)
      fail({who, ": SessionOptions::threads: expected 0 or more, found ", o.threads});
    o.threads = usable_threads(o.threads);
    return o;
  }

  const Weights& weights() const { return *weights_; }

  static Arena allocate(std::int64_t bytes, const char* what) { return Arena(bytes, what); }
  static Arena allocate_host(std::int64_t bytes, const char* what) { return Arena(bytes, what); }
  static void clear(std::byte* to, std::int64_t bytes) {
    std::memset(to, 0, static_cast<std::size_t>(bytes));
  }
  static void copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }

  /// Allocates scratch memory, and touches all memory now, so that no step has to wait for page faults.
  [[gnu::cold]] void prepare(const States&, const Arena& states, const PassInput&, int) {
    constexpr const char* what = "SessionOptions::chunk, threads: what is computed from a chunk";
    scratch_ = Arena(lay_out(nullptr, what), what);
    lay_out(scratch_.data(), what);
    clear(states.data(), states.bytes());
    clear(scratch_.data(), scratch_.bytes());
    parallel(options_.threads, [](const Team&) {});  // starts the threads
  }

  /// Runs rows through the model. Writes the logits of every row to `all`, or, if it is null, those of
  /// the wanted rows to their places.
  void run(const States& states, const PassInput& input, std::span<const WantedRow<R>> wanted,
           R* all) {
    const auto& w = weights_->tree();
    const std::int64_t rows = input.rows;
    const Rows<R, Model::d_model> x{x_, rows}, normed{normed_, rows};
    Model::template lend_states<P>(channels(), states);
    const std::int64_t start = nanoseconds();
    const std::int64_t slept = parallel(team_size_.next(), [&](const Team& team) {
      const Context<P> c{
          {{input.segments, input.n_segments}, rows}, {team}, Model::norm_eps, channels()};
      Model::embed(c, w, input.tokens, x);
      Model::forward(c, w, states, {memory_, rows, options_.threads}, x);
      if (all) {
        Model::logits(c, w, x, normed, {all, rows});
        return;
      }
      for_each_run(wanted, Model::vocab_size, [&](std::int64_t row, std::int64_t n, R* logits) {
        Model::logits(c, w, {x.row(row), n}, {normed.row(row), n}, {logits, n});
      });
    });
    const double seconds = 1e-9 * static_cast<double>(nanoseconds() - start);
    team_size_.ran(2 * rows + (all != nullptr), seconds, slept);
  }

 private:
  /// Places the scratch memory in `block`, or only counts if it is null; returns its size in bytes.
  [[gnu::cold]] std::int64_t lay_out(std::byte* block, const char* what) {
    const std::int64_t rows = options_.chunk,
                       of_row = Model::d_model * static_cast<std::int64_t>(sizeof(R));
    Placer placer{block};
    x_ = reinterpret_cast<R*>(placer.take_array(rows, of_row, what));
    normed_ = reinterpret_cast<R*>(placer.take_array(rows, of_row, what));
    memory_ = placer.take(scratch_bytes<Model, P>({nullptr, rows, options_.threads}), what);
    Model::template place_channels<P>(channels_.data(), placer, rows, false);
    return placer.offset;
  }
  std::span<ChannelPlace> channels() {
    return std::span(channels_).first(std::size_t{Model::n_channels});
  }

  const Weights* weights_;
  SessionOptions options_;
  TeamSize team_size_{options_.threads};
  Arena scratch_;  // what follows
  R *x_ = nullptr, *normed_ = nullptr;
  std::byte* memory_ = nullptr;  // of branches
  std::array<ChannelPlace, (Model::n_channels > 0 ? Model::n_channels : 1)> channels_{};
};

}  // namespace detail
}  // namespace samba::inline SAMBA_TARGET
