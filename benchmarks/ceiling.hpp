#pragma once
/// \file
/// What the machine can do: rates of products in registers, and of reading an array.
#include <samba/core/parallel.hpp>
#include <samba/kernels/simd/vec.hpp>

#include <chrono>

namespace bench {

using samba::Team;
using namespace samba::kernels::simd;

/// Types of the factors of a product that is added up: in float, or int8 in integers.
enum class Dot { f32, bf16, int8 };

/// Keeps the compiler from knowing what x is, and from leaving out what it took to make it.
template <class X>
void use(X& x) {
  __asm__ volatile("" : "+m"(x) : : "memory");
}

/// FLOPs of one instruction of a dot product, and the instruction. A processor without one for bf16
/// or int8 multiplies floats.
template <Dot dot>
struct DotStep {
  static constexpr int flops = 2 * lanes;
  static vec run(vec sum, vec a, vec b) { return fma(a, b, sum); }
};
#ifdef __AVX512BF16__
template <>
struct DotStep<Dot::bf16> {
  static constexpr int flops = 4 * lanes;
  static vec run(vec sum, vec a, vec b) {
    return _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(a), std::bit_cast<__m512bh>(b));
  }
};
#endif
#ifdef __AVX512VNNI__
template <>
struct DotStep<Dot::int8> {
  static constexpr int flops = 8 * lanes;
  static vec run(vec sum, vec a, vec b) {
    return std::bit_cast<vec>(_mm512_dpbusd_epi32(
        std::bit_cast<__m512i>(sum), std::bit_cast<__m512i>(a), std::bit_cast<__m512i>(b)));
  }
};
#endif

/// Enough chains to cover the latency, few enough for 16 registers; returns the FLOPs.
template <Dot dot>
double dot_loop() {
  constexpr int chains = 12, steps = 4096;
  float factor = 0.999f, addend = 0.001f;
  use(factor);
  use(addend);
  const vec a(factor), b(addend);
  vec x[chains];
  unroll<chains>([&](auto i) __attribute__((always_inline)) { x[i] = vec(static_cast<float>(i)); });
  for (int step = 0; step < steps; ++step)
    unroll<chains>([&](auto i)
                       __attribute__((always_inline)) { x[i] = DotStep<dot>::run(x[i], a, b); });
  vec total = x[0];
  unroll<chains - 1>([&](auto i) __attribute__((always_inline)) { total += x[i + 1]; });
  float result = sum(total);
  use(result);
  return double{chains} * steps * DotStep<dot>::flops;
}
inline double dot_loop(Dot dot) {
  return dot == Dot::bf16   ? dot_loop<Dot::bf16>()
         : dot == Dot::int8 ? dot_loop<Dot::int8>()
                            : dot_loop<Dot::f32>();
}

/// Reads this thread's share of n floats.
inline void read_loop(const Team& team, const float* data, std::int64_t n) {
  constexpr int streams = 8;
  const auto [begin, end] = team.share(n, streams * lanes);
  vec total[streams];
  unroll<streams>([&](auto i) __attribute__((always_inline)) { total[i] = vec(0.f); });
  for (std::int64_t k = begin; k + streams * lanes <= end; k += streams * lanes)
    unroll<streams>([&](auto i)
                        __attribute__((always_inline)) { total[i] += load(data + k + i * lanes); });
  unroll<streams - 1>([&](auto i) __attribute__((always_inline)) { total[0] += total[i + 1]; });
  float result = sum(total[0]);
  use(result);
}

/// Seconds that f(team) takes on some threads, which have started before.
template <class F>
double seconds_of(int threads, F f) {
  using Clock = std::chrono::steady_clock;
  double seconds = 0;
  samba::parallel(threads, [&](const Team& team) {
    team.barrier();
    const auto start = Clock::now();
    f(team);
    team.barrier();
    if (team.rank == 0) seconds = std::chrono::duration<double>(Clock::now() - start).count();
  });
  return seconds;
}

/// FLOP/s of products in registers.
inline double dot_rate(Dot dot, int threads) {
  constexpr int calls = 64;
  const double flops = dot_loop(dot) * calls * threads;
  return flops / seconds_of(threads, [=](const Team&) {
           for (int i = 0; i < calls; ++i) dot_loop(dot);
         });
}

/// Bytes/s of reading n floats once, shared by the threads.
inline double read_rate(const float* data, std::int64_t n, int threads) {
  const double bytes = 4.0 * static_cast<double>(n);
  return bytes / seconds_of(threads, [=](const Team& team) { read_loop(team, data, n); });
}

}  // namespace bench
