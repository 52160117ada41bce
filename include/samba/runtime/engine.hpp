#pragma once
#include <samba/model/weights.hpp>
#include <samba/runtime/snapshot.hpp>
#include <samba/runtime/state_file.hpp>

#include <algorithm>
#include <span>

namespace samba::inline SAMBA_TARGET::detail {

/// Throws unless all tokens are in the vocabulary.
[[gnu::noinline]] inline void check_tokens(const char* who, const char* call,
                                           std::span<const std::int32_t> tokens, int vocab_size) {
  for (std::size_t k = 0; k < tokens.size(); ++k)
    if (tokens[k] < 0 || tokens[k] >= vocab_size)
      fail({who, "::", call, ": ", "token ", tokens[k], " at index ", k,
            " is outside the vocabulary [0, ", vocab_size, ")"});
}

template <class P>
struct CountScratch {
  ScratchMemory memory;
  std::int64_t bytes = 0;
  [[gnu::cold]] void operator()(auto branch, Use) {
    typename decltype(branch)::type::template Scratch<P> t;
    bytes = (std::max)(bytes, t.place(memory));
  }
};
/// Bytes of the scratch memory that branches share. memory: without a place, for counting.
template <class Model, class P>
[[gnu::cold]] std::int64_t scratch_bytes(const ScratchMemory& memory) {
  CountScratch<P> count{memory};
  for_each_branch<typename Model::Stack>(count);
  return count.bytes;
}

/// The rows of a pass, in memory of the host. A backend may change tokens and segments behind these.
struct PassInput {
  Segment* segments = nullptr;
  std::size_t n_segments = 0;
  std::int32_t* tokens = nullptr;  ///< (rows)
  std::int64_t rows = 0;
};

/// A row of a pass, and where its logits go.
template <class R>
struct WantedRow {
  std::int64_t row = 0;
  R* logits = nullptr;
};

/// Calls f(first row, rows, logits) for runs of consecutive rows whose logits are consecutive, too.
template <class R, class F>
void for_each_run(std::span<const WantedRow<R>> wanted, std::int64_t vocab_size, F&& f) {
  for (std::size_t begin = 0, end; begin < wanted.size(); begin = end) {
    const auto [row, logits] = wanted[begin];
    for (end = begin + 1; end < wanted.size(); ++end) {
      const auto step = static_cast<std::int64_t>(end - begin);
      if (wanted[end].row != row + step || wanted[end].logits != logits + step * vocab_size) break;
    }
    f(row, static_cast<std::int64_t>(end - begin), logits);
  }
}

/// What sessions and batches have in common, on all devices: the states of some sequences, and how
/// their tokens are divided into passes through the model. It checks its input; messages start with
/// `who`, the caller's name.
///
/// Backend is where the model runs: CpuBackend, or cuda::CudaBackend. It has the types of a pass, P,
/// weights, options and memory; it runs passes:
///   Backend(weights, options)
///   prepare(states, block, input, sequences)   once, when all else is there
///   run(states, input, wanted, all)            returns when the logits are written
///   copy(to, from, bytes), clear(to, bytes)     between its memory and the host's, either way
/// States are in its memory, all else that the engine has in the host's.
template <class Backend>
class Engine {
  using Model = typename Backend::Model;
  using P = typename Backend::P;

 public:
  using R = Real<P>;
  using Tokens = std::span<const std::int32_t>;
  using Options = typename Backend::Options;

  [[gnu::cold]] Engine(const char* who, const typename Backend::Weights& weights, int sequences,
                       Options options)
      : who_(who),
        sequences_(sequences),
        options_(check_options(who, sequences, options)),
        backend_(weights, options_) {
    constexpr const char* input = "SessionOptions::chunk, sequences: tokens and logits";
    own_ = backend_.allocate_host(lay_out(nullptr), input);
    lay_out(own_.data());
    info_.structure = structure<Model>();
    info_.dtypes = state_dtypes<R, KeyValue<P>>();
    info_.capacity = Model::has_capacity ? options_.capacity : 0;
    info_.bytes = Model::template place_states<P>(states_, nullptr, 0, options_.capacity);
    constexpr const char* states = "SessionOptions::capacity, sequences: states";
    block_ = backend_.allocate(checked_product(states, info_.bytes, sequences), states);
    Model::template place_states<P>(states_, block_.data(), info_.bytes, options_.capacity);
    backend_.prepare(states_, block_, {segments_, 0, tokens_, 0}, sequences);
  }

  /// A fork: the same weights, a copy of all states.
  Engine(const Engine& other)
      : Engine(other.who_, other.backend_.weights(), other.sequences(), other.options_) {
    backend_.copy(block_.data(), other.block_.data(), block_.bytes());
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
  const Options& options() const { return options_; }

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
  /// Throws unless there is room for the logits of these tokens.
  void check_room(Tokens tokens, std::span<const R> logits, const char* call) const {
    if (const auto n = checked_product("forward: tokens", std::ssize(tokens), Model::vocab_size);
        std::ssize(logits) != n)
      fail({who_, "::", call, ": logits: expected room for ", n, " values ([", tokens.size(), ", ",
            Model::vocab_size, "]), found ", logits.size()});
  }
  /// Throws unless `found` things were given for as many sequences.
  void check_count(std::size_t found, std::size_t expected, const char* call,
                   const char* things) const {
    if (found != expected)
      fail({who_, "::", call, ": expected ", expected, " ", things, ", found ", found});
  }

  [[noreturn, gnu::cold]] void fail_twice(int i, const char* call) const {
    fail({who_, "::", call, ": sequence ", i, " is named twice"});
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
      backend_.run(states_, {segments_, n, tokens_, rows}, {wanted_, wanted}, nullptr);
    }
  }

