#pragma once
#include <samba/kernels/cpu.hpp>
#include <samba/model/weights.hpp>
#include <samba/runtime/snapshot.hpp>
#include <samba/runtime/state_file.hpp>

#include <algorithm>
#include <span>

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

/// Throws unless all tokens are in the vocabulary.
[[gnu::noinline]] inline void check_tokens(const char* who, const char* call,
                                           std::span<const std::int32_t> tokens, int vocab_size) {
  for (std::size_t k = 0; k < tokens.size(); ++k)
    if (tokens[k] < 0 || tokens[k] >= vocab_size)
      fail({who, "::", call, ": ", "token ", tokens[k], " at index ", k,
            " is outside the vocabulary [0, ", vocab_size, ")"});
}

/// What Session and Batch have in common: the states of some sequences, scratch memory, and running
/// chunks through the model. Checks its input; messages start with `who`, the caller's name.
template <class Model, class T, class KV>
class Engine {
  using P = Policy<T, KV>;

 public:
  using R = Real<T>;
  using Tokens = std::span<const std::int32_t>;

  [[gnu::cold]] Engine(const char* who, const Weights<Model, T>& weights, int sequences,
                       SessionOptions options)
      : who_(who),
        weights_(&weights),
        sequences_(sequences),
        options_(check_options(who, sequences, options)) {
    own_ = Arena(lay_out(nullptr), "SessionOptions::chunk, sequences: tokens and logits");
    lay_out(own_.data());
    info_.structure = structure<Model>();
    info_.dtypes = state_dtypes<R, KV>();
    info_.capacity = Model::has_capacity ? options_.capacity : 0;
    info_.bytes = Model::template place_states<P>(states_, nullptr, 0, options_.capacity);
    constexpr const char* states = "SessionOptions::capacity, sequences: states";
    block_ = Arena(checked_product(states, info_.bytes, sequences), states);
    Model::template place_states<P>(states_, block_.data(), info_.bytes, options_.capacity);

    Placer rows;
    const std::int64_t stream =
        std::int64_t{options_.chunk} * Model::d_model * static_cast<std::int64_t>(sizeof(R));
    rows.take(stream);
    rows.take(stream);
    CountScratch count{{nullptr, options_.chunk, options_.threads}};
    for_each_branch<typename Model::Stack>(count);
    constexpr const char* chunk = "SessionOptions::chunk, threads: what is computed from a chunk";
    Placer channels{nullptr, checked_sum(chunk, rows.offset, count.bytes)};
    Model::template place_channels<P>(channels_, channels, options_.chunk, false);
    scratch_ = Arena(channels.offset, chunk);
    channels = {scratch_.data(), rows.offset + count.bytes};
    Model::template place_channels<P>(channels_, channels, options_.chunk, false);
    x_ = reinterpret_cast<R*>(scratch_.data());
    normed_ = reinterpret_cast<R*>(scratch_.data() + rows.offset / 2);
    memory_ = scratch_.data() + rows.offset;

    // Touch all pages now, so that no step has to wait for page faults.
    for (const Arena* arena : {&block_, &scratch_})
      if (arena->bytes() > 0)
        std::memset(arena->data(), 0, static_cast<std::size_t>(arena->bytes()));
    parallel(options_.threads, [](const Team&) {});  // starts the threads
  }

  /// A fork: the same weights, a copy of all states.
  Engine(const Engine& other)
      : Engine(other.who_, *other.weights_, other.sequences(), other.options_) {
    std::memcpy(block_.data(), other.block_.data(), static_cast<std::size_t>(block_.bytes()));
    std::copy_n(other.positions_, sequences_, positions_);
    std::copy_n(other.logits_, std::ptrdiff_t{sequences_} * Model::vocab_size, logits_);
  }
  Engine& operator=(const Engine& other) {
    if (this != &other) *this = Engine(other);
    return *this;
  }
  Engine(Engine&&) = default;
  Engine& operator=(Engine&&) = default;

  int sequences() const { return sequences_; }
  std::int64_t position(int i) const { return positions_[i]; }
  std::int64_t state_bytes() const { return info_.bytes; }
  const SessionOptions& options() const { return options_; }

  std::span<const R> logits(int i) const {
    return {logits_ + std::ptrdiff_t{i} * Model::vocab_size, std::size_t{Model::vocab_size}};
  }
  std::span<const R> logits() const {
    return {logits_, static_cast<std::size_t>(sequences_) * Model::vocab_size};
  }

  void check_sequence(int i) const {
    if (i < 0 || i >= sequences())
      fail({who_, ": sequence ", i, " is outside [0, ", sequences(), ")"});
  }

