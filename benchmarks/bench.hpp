#pragma once
/// \file
/// What the benchmarks share. A row is one operation of one size on some threads, named
/// `<kernel>/<variant>/<model>/<size>/threads:<n>`, where the sizes are those of a model: `demo`
/// (d_model 256, weights in the cache) or `samba421m` (d_model 1536, weights from memory).
/// Variants: `raw_loop`, the plain loop over plain arrays; `reference`, the scalar kernel; `simd`,
/// `simd_bf16`, `simd_int8`, `simd_q4`, the function that the layers call, with factors of that type;
/// of `matmul` also `eigen`, Eigen's product. Those of layers and models end in the type of their
/// matrices. `cross_entropy` and the backward kernels, `matmul_backward` and so on, have no raw_loop.
#include "ceiling.hpp"

#include <samba/core/context.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

namespace bench {

using samba::Team;

/// The instruction set in the head of a report.
inline const bool context = (benchmark::AddCustomContext("samba_target", samba::target), true);

/// What one call of an operation needs at least.
struct Cost {
  double bytes = 0;    ///< every input read once, every output written once; what is added to, both
  double flops = 0;    ///< as the layers count them; an exp, a log or a division is one
  Dot dot = Dot::f32;  ///< the type of the factors of its products
  /// Bytes touched before the same ones come again: tells which cache they can come from.
  double footprint = bytes;
};

template <class T>
inline constexpr Dot dot_of =
    std::is_same_v<T, samba::int8> || std::is_same_v<T, samba::q4> ? Dot::int8
    : std::is_same_v<T, samba::bf16>                               ? Dot::bf16
                                                                   : Dot::f32;
template <class T>
std::string suffix() {
  if (std::is_same_v<T, samba::q4>) return "_q4";  // whose factors are multiplied as bytes
  return dot_of<T> == Dot::int8 ? "_int8" : dot_of<T> == Dot::bf16 ? "_bf16" : "";
}
/// As suffix, with a name for float too.
template <class T>
std::string type_suffix() {
  return dot_of<T> == Dot::f32 ? "_f32" : suffix<T>();
}

/// Bytes of n floats.
constexpr double floats(std::int64_t n) { return 4.0 * static_cast<double>(n); }

/// Numbers of a linear congruential generator (Numerical Recipes), the same in every run.
class Random {
 public:
  std::uint32_t operator()() { return state_ = state_ * 1664525u + 1013904223u; }

  /// Fills x with numbers in [-0.5, 0.5) scale.
  void fill(float* x, std::int64_t n, float scale = 1) {
    for (std::int64_t i = 0; i < n; ++i)
      x[i] = (static_cast<float>((*this)() >> 8) * 0x1p-24f - 0.5f) * scale;
  }

 private:
  std::uint32_t state_ = 1;
};

/// Fills `bytes` bytes of T, where int8 and q4 stand for the blocks of a packed matrix, with small numbers
/// as quickly as they can be made up.
template <class T>
void fill(T* elements, std::int64_t bytes, Random& random) {
  if constexpr (std::is_same_v<T, samba::int8>) {
    using samba::Int8Block;
    auto* block = reinterpret_cast<Int8Block*>(elements);
    for (auto* end = block + bytes / std::int64_t{sizeof(Int8Block)}; block < end; ++block) {
      for (auto& q : block->q)
        for (auto& row : q) std::memcpy(row, std::to_array({random()}).data(), sizeof(row));
      std::fill_n(block->scale, samba::panel_width, 0.05f / 254);
    }
  } else if constexpr (std::is_same_v<T, samba::q4>) {
    using samba::Q4Block;
    auto* block = reinterpret_cast<Q4Block*>(elements);
    for (auto* end = block + bytes / std::int64_t{sizeof(Q4Block)}; block < end; ++block) {
      for (auto& q : block->q)
        for (auto& row : q) std::memcpy(row, std::to_array({random()}).data(), sizeof(row));
      std::fill_n(block->scale, samba::panel_width, samba::f16_from_float(0.05f / 15));
      std::fill_n(block->minimum, samba::panel_width, samba::f16_from_float(-0.025f));
    }
  } else {
    auto* data = reinterpret_cast<float*>(elements);
    random.fill(data, bytes / 4, 0.05f);
    if constexpr (std::is_same_v<T, samba::bf16>)
      for (std::int64_t i = 0; i < bytes / 4; ++i) {  // each half a number
        const auto bits = std::bit_cast<std::uint32_t>(data[i]) >> 16;
        std::memcpy(data + i, std::to_array({bits | bits << 16}).data(), sizeof(bits));
      }
  }
}

/// Bytes of a layer's state that are read and written by `rows` tokens from `position` on: of a
/// ring the rows that are there before, and those that they leave; of any other state all, twice.
template <class State>
double state_traffic(std::int64_t position, std::int64_t rows) {
  double bytes = 0;
  State state{};
  State::visit(state, [&]<class X>(auto, const X&) {
    if constexpr (requires(X x) { x.n_slots; }) {
      const std::int64_t slots = X::shape[1] ? X::shape[1] : position + rows;  // 0: keeps all
      bytes += static_cast<double>(X::bytes_of(1) *
                                   (std::min(position, slots - 1) + std::min(rows, slots)));
    } else {
      bytes += 2.0 * static_cast<double>(X::bytes(0));
    }
  });
  return bytes;
}

/// Random numbers in [-0.5, 0.5), in aligned memory.
class Floats {
 public:
  explicit Floats(std::int64_t n) : arena_(n * 4) {
    Random{}.fill(data(), n);
    float* escaped = data();
    benchmark::DoNotOptimize(escaped);  // from here on every store to it counts
  }
  float* data() const { return reinterpret_cast<float*>(arena_.data()); }