  /// Reads the next tokens of sequence i; logits: (tokens, vocab_size).
  void forward(int i, Tokens tokens, R* logits) {
    for (std::int64_t begin = 0; begin < std::ssize(tokens); begin += options_.chunk) {
      const auto rows = std::min<std::int64_t>(options_.chunk, std::ssize(tokens) - begin);
      std::copy_n(tokens.data() + begin, rows, tokens_);
      segments_[0] = {positions_[i], 0, rows, i};
      positions_[i] += rows;
      backend_.run(states_, {segments_, 1, tokens_, rows}, {}, logits + begin * Model::vocab_size);
    }
  }

  void reset(int i) {
    backend_.clear(block_of(i), info_.bytes);
    set_position(i, 0);
  }

  void snapshot(int i, Snapshot& into) const {
    into.structure = info_.structure;
    into.dtypes = info_.dtypes;
    into.capacity = info_.capacity;
    into.position = position(i);
    if (into.block.bytes() != info_.bytes) into.block = Arena(info_.bytes, "a snapshot");
    backend_.copy(into.block.data(), block_of(i), info_.bytes);
  }

  void restore(int i, const Snapshot& s) {
    info_.check_fits(who_, "::restore: the snapshot", s.structure, s.dtypes, s.capacity,
                     s.position);
    if (s.block.bytes() != info_.bytes)
      fail({who_, "::restore: the snapshot: expected ", info_.bytes, " bytes, found ",
            s.block.bytes()});
    backend_.copy(block_of(i), s.block.data(), info_.bytes);
    set_position(i, s.position);
  }

  void save(int i, const std::string& path) const {
    const Arena copy = host_copy(i);
    save_state(path, info_, tensors(), Backend::on_host ? block_of(i) : copy.data(), position(i));
  }
  void load(int i, const std::string& path) {
    if constexpr (Backend::on_host) {
      set_position(i, load_state(path, info_, tensors(), block_of(i)));
    } else {
      const Arena copy = host_copy(i);  // padding between tensors stays as it is
      const std::int64_t position = load_state(path, info_, tensors(), copy.data());
      backend_.copy(block_of(i), copy.data(), info_.bytes);
      set_position(i, position);
    }
  }

 private:
  [[gnu::cold]] static Options check_options(const char* who, int sequences, Options o) {
    if (sequences < 1) fail({who, ": expected at least one sequence, found ", sequences});
    if (o.capacity < 1)
      fail({who, ": SessionOptions::capacity: expected at least 1, found ", o.capacity});
    if (o.chunk < 1) fail({who, ": SessionOptions::chunk: expected at least 1, found ", o.chunk});
    return Backend::check_options(who, o);
  }

  /// Places all other arrays in `block`, or only counts if it is null; returns their size in bytes.
  [[gnu::cold]] std::int64_t lay_out(std::byte* block) {
    Placer placer{block};
    const auto take = [&]<class X>(X*& x, std::int64_t n) {
      x = reinterpret_cast<X*>(placer.take_array(n, sizeof(X), "sequences"));
    };
    take(segments_, sequences_);
    take(tokens_, options_.chunk);  // right after the segments: a backend copies both at once
    take(wanted_, sequences_);
    take(positions_, sequences_);
    take(logits_, std::int64_t{sequences_} * Model::vocab_size);
    return placer.offset;
  }

  /// For a state that was replaced. None of its tokens was read here, so logits are cleared.
  void set_position(int i, std::int64_t position) {
    positions_[i] = position;
    std::fill_n(logits_ + std::ptrdiff_t{i} * Model::vocab_size, Model::vocab_size, R{0});
  }

  std::byte* block_of(int i) const { return block_.data() + i * info_.bytes; }

  /// A copy of a state on the host; empty if it is there already.
  Arena host_copy(int i) const {
    if constexpr (Backend::on_host) {
      return {};
    } else {
      Arena copy(info_.bytes, "a copy of the state");
      backend_.copy(copy.data(), block_of(i), info_.bytes);
      return copy;
    }
  }

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

  const char* who_;
  int sequences_;
  Options options_;
  Backend backend_;
  StateInfo info_;
  Arena block_, own_;                          // the states of all sequences; what follows
  typename Model::template States<P> states_;  // views into block_
  Segment* segments_;                          // (sequences)
  std::int32_t* tokens_;                       // (chunk)
  WantedRow<R>* wanted_;                       // (sequences)
  std::int64_t* positions_;                    // (sequences)
  R* logits_;                                  // (sequences, vocab_size)
};

}  // namespace samba::inline SAMBA_TARGET::detail