  /// Throws unless sequence i can read these tokens.
  void check_tokens(int i, Tokens tokens, const char* call) const {
    detail::check_tokens(who_, call, tokens, Model::vocab_size);
    if constexpr (Model::has_capacity)
      if (static_cast<std::int64_t>(tokens.size()) > options_.capacity - position(i))
        fail({who_, "::", call, ": ", "position ", position(i), " and ", tokens.size(),
              " tokens exceed the capacity of ", options_.capacity,
              " positions; give SessionOptions{.capacity = ...}"});
  }
  void check_not_empty(Tokens tokens, const char* call) const {
    if (tokens.empty()) fail({who_, "::", call, ": expected at least one token, found none"});
  }

  /// Reads the next tokens of every sequence and writes the logits of its last token to logits(i).
  /// prompts[i] may be empty; sequence i then keeps its logits.
  void read(std::span<const Tokens> prompts) {
    std::size_t first = 0;  // sequences before it are done
    std::int64_t done = 0;  // tokens of `first` that are done
    while (true) {
      std::int64_t rows = 0;
      std::size_t n = 0, wanted = 0;
      while (first < prompts.size() && rows < options_.chunk) {
        const std::int64_t left = std::ssize(prompts[first]) - done;
        const std::int64_t take = (std::min)(left, options_.chunk - rows);
        if (take > 0) {
          std::copy_n(prompts[first].data() + done, take, tokens_ + rows);
          segments_[n++] = {positions_[first], rows, take, static_cast<std::int64_t>(first)};
          positions_[first] += take;
          rows += take;
        }
        if (take < left) {
          done += take;
          break;
        }
        if (take > 0) wanted_[wanted++] = {rows - 1, logits_ + first * Model::vocab_size};
        ++first;
        done = 0;
      }
      if (rows == 0) return;
      run({segments_, n}, rows, {wanted_, wanted}, nullptr);
    }
  }