 private:
  samba::Arena arena_;
};

/// A tensor whose numbers are these.
template <class Tensor>
Tensor bound(float* numbers) {
  Tensor tensor;
  tensor.bind(reinterpret_cast<std::byte*>(numbers));
  return tensor;
}

/// What operations are called with: for one sequence of tokens, and for rows of any.
template <class P = samba::Policy<float>>
samba::Context<P> on(const Team& team, const samba::Segment& segment) {
  return {{{&segment, 1}, segment.rows}, {team}};
}
template <class P = samba::Policy<float>>
samba::Context<P> on(const Team& team, std::int64_t rows) {
  return {{{}, rows}, {team}};
}

/// More floats than the caches hold, to take the tensors of a large model from: each call of an
/// operation takes the next ones, as in a model, where a layer never finds its weights in the
/// cache.
inline constexpr std::int64_t pool_floats = std::int64_t{1} << 26;
inline float* pool() {
  static const Floats numbers = [] {
    Floats all(pool_floats);
    // Both halves of a float are numbers in bf16 too.
    auto* bits = reinterpret_cast<std::uint32_t*>(all.data());
    for (std::int64_t i = 0; i < pool_floats; ++i)
      bits[i] = (bits[i] & 0xffff0000u) | bits[i * 7919 % pool_floats] >> 16;
    return all;
  }();
  return numbers.data();
}
/// Where n elements of the pool begin for call number `call`, in elements of T.
template <class T = float>
std::int64_t pool_offset(std::int64_t n, std::int64_t call) {
  return call % (pool_floats * 4 / static_cast<std::int64_t>(sizeof(T)) / n) * n;
}

/// One thread, and all there are.
inline std::vector<int> thread_counts() {
  const int all = samba::usable_threads(0);
  return all > 1 ? std::vector{1, all} : std::vector{1};
}

inline std::string with_threads(int threads) {
  return std::string("threads:").append(std::to_string(threads));
}

/// What the machine can do at this moment, which on a shared one is another thing a minute later.
struct Ceiling {
  double dot = 0, read = 0;  ///< FLOP/s in factors of the row's type, bytes/s from memory

  static Ceiling now(int threads, Dot dot) {
    Ceiling c;
    for (int i = 0; i < 3; ++i) {
      c.dot = std::max(c.dot, dot_rate(dot, threads));
      c.read = std::max(c.read, read_rate(pool(), pool_floats, threads));
    }
    return c;
  }
};

/// The ceilings are the means of those before and after the row.
inline void report(benchmark::State& state, int threads, Cost cost, Ceiling before) {
  using benchmark::Counter;
  const Ceiling after = Ceiling::now(threads, cost.dot);
  state.counters["dot"] = (before.dot + after.dot) / 2;
  state.counters["read"] = (before.read + after.read) / 2;
  state.counters["bytes"] = cost.bytes;
  state.counters["flops"] = cost.flops;
  state.counters["footprint"] = cost.footprint;
  state.counters["n_threads"] = threads;
  // Shown as B=30.17G/s: the library adds the prefix and the "/s".
  state.counters["B"] = Counter(cost.bytes, Counter::kIsIterationInvariantRate);
  state.counters["FLOP"] = Counter(cost.flops, Counter::kIsIterationInvariantRate);
}

/// "a/b/c". (By appending: g++ 12 warns of its own operator+.)
inline std::string path(std::initializer_list<std::string> parts) {
  std::string joined;
  for (const auto& part : parts) joined.append(joined.empty() ? "" : "/").append(part);
  return joined;
}

/// "1x2x3"
inline std::string extents(std::initializer_list<std::int64_t> numbers) {
  std::string joined;
  for (const auto n : numbers) joined.append(joined.empty() ? "" : "x").append(std::to_string(n));
  return joined;
}

/// "512_at_0": rows from a position on.
inline std::string rows_at(std::int64_t rows, std::int64_t position) {
  return std::to_string(rows).append("_at_").append(std::to_string(position));
}

/// Registers a row. make() prepares the data and returns the operation, f(team, call), which every
/// thread of the team calls; the threads stay in one parallel region, as they do in a session. An
/// operation that starts its threads itself is called by one (callers = 1).
template <class Make>
void row(const std::string& name, int threads, Cost cost, Make make, int callers = 0) {
  const auto run = [=](benchmark::State& state) {
    const auto operation = make();
    const Ceiling before = Ceiling::now(threads, cost.dot);
    // Short operations run in groups, so that what is measured is not the meeting of the threads
    // around them.
    const int group = cost.bytes + cost.flops < 1e6 ? 64 : 1;
    bool running = true;
    samba::parallel(callers ? callers : threads, [&](const Team& team) {
      for (std::int64_t call = 0;;) {
        if (team.rank == 0) running = state.KeepRunningBatch(group);
        team.barrier();
        if (!running) break;
        for (int i = 0; i < group; ++i, ++call) {
          operation(team, call);
          benchmark::ClobberMemory();
        }
        team.barrier();
      }
    });
    report(state, threads, cost, before);
  };
  benchmark::RegisterBenchmark(path({name, with_threads(threads)}).c_str(), run)->UseRealTime();
}

}  // namespace bench
