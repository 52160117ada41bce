#pragma once
/// \file
/// Threads. This is the one header that knows OpenMP; without it everything runs on one thread.
#include <samba/core/scalar.hpp>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace samba::inline SAMBA_TARGET {

/// What the threads of a team wait at.
struct Barrier {
  std::atomic<int> arrived{0};
  std::atomic<unsigned> passed{0};
};

/// One thread's place among those that run a kernel together. A default Team runs alone.
struct Team {
  int rank = 0, size = 1;
  Barrier* shared = nullptr;

  /// This thread's contiguous share of n items, in whole units of `grain`. The results of a kernel
  /// do not depend on the shares: whatever is added up, is added up by one thread.
  [[gnu::noinline]] Range share(std::int64_t n, std::int64_t grain = 1) const {
    const std::int64_t units = (n + grain - 1) / grain;
    const std::int64_t begin = units * rank / size * grain, end = units * (rank + 1) / size * grain;
    return {(std::min)(begin, n), (std::min)(end, n)};
  }

  /// Returns when every thread of the team has called it. Threads spin for about as long as it takes
  /// the system to wake one, then offer their processor to others, then sleep: on a busy machine the
  /// one they wait for may need it.
  void barrier() const {
    if (size > 1) wait();
  }

 private:
  [[gnu::noinline]] void wait() const {
    constexpr int spins = 50000, offers = 50;
    const unsigned round = shared->passed.load(std::memory_order_relaxed);
    if (shared->arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      shared->arrived.store(0, std::memory_order_relaxed);
      shared->passed.store(round + 1, std::memory_order_release);
      return;
    }
    for (int turn = 0; shared->passed.load(std::memory_order_acquire) == round; ++turn)
      if (turn >= spins + offers)
        ::usleep(50);
      else if (turn >= spins)
        ::sched_yield();
  }
};

/// Threads that a caller gets by default: OpenMP's maximum, or 1 where the caller is parallel
/// already.
inline int default_threads() {
#ifdef _OPENMP
  return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
  return 1;
#endif
}

/// Calls f(team) once on each of `threads` threads and returns when all are done. f must not throw.
/// Where the runtime grants fewer threads, the team is that much smaller.
template <class F>
void parallel(int threads, F&& f) {
#ifdef _OPENMP
  if (threads > 1) {
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    f(Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
    return;
  }
#endif
  static_cast<void>(threads);
  f(Team{});
}

}  // namespace samba::inline SAMBA_TARGET