  /// Reads the next tokens of sequence i; logits: (tokens, vocab_size).
  void forward(int i, Tokens tokens, R* logits) {
    for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += options_.chunk) {
      const auto rows = std::min<std::int64_t>(options_.chunk, std::ssize(tokens) - begin);
      std::copy_n(tokens.data() + begin, rows, tokens_);
      segments_[0] = {positions_[i], 0, rows, i};
      positions_[i] += rows;
      run({segments_, 1}, rows, {}, logits + begin * Model::vocab_size);
    }
  }

  void reset(int i) {
    std::memset(block_of(i), 0, static_cast<std::size_t>(info_.bytes));
    set_position(i, 0);
  }

  void snapshot(int i, Snapshot& into) const {
    into.structure = info_.structure;
    into.dtypes = info_.dtypes;
    into.capacity = info_.capacity;
    into.position = position(i);
    if (into.block.bytes() != info_.bytes) into.block = Arena(info_.bytes, "a snapshot");
    std::memcpy(into.block.data(), block_of(i), static_cast<std::size_t>(info_.bytes));
  }

  void restore(int i, const Snapshot& s) {
    info_.check_fits(who_, "::restore: the snapshot", s.structure, s.dtypes, s.capacity,
                     s.position);
    if (s.block.bytes() != info_.bytes)
      fail({who_, "::restore: the snapshot: expected ", info_.bytes, " bytes, found ",
            s.block.bytes()});
    std::memcpy(block_of(i), s.block.data(), static_cast<std::size_t>(info_.bytes));
    set_position(i, s.position);
  }

  void save(int i, const std::string& path) const {
    save_state(path, info_, tensors(), block_of(i), position(i));
  }
  void load(int i, const std::string& path) {
    set_position(i, load_state(path, info_, tensors(), block_of(i)));
  }

 private:
  struct Wanted {
    std::int64_t row = 0;
    R* logits = nullptr;
  };

  struct CountScratch {
    ScratchMemory memory;
    std::int64_t bytes = 0;
    [[gnu::cold]] void operator()(auto branch, Use) {
      typename decltype(branch)::type::template Scratch<P> t;
      bytes = (std::max)(bytes, t.place(memory));
    }
  };

  [[gnu::cold]] static SessionOptions check_options(const char* who, int sequences,
                                                    SessionOptions o) {
    if (sequences < 1) fail({who, ": expected at least one sequence, found ", sequences});
    if (o.capacity < 1)
      fail({who, ": SessionOptions::capacity: expected at least 1, found ", o.capacity});
    if (o.threads < 0)
      fail({who, ": SessionOptions::threads: expected 0 or more, found ", o.threads});
    if (o.chunk < 1) fail({who, ": SessionOptions::chunk: expected at least 1, found ", o.chunk});
    o.threads = usable_threads(o.threads);
    return o;
  }

  /// Places all other arrays in `block`, or only counts if it is null; returns their size in bytes.
  [[gnu::cold]] std::int64_t lay_out(std::byte* block) {
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      x = reinterpret_cast<X*>(placer.take_array(n, sizeof(X), "sequences"));
    };
    take(segments_, sequences_);
    take(wanted_, sequences_);
    take(channels_, Model::n_channels);
    take(positions_, sequences_);
    take(tokens_, options_.chunk);
    take(logits_, std::int64_t{sequences_} * Model::vocab_size);
    return placer.offset;
  }

  /// For a state that was replaced. None of its tokens was read here, so logits are cleared.
  void set_position(int i, std::int64_t position) {
    positions_[i] = position;
    std::fill_n(logits_ + std::ptrdiff_t{i} * Model::vocab_size, Model::vocab_size, R{0});
  }

  std::byte* block_of(int i) const { return block_.data() + i * info_.bytes; }

  /// Lists the tensors of a state, in order, for a file.
  struct ListTensors {
    const Engine& engine;
    std::vector<StateTensor> list = {};
    Placer placer = {};
    int number = 0;

    template <class X>
    void operator()(const auto& name, const X& x) {
      using Number = std::remove_reference_t<decltype(*x.data)>;
      const std::int64_t bytes = X::bytes(engine.options_.capacity);
      engine.add(list, number, name_text(name), dtype_of<Number>, X::shape, placer.offset, bytes);
      placer.take(bytes);
    }
    void operator()(auto branch, Use, const auto& part) {
      decltype(branch)::type::template State<P>::visit(part, *this);
      ++number;
    }
  };
  std::vector<StateTensor> tensors() const {
    ListTensors all{*this};
    Model::Stack::walk(all, Use{}, states_);
    return all.list;
  }

  // (`auto`: programs that save no state need not compile it.)
  [[gnu::cold, gnu::noinline]] void add(auto& list, int branch, std::string_view name, Dtype dtype,
                                        const Shape& shape, std::int64_t offset,
                                        std::int64_t bytes) const {
    auto& tensor = list.emplace_back();
    tensor.name = join({branch, ".", name});
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.offset = offset;
    tensor.bytes = bytes;
    for (std::int64_t& extent : tensor.shape)
      if (extent == 0) extent = options_.capacity;
  }

  /// Runs the first `rows` of tokens_ through the model. Writes the logits of every row to `all`,
  /// or, if it is null, those of the wanted rows to their places.
  void run(std::span<const Segment> segments, std::int64_t rows, std::span<const Wanted> wanted,
           R* all) {
    const auto& w = weights_->tree();
    const Rows<R, Model::d_model> x{x_, rows}, normed{normed_, rows};
    Model::template lend_states<P>({channels_, std::size_t{Model::n_channels}}, states_);
    const std::int64_t start = nanoseconds();
    const std::int64_t slept = parallel(team_size_.next(), [&](const Team& team) {
      const Context<P> c{
          {segments, rows}, {team}, Model::norm_eps, {channels_, std::size_t{Model::n_channels}}};
      Model::embed(c, w, tokens_, x);
      Model::forward(c, w, states_, {memory_, rows, options_.threads}, x);
      if (all) {
        Model::logits(c, w, x, normed, {all, rows});
        return;
      }
      // One product for consecutive rows whose logits are consecutive, too.
      for (std::size_t begin = 0, end; begin < wanted.size(); begin = end) {
        const auto [row, logits] = wanted[begin];
        for (end = begin + 1; end < wanted.size(); ++end) {
          const auto step = static_cast<std::int64_t>(end - begin);
          if (wanted[end].row != row + step ||
              wanted[end].logits != logits + step * Model::vocab_size)
            break;
        }
        const auto n = static_cast<std::int64_t>(end - begin);
        Model::logits(c, w, {x.row(row), n}, {normed.row(row), n}, {logits, n});
      }
    });
    const double seconds = 1e-9 * static_cast<double>(nanoseconds() - start);
    team_size_.ran(2 * rows + (all != nullptr), seconds, slept);
  }

  const char* who_;
  const Weights<Model, T>* weights_;
  int sequences_;
  SessionOptions options_;
  TeamSize team_size_{options_.threads};
  StateInfo info_;
  // The states of all sequences; x_, normed_ and memory_; the arrays declared below.
  Arena block_, scratch_, own_;
  R *x_ = nullptr, *normed_ = nullptr;
  std::byte* memory_ = nullptr;
  typename Model::template States<P> states_;  // views into block_
  Segment* segments_;                          // (sequences)
  Wanted* wanted_;                             // (sequences)
  ChannelPlace* channels_;                     // (n_channels)
  std::int64_t* positions_;                    // (sequences)
  std::int32_t* tokens_;                       // (chunk)
  R* logits_;                                  // (sequences, vocab_size)
};

}  // namespace detail
}  // namespace samba::inline SAMBA_TARGET
